"""A node that lies in whatever way is excluded and named, and the others lose nothing."""

import json

import jax
import numpy as np
import pytest
from lies import lies_about

from fedrax.arrays import packed, unpacked
from fedrax.config import resolve
from fedrax.parsing import DecodeError
from fedrax.records.rundir import RunDirectory
from fedrax.runtime.distributed.envelopes import EVALUATED, REFUSED, UNKNOWN_RUN, WORK, Envelope, from_bytes, to_bytes
from fedrax.runtime.distributed.server import DistributedRuntime
from fedrax.runtime.distributed.transport import InProcessTransport

from federations import agent_service, made, rounds_of

SETTINGS = [
    *("environment=CartPole-v1", "environment.horizon=20", "learner=policy-gradient", "strategy=fedavg"),
    *("strategy.batch=2", "federation.agents=3", "budget.rounds=1000", "evaluation.every=1000"),
    *("runtime=flower", "runtime.shared_seeds=true", "runtime.flower.max_failures=none"),
    "runtime.flower.save_every=1000",
]
LEAST = 200


class Bytes(InProcessTransport):
    """Whose nodes answer in bytes, which may be anything."""

    def _ask(self, address, envelope):
        ticket = str(next(self._numbers))
        data = self.nodes[address](from_bytes(to_bytes(envelope)))
        try:
            self._answers[ticket] = from_bytes(data)
        except DecodeError as error:
            self._answers[ticket] = error
        return ticket


def federation(folder, bend, *settings):
    """A federation of three, of which ``bend(envelope, answer)`` says what agent 1's node sends, in bytes."""
    table = {key: value for key, _, value in (setting.partition("=") for setting in [*SETTINGS, *settings])}
    config = resolve({}, [f"{key}={value}" for key, value in table.items()])
    services = [agent_service(folder / f"node-{k}", agent=k) for k in range(3)]

    def node(agent):
        def answered(envelope):
            answer = services[agent].answer(envelope)
            return bend(envelope, answer) if agent == 1 and envelope.kind == WORK else to_bytes(answer)

        return answered

    transport = Bytes({100 + k: node(k) for k in range(3)})
    notes = []
    made(folder / "run")
    return DistributedRuntime(config, transport, RunDirectory(folder / "run"), note=notes.append), notes


def exchanged(folder):
    return [json.loads(line) for line in (folder / "run" / "exchanges.jsonl").read_text().splitlines()]


def refusing(envelope, answer):
    """Honest in the first round, and then of no use."""
    return to_bytes(Envelope(REFUSED, {"reason": "not today"}) if envelope.fields["round"] else answer)


@pytest.mark.training
def test_every_lie_is_excluded_and_named_and_the_others_lose_nothing(tmp_path, record_property):
    names, kept = [], []

    def lying(envelope, answer):
        kept.append(answer)
        if len(kept) == 1:
            return to_bytes(answer)
        lies = list(lies_about(answer, template, earlier=kept[0]))
        if len(kept) == 2:
            names.extend(name for name, _ in lies)
        return lies[len(kept) - 2][1]

    liars, notes = federation(tmp_path / "liars", lying)
    template = (liars.screening.message, liars.screening.report)
    state, _ = rounds_of(liars, 2)
    state, _ = rounds_of(liars, len(names) - 1, state, 2)
    absent, _ = federation(
        tmp_path / "absent",
        lambda envelope, answer: refusing(envelope, answer) if envelope.fields["round"] else to_bytes(answer),
    )
    expected, _ = rounds_of(absent, len(names) + 1)
    jax.tree.map(np.testing.assert_array_equal, state.server, expected.server)

    rows = exchanged(tmp_path / "liars")
    assert {row["outcome"] for row in rows if row["agent"] != 1} == {"answered"}
    of_liar = [row for row in rows if row["agent"] == 1][1:]
    believed = [name for name, row in zip(names, of_liar, strict=True) if row["outcome"] != "excluded"]
    assert not believed
    reasons = [row["reason"] for row in of_liar]
    assert all(reason and reason.isprintable() and len(reason) < 600 for reason in reasons)
    assert [note for note in notes if note.startswith("agent 1 excluded")] == [
        f"agent 1 excluded: {r}" for r in reasons
    ]
    record_property("lies", len(names))
    assert len(set(names)) == len(names) >= LEAST


@pytest.mark.training
def test_a_node_that_says_it_has_started_anew_joins_again_and_costs_nobody_a_round(tmp_path):
    def forgetting(envelope, answer):
        asked.append(1)
        return to_bytes(Envelope(UNKNOWN_RUN)) if len(asked) % 2 else to_bytes(answer)

    asked = []
    forgetful, notes = federation(tmp_path, forgetting, "runtime.flower.quorum=1")
    _, rows = rounds_of(forgetful, 3)
    assert rows["present"].tolist() == [[3, 3, 3]]
    assert notes.count("agent 1 has joined") == 4


@pytest.mark.training
def test_the_message_that_spoils_a_combination_is_left_out_and_named(tmp_path, monkeypatch):
    honest, notes = federation(tmp_path, lambda envelope, answer: to_bytes(answer))
    state, _ = rounds_of(honest, 4)
    exchange = honest._exchanging

    def spoilt(server, downlink, cohort, *others, secret):
        after, made_of = exchange(server, downlink, cohort, *others)
        wrong = jax.tree.map(lambda x: x * np.nan if np.issubdtype(x.dtype, np.floating) else x, after)
        return (wrong if np.asarray(cohort.answers)[1] else after), made_of

    monkeypatch.setattr(honest, "_exchanging", spoilt)
    monkeypatch.setattr(honest.screening.recent, "longest", lambda norms: 1)
    state, rows = rounds_of(honest, 1, state, 4)
    assert rows["present"].tolist() == [[2]]
    (row,) = [row for row in exchanged(tmp_path) if row["round"] == 4 and row["agent"] == 1]
    assert row["outcome"] == "excluded"
    assert row["reason"] == "with its message, the longest, the combined model is not finite"
    assert f"agent 1 excluded: {row['reason']}" in notes
    assert not [note for note in notes if "undone" in note]


@pytest.mark.training
def test_a_lie_does_not_count_towards_the_quorum_while_honest_nodes_are_slow(tmp_path):
    def huge(envelope, answer):
        message, report = unpacked(template, answer.payload)
        spoilt = jax.tree.map(lambda x: np.full_like(x, 1e25), message)
        return to_bytes(Envelope(answer.kind, answer.fields, packed((spoilt, report))))

    liars, _ = federation(tmp_path, huge, "runtime.flower.quorum=0.6", "runtime.flower.deadline=10")
    template = (liars.screening.message, liars.screening.report)
    transport = liars.dispatcher.transport
    due = {}
    ask, collect = transport._ask, transport.collect

    def slow_ask(address, envelope):
        ticket = ask(address, envelope)
        due[ticket] = transport.now() + (15 if address == 102 and envelope.kind == WORK else 0)
        return ticket

    transport._ask = slow_ask
    transport.collect = lambda tickets: collect([ticket for ticket in tickets if due[ticket] <= transport.now()])
    _, rows = rounds_of(liars, 1)
    assert rows["present"].tolist() == [[2]]
    assert {row["agent"]: row["outcome"] for row in exchanged(tmp_path)} == {
        0: "answered",
        1: "excluded",
        2: "answered",
    }


def lie_in_evaluations(liars, value, *, numbers):
    """The second agent's evaluations begin with so many of these."""
    inner = liars.dispatcher.transport.nodes[101]

    def lying(envelope):
        data = inner(envelope)
        answer = from_bytes(data)
        if answer.kind == EVALUATED:
            measured = np.frombuffer(answer.payload, np.float32).copy()
            measured[:numbers] = value
            data = to_bytes(Envelope(answer.kind, answer.fields, measured.tobytes()))
        return data

    liars.dispatcher.transport.nodes[101] = lying


@pytest.mark.training
def test_an_evaluation_far_beyond_the_others_is_not_averaged_with_them(tmp_path):
    config = ("evaluation.environments=own", "evaluation.every=1", "evaluation.episodes=2")
    config += ("runtime.flower.max_failures=2",)
    liars, notes = federation(tmp_path, lambda envelope, answer: to_bytes(answer), *config)
    lie_in_evaluations(liars, 3e38, numbers=1)
    state, rows = rounds_of(liars, 2)
    assert (rows["return"] < 100).all()
    assert "agent 1 excluded: a return of 3e+38 in an evaluation, over the limit of" in " ".join(notes)
    assert any(note.startswith("agent 1 paused") for note in notes)
    # Nor does a server ask it that was started anew.
    again = DistributedRuntime(liars.config, liars.dispatcher.transport, liars.directory, note=notes.append)
    _, rows = rounds_of(again, 1, state, 2)
    assert rows["present"].tolist() == [[2]]
    assert [row["outcome"] for row in exchanged(tmp_path) if row["round"] == 2] == ["answered", "paused", "answered"]


@pytest.mark.training
@pytest.mark.parametrize(("by", "moved"), [("mean", True), ("median", False)])
def test_an_evaluation_that_could_be_moves_the_best_by_mean_and_not_by_median(tmp_path, by, moved):
    config = ("evaluation.environments=own", "evaluation.every=1", "evaluation.episodes=2", f"evaluation.best_by={by}")
    liars, _ = federation(tmp_path, lambda envelope, answer: to_bytes(answer), *config)
    lie_in_evaluations(liars, 5000.0, numbers=2)
    state, rows = rounds_of(liars, 1)
    assert rows["return"][0, 0] > 1000, "it is no million times the others'"
    assert (float(state.best_return[0]) > 1000) is moved
    assert ("return_median" in rows) is not moved
    if not moved:
        assert float(state.best_return[0]) == np.median(rows["agent_returns"][0, 0]) < 100


@pytest.mark.training
@pytest.mark.parametrize("value", [3e38, np.nan])
def test_a_combination_that_cannot_be_right_is_undone_and_named(tmp_path, monkeypatch, value):
    honest, notes = federation(tmp_path, lambda envelope, answer: to_bytes(answer))
    state, _ = rounds_of(honest, 4)
    exchange = honest._exchanging

    def ruined(server, downlink, cohort, *others, secret):
        after, made_of = exchange(server, downlink, cohort, *others)
        wrong = jax.tree.map(lambda x: np.full_like(x, value) if np.issubdtype(x.dtype, np.floating) else x, after)
        return (wrong if np.asarray(cohort.answers).any() else after), made_of

    monkeypatch.setattr(honest, "_exchanging", ruined)
    after, rows = rounds_of(honest, 1, state, 4)
    for one, other in zip(jax.tree.leaves(after.server), jax.tree.leaves(state.server), strict=True):
        if np.issubdtype(one.dtype, np.floating):
            np.testing.assert_array_equal(one, other)
    assert rows["present"].tolist() == [[0]]
    assert rows["excluded"].tolist() == [[[True] * 3]]
    (note,) = [note for note in notes if "undone" in note]
    assert note.startswith("round 5 is undone: the combined model is ")
    assert note.endswith("; it was combined from the messages of agents 0, 1, 2")
    monkeypatch.setattr(honest, "_exchanging", exchange)
    _, rows = rounds_of(honest, 1, after, 5)
    assert rows["present"].tolist() == [[3]]
