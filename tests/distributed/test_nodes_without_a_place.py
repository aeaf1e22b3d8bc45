"""Nodes that have no part in a run are told why, wait where that may change, and end with the run."""

import pytest

from fedrax.runtime.distributed.dispatcher import AGAIN_SECONDS
from fedrax.runtime.distributed.envelopes import END, JOIN, OVER, WITHOUT, Envelope
from fedrax.runtime.distributed.transport import InProcessTransport

from federations import agent_service, configured, distributed


class Sites:
    """A federation's server and nodes, of which each has told its owner what is in ``told``."""

    def __init__(self, folder, config, **settings):
        """``settings`` of each node's service, by its name."""
        self.folder, self.config = folder, config
        self.told = {name: [] for name in settings}
        self.nodes = {
            name: agent_service(folder / name, tell=self.told[name].append, **each) for name, each in settings.items()
        }
        self.transport = InProcessTransport({})
        self.start_server()

    def start_server(self):
        self.server, _, self.notes = distributed(self.config, self.folder, self.transport)
        self.dispatcher = self.server.dispatcher

    def connect(self, name):
        self.transport.nodes[100 + list(self.nodes).index(name)] = self.nodes[name].answer
        self.turn()

    def turn(self, seconds=3.0):
        """Lets so much time pass."""
        until = self.transport.now() + seconds
        while self.transport.now() < until:
            self.dispatcher.turn()

    def members(self):
        return {agent: member.name for agent, member in self.dispatcher.membership.present.items()}


@pytest.fixture
def sites(tmp_path):
    """Two nodes of a federation of one agent; the first has its place."""
    made = Sites(tmp_path, configured("fedpg-br", "federation.agents=1"), first={}, second={})
    made.connect("first")
    made.connect("second")
    return made


def test_a_surplus_node_is_told_once_that_all_places_are_taken(sites):
    sites.turn(3 * AGAIN_SECONDS)
    assert sites.members() == {0: sites.nodes["first"].name}
    (line,) = sites.told["second"]
    assert line == (
        f"no place for this node ({sites.nodes['second'].name[:8]}) in the run 'FedPG-BR CartPole': all 1 agents are "
        "other nodes; where one is gone for good, remove its place from members.json, and start the server again; "
        "it waits for one until the run is over"
    )


def test_a_surplus_node_takes_a_place_that_gets_free(sites):
    del sites.transport.nodes[100]
    sites.server.close()
    sites.dispatcher.membership.file.write_text("{}")
    sites.start_server()
    sites.turn()
    assert sites.members() == {0: sites.nodes["second"].name}
    sites.server.end(5)
    assert sites.told["second"][1:] == [f"{OVER}, after 5 rounds"]


def test_a_surplus_node_ends_with_the_run(sites):
    sites.server.end(5)
    assert sites.told["first"] == [f"{OVER}, after 5 rounds"]
    assert sites.told["second"][1].startswith(f"{WITHOUT}, after 5 rounds: all 1 agents are other nodes; where")
    assert len(sites.told["second"]) == 2


def test_a_node_is_told_anew_where_the_reason_is_another(sites):
    join = Envelope(JOIN, {"run": sites.dispatcher.run, "config": sites.dispatcher.config})
    for why in ("a", "a", "b", "a"):
        sites.nodes["second"].answer(Envelope(JOIN, {**join.fields, "refused": why}))
    reasons = [line.partition(": ")[2].partition(";")[0] for line in sites.told["second"][1:]]
    assert reasons == ["a", "b", "a"]


def test_what_is_refused_in_every_round_is_told_once_whatever_else_is_asked(sites):
    service, told = sites.nodes["first"], sites.told["first"]
    run = {"run": sites.dispatcher.run, "agent": 0}
    join = Envelope(JOIN, {"run": sites.dispatcher.run, "config": sites.dispatcher.config})
    for _ in range(3):
        service.answer(Envelope("work", {**run, "round": 0}))
        service.answer(join)
    assert len(told) == 2, "who it is, and what is missing"
    service.answer(Envelope("work", {**run, "round": "x"}))
    assert "ValueError" in told[-1]
    service.answer(Envelope(END, {**run, "rounds": 2}))
    assert told[-1].startswith(f"{WITHOUT}, after 2 rounds: ValueError")
