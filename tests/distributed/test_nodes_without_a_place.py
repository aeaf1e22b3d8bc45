"""Nodes that have no part in a run are told why, wait where that may change, and end with the run."""

import itertools

import pytest

from fedrax.records.refusals import MOST, REFUSALS, Refusal, Refusals, read_refusals
from fedrax.runtime.distributed.dispatcher import AGAIN_SECONDS, END_SECONDS
from fedrax.runtime.distributed.envelopes import CANNOT, END, JOIN, OVER, WITHOUT, Envelope
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
        self.addresses, self.numbers = {}, itertools.count(100)
        self.start_server()

    def start_server(self):
        self.server, _, self.notes = distributed(self.config, self.folder, self.transport)
        self.dispatcher = self.server.dispatcher

    def start_node(self, name, **settings):
        """The node's process, as it is started anew with other settings."""
        self.nodes[name] = agent_service(self.folder / name, tell=self.told[name].append, **settings)

    def refused(self):
        """Who is refused, as people see it."""
        return [refusal.text for refusal in read_refusals(self.server.directory.path / REFUSALS).values()]

    def connect(self, name):
        """Under a new address, as every connection without a key has."""
        self.leave(name)
        self.addresses[name] = next(self.numbers)
        self.transport.nodes[self.addresses[name]] = self.nodes[name].answer
        self.turn()

    def leave(self, name):
        self.transport.nodes.pop(self.addresses.get(name), None)
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
        f"no place for this node ({sites.nodes['second'].name[:8]}) in the run 'FedPG-BR CartPole': the only agent "
        "is another node; where one is gone for good, whoever runs the server removes its place from members.json "
        "there, and starts the server again; it waits for one until the run is over"
    )


def test_a_surplus_node_takes_a_place_that_gets_free(sites):
    sites.leave("first")
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
    assert sites.told["second"][1].startswith(f"{WITHOUT}, after 5 rounds: the only agent is another node; where")
    assert len(sites.told["second"]) == 2


def test_who_comes_back_to_a_server_that_is_started_again_after_the_end_is_told(sites):
    """Nobody is connected when it starts."""
    for name in ("first", "second"):
        sites.transport.nodes.pop(sites.addresses[name])
        sites.start_node(name)
    sites.server.close()
    sites.start_server()
    sites.transport.nodes = {200: sites.nodes["first"].answer, 201: sites.nodes["second"].answer}
    before = sites.transport.now()
    sites.transport.addresses = lambda: {200, 201} if sites.transport.now() > before + 4 else set()
    sites.server.end(5)
    assert sites.told["first"] == [f"{OVER}, after 5 rounds"]
    assert sites.transport.now() - before <= 2 * END_SECONDS


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


UNFIT = {
    "environment": (
        {"overrides": ["environment.id=Acrobot-v1"]},
        "the node's environment, Acrobot-v1 (observations of shape (6,), 3 actions), does not fit the server's, "
        "CartPole-v1 (observations of shape (4,), 2 actions): observations and actions must be of the same shapes",
    ),
    "copies": ({"overrides": ["environment.num_envs=3"]}, "and environment.num_envs must be equal"),
    "horizon": (
        {"overrides": ["environment.horizon=50"]},
        "has 1 to 200 environment steps, and the server takes 1 to 160: environment.horizon may not be longer",
    ),
    "agent": ({"agent": 7}, "there is no agent 7; there are agents 0 to 0"),
    "package": ({"overrides": ["environment.id=Nowhere-v0"]}, "Nowhere-v0"),
}


@pytest.mark.parametrize("part", UNFIT)
def test_a_node_that_does_not_fit_is_refused_before_it_has_a_place(tmp_path, part):
    settings, why = UNFIT[part]
    case = "fedavg-td3" if part == "copies" else "fedpg-br"
    sites = Sites(tmp_path, configured(case, "federation.agents=1"), wrong=settings)
    sites.connect("wrong")
    sites.turn(3 * AGAIN_SECONDS)
    assert not sites.members()
    assert not sites.dispatcher.membership.places
    (line,) = sites.told["wrong"]
    assert line.startswith(f"{CANNOT}: ")
    assert why in line
    name = sites.nodes["wrong"].name[:8]
    (shown,) = sites.refused()
    assert shown.startswith(f"node {name}: it says: ")
    assert why in shown
    assert sum(why in note for note in sites.notes) == 1, "the server's log is not filled"
    # Its owner mends it, and starts the node again.
    sites.leave("wrong")
    assert sites.refused() == [shown], "it has ended, and that is still to be seen"
    sites.start_node("wrong")
    sites.connect("wrong")
    assert sites.members() == {0: sites.nodes["wrong"].name}
    assert not sites.refused()


def test_a_member_that_comes_back_with_another_environment_has_its_place_again_once_that_is_mended(sites):
    sites.leave("second")
    sites.start_node("first", overrides=["environment.id=Acrobot-v1"])
    sites.connect("first")
    assert not sites.members()
    assert len(sites.refused()) == 1
    sites.start_node("first")
    sites.connect("first")
    assert sites.members() == {0: sites.nodes["first"].name}
    assert not sites.refused()


def test_a_site_whose_environment_is_some_agents_task_says_which_it_is(tmp_path):
    """Agents 0, 1 and 2 reach, push and slide."""
    slide = ["environment.id=PointSlide-v0"]
    sites = Sites(tmp_path, configured("tasks"), any={"overrides": slide}, other={"overrides": slide, "agent": 0})
    sites.connect("any")
    sites.connect("other")
    assert not sites.dispatcher.membership.places
    for name in ("any", "other"):
        assert sites.told[name][0].endswith("and the node has PointSlide-v0; start the node with --agent 2")
    assert "to be agent 0: it says: agent 0 of the run has PointReach-v0" in sites.refused()[1]
    sites.start_node("any", overrides=slide, agent=2)
    sites.connect("any")
    assert set(sites.members()) == {2}


def test_who_waits_for_a_place_is_named_while_it_is_there(sites):
    (shown,) = sites.refused()
    assert shown.startswith(f"node {sites.nodes['second'].name[:8]}: the only agent is another node")
    sites.leave("second")
    assert not sites.refused()


def test_a_table_of_refusals_moves_no_cursor():
    text = Refusal("\x1b[2J\nline \u202e", "[b]\x1b]0;t\x07", agent=3).text
    assert text.isprintable()
    assert "to be agent 3" in text


def test_a_flood_of_names_fills_no_file(tmp_path):
    refusals = Refusals(tmp_path / REFUSALS)
    for number in range(3 * MOST):
        refusals.add(number, "", Refusal("no", node=f"n{number}", stays=number % 2 == 0))
    assert len(read_refusals(tmp_path / REFUSALS)) == MOST
    assert len(Refusals(tmp_path / REFUSALS).known) == MOST // 2, "who waits asks again"
    refusals.look(set())
    assert len(read_refusals(tmp_path / REFUSALS)) == MOST // 2


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', '{"a": {"reason": 1}}', '{"a": {"reason": "x", "more": 1}}'])
def test_a_damaged_table_of_refusals_stops_nothing(tmp_path, text):
    (tmp_path / REFUSALS).write_text(text)
    assert read_refusals(tmp_path / REFUSALS) == {}
