"""A transport whose nodes are tables, and whose time passes only by waiting."""

from fedrax.runtime.distributed.envelopes import EVALUATED, JOIN, JOINED, Envelope
from fedrax.runtime.distributed.transport import DeliveryError, Transport

RUN = "r1"


class Stub(Transport):
    """Nodes that answer after a while, or never; time passes only by waiting."""

    def __init__(self):
        self.time, self.nodes, self.under_way, self.asked = 0.0, {}, {}, []

    def add(self, address, name, *, agent=-1, after=0.1, answer=None, run=RUN):
        self.nodes[address] = (name, agent, after, answer, run)

    def remove(self, address):
        del self.nodes[address]

    def addresses(self):
        return set(self.nodes)

    def send(self, envelopes, *, seconds):
        return [self.take(address, envelope) for address, envelope in envelopes]

    def take(self, address, envelope):
        ticket = f"t{len(self.asked)}"
        self.asked.append((address, envelope.kind))
        if address not in self.nodes:
            self.under_way[ticket] = (self.time, DeliveryError("gone"))
            return ticket
        name, agent, after, answer, run = self.nodes[address]
        if envelope.kind == JOIN:
            reply, after = Envelope(JOINED, {"run": run, "node": name, "agent": agent, "done": 0}), 0.1
        elif answer is not None:
            reply = answer(envelope)
        else:
            reply = Envelope(EVALUATED, {"run": RUN, "agent": int(envelope.fields["agent"]), "names": ""})
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
            raise TimeoutError("the dispatcher waits for ever")
