"""A post whose nodes are tables, and whose clock moves only by waiting."""

from fedrax.runtime.remote.letters import EVALUATED, JOIN, JOINED, Letter
from fedrax.runtime.remote.post import Lost, Post

RUN = "r1"


class Stub(Post):
    """Nodes that answer after a while, or never; time passes only by waiting."""

    def __init__(self):
        self.time, self.nodes, self.under_way, self.asked = 0.0, {}, {}, []

    def add(self, address, name, *, agent=-1, after=0.1, answer=None, run=RUN):
        self.nodes[address] = (name, agent, after, answer, run)

    def remove(self, address):
        del self.nodes[address]

    def addresses(self):
        return set(self.nodes)

    def send(self, letters, *, seconds):
        return [self.take(address, letter) for address, letter in letters]

    def take(self, address, letter):
        ticket = f"t{len(self.asked)}"
        self.asked.append((address, letter.kind))
        if address not in self.nodes:
            self.under_way[ticket] = (self.time, Lost("gone"))
            return ticket
        name, agent, after, answer, run = self.nodes[address]
        if letter.kind == JOIN:
            reply, after = Letter(JOINED, {"run": run, "node": name, "agent": agent, "done": 0}), 0.1
        elif answer is not None:
            reply = answer(letter)
        else:
            reply = Letter(EVALUATED, {"run": RUN, "agent": int(letter.fields["agent"])})
        if after is not None:
            self.under_way[ticket] = (self.time + after, reply)
        return ticket

    def collect(self, tickets):
        ready = [t for t in tickets if t in self.under_way and self.under_way[t][0] <= self.time]
        return [(t, self.under_way.pop(t)[1]) for t in ready]

    def now(self):
        return self.time

    def wait(self, seconds):
        self.time += seconds
        if self.time > 10_000:
            raise TimeoutError("the office waits for ever")
