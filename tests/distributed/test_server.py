"""The server's half: it resumes, it leaves liars out, and no trajectory ever reaches it."""

import json

import jax
import numpy as np
import pytest

from fedrax.errors import FedraxError
from fedrax.records.rundir import RunDirectory
from fedrax.runtime.distributed.envelopes import WORK, Envelope
from fedrax.runtime.distributed.server import DistributedRuntime
from fedrax.runtime.distributed.transport import InProcessTransport
from fedrax.runtime.make import make_runtime
from fedrax.runtime.training import train_run

from federations import configured, distributed, made, rounds_of, same, simulated

CASE = "fedavg-td3"


def trained(config, folder, transport):
    directory = RunDirectory(made(folder))
    federation = DistributedRuntime(config, transport, directory, note=lambda text: None)
    train_run(config, federation, directory, progress=False)
    return federation


def records(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


@pytest.mark.training
def test_a_server_that_stopped_goes_on_with_the_federation_intact(tmp_path):
    config = configured(CASE)
    _, services, _ = distributed(config, tmp_path / "whole")
    nodes = {k: service.answer for k, service in enumerate(services)}
    trained(config, tmp_path / "whole" / "run", InProcessTransport(nodes))

    class Stopped(Exception):
        pass

    asked = []

    def stops(answer):
        def node(envelope):
            asked.append(envelope.kind)
            if asked.count(WORK) == 8:
                raise Stopped
            return answer(envelope)

        return node

    _, services, _ = distributed(config, tmp_path / "stopped")
    nodes = {k: service.answer for k, service in enumerate(services)}
    with pytest.raises(Stopped):
        trained(config, tmp_path / "stopped" / "run", InProcessTransport({k: stops(node) for k, node in nodes.items()}))
    assert len(records(tmp_path / "stopped" / "run")) == 2
    trained(config, tmp_path / "stopped" / "run", InProcessTransport(nodes))
    assert records(tmp_path / "stopped" / "run") == records(tmp_path / "whole" / "run")


@pytest.mark.training
def test_a_liar_changes_nothing_and_is_named(tmp_path):
    config = configured(CASE, "runtime.flower.quorum=0.5")
    federation, services, notes = distributed(config, tmp_path)
    honest = services[2].answer

    def poisons(envelope):
        answer = honest(envelope)
        if envelope.kind != WORK:
            return answer
        numbers = np.frombuffer(answer.payload, np.float32).copy()
        numbers[:5] = np.nan
        return Envelope(answer.kind, answer.fields, numbers.tobytes())

    federation.dispatcher.transport.nodes[102] = poisons
    state, rows = rounds_of(federation, 2)
    np.testing.assert_array_equal(rows["present"], [[2, 2]])
    assert np.isfinite(state.server.params.actor.layers[0].weight).all()
    assert any(note.startswith("agent 2 excluded: message") for note in notes)

    # The same federation without that node comes to the same server.
    alone, _, _ = distributed(config, tmp_path / "alone")
    del alone.dispatcher.transport.nodes[102]
    expected, _ = rounds_of(alone, 2)
    same(state.server, expected.server, 1e-6)


@pytest.mark.training
def test_the_log_says_what_became_of_every_envelope(tmp_path):
    config = configured(CASE, "runtime.flower.gather=0")
    federation, _, _ = distributed(config, tmp_path)
    del federation.dispatcher.transport.nodes[101]
    rounds_of(federation, 1)
    rows = [json.loads(line) for line in (tmp_path / "run" / "exchanges.jsonl").read_text().splitlines()]
    assert [(row["agent"], row["outcome"]) for row in rows] == [(0, "answered"), (1, "absent"), (2, "answered")]
    assert rows[0]["bytes_up"] > rows[0]["bytes_down"] / 2 > 0
    assert rows[1]["bytes_up"] == 0


@pytest.mark.parametrize(
    ("settings", "why"),
    [(["seeds=2"], "set seeds=1"), (["strategy=central"], "collects what all agents see in one place")],
)
def test_what_cannot_run_on_nodes_is_refused(settings, why, tmp_path):
    config = configured(CASE, *settings)
    with pytest.raises(FedraxError, match=why):
        DistributedRuntime(config, InProcessTransport({}), RunDirectory(made(tmp_path)), note=lambda text: None)


SLOW = [pytest.param(case, marks=pytest.mark.slow) for case in ("fedpg-br", "distillation")]


@pytest.mark.training
@pytest.mark.parametrize("case", ["fedavg-td3", "neighbours-ppo", *SLOW])
def test_no_trajectory_leaves_a_node(case, tmp_path, monkeypatch):
    """Every byte that travels is searched for the numbers that an agent observed, did and was rewarded with."""
    seen = []

    def note(*parts):
        seen.extend(np.asarray(part, np.float32).ravel() for part in parts)

    config = configured(case)
    travelled = []
    federation, _, _ = distributed(config, tmp_path, observe=travelled.append)
    kind = type(federation.federation.strategy)
    real = kind.work

    def spied(self, learner, agent, experience, update_context):
        jax.debug.callback(note, experience.observation, experience.reward, experience.action.astype(np.float32))
        return real(self, learner, agent, experience, update_context)

    monkeypatch.setattr(kind, "work", spied)
    rounds_of(federation, 2)
    jax.effects_barrier()
    numbers = np.unique(np.concatenate(seen))
    # Small whole numbers, halves and the like may well be in a message for other reasons.
    telling = [x for x in numbers.astype(np.float32) if abs(x) > 1e-3 and (np.float64(x) * 1024) % 1 != 0]
    assert len(telling) > 50
    sent = b"\n".join(travelled)
    found = [x for x in telling if x.tobytes() in sent]
    # By chance some four bytes of a weight equal four of an observation; a trajectory would be found whole.
    assert len(found) < 0.02 * len(telling)


@pytest.mark.training
@pytest.mark.parametrize("where", ["all", "registered"])
def test_a_shared_policy_is_evaluated_at_the_server_as_in_the_simulation(where, tmp_path):
    """In every agent's environment as the configuration draws them; no node is asked."""
    config = configured(CASE, f"evaluation.environments={where}")
    federation, _, _ = distributed(config, tmp_path)
    runtime = make_runtime(config)
    state = jax.tree.map(lambda x: x[0], runtime.init())
    policy = runtime.federation.output(state.server, state.agents)
    ours, theirs = federation.measured(policy), runtime.measured(policy)
    assert ours.keys() == theirs.keys()
    assert ("return_worst" in ours) is (where == "all")
    for name, value in ours.items():
        np.testing.assert_allclose(value, theirs[name], rtol=1e-5)
    assert federation.dispatcher.pending == {}
    assert federation.dispatcher.membership.present == {}
    for each in (federation, runtime):
        each.close()


def test_agents_that_are_not_there_are_left_out_of_what_an_evaluation_comes_to(tmp_path):
    federation, _, _ = distributed(configured(CASE), tmp_path)
    pairs = federation.pairs(2, seed=1)
    assert pairs.environments.tolist() == [[0, 1, 2]], "the preset's measure is each agent's own environment"
    returns = np.array([[[1.0, 3.0], [np.nan, np.nan], [4.0, 8.0]]])
    lengths = np.where(np.isnan(returns), np.nan, 5.0)
    found = federation.scores({"return": returns, "length": lengths}, pairs)
    assert found["return"] == 4
    assert found["return_worst"] == 2
    assert found["episode_length"] == 5
    np.testing.assert_array_equal(found["agent_returns"], [2, np.nan, 6])
    federation.close()


@pytest.mark.parametrize("where", ["all", "registered"])
def test_personal_policies_are_evaluated_on_their_nodes_only(where, tmp_path):
    config = configured("neighbours-ppo", f"evaluation.environments={where}")
    with pytest.raises(FedraxError, match=rf"environments = '{where}' is not allowed with runtime=flower.*set eval"):
        distributed(config, tmp_path)


PENDULUM = (CASE, "environment.heterogeneity.g=[10, 1e12, 10]", "environment.heterogeneity.l=[1, 1e-30, 1]")
"""Of agent 1, gravity's and the torque's accelerations overflow, and infinity minus infinity is no number."""


@pytest.mark.training
def test_a_collection_that_is_not_finite_is_dropped_as_in_the_simulation(tmp_path):
    config = configured(*PENDULUM)
    expected, measured = simulated(config, 2)
    federation, services, notes = distributed(config, tmp_path)
    state, rows = rounds_of(federation, 2)
    for name in ("dropped", "present", "excluded", "agent_steps"):
        np.testing.assert_array_equal(rows[name], measured[name])
    assert rows["present"].tolist() == [[2, 2]]
    same(state.server, expected.server)
    fresh = services[1].session.runtime.start().agent
    jax.tree.map(np.testing.assert_array_equal, services[1].session.snapshot.agent, fresh)
    why = "agent 1's collection was dropped: its observation was not finite in step "
    named = [note for note in notes if note.startswith("round")]
    assert [note.startswith(f"round {index + 1}, seed 0: {why}") for index, note in enumerate(named)] == [True, True]
    records = [json.loads(line) for line in (tmp_path / "run" / "exchanges.jsonl").read_text().splitlines()]
    assert [record["outcome"] for record in records] == ["answered", "dropped", "answered"] * 2
    assert records[1]["reason"].startswith(why)


@pytest.mark.training
def test_a_crash_of_one_nodes_environment_is_its_line_and_the_others_go_on(tmp_path, monkeypatch, caplog):
    config = configured("host")
    federation, services, notes = distributed(config, tmp_path)
    state, _ = rounds_of(federation, 1)
    environments = services[1].session.runtime.environments
    copy = environments.groups[0].inner._environments.envs[1]

    def raises(action):
        raise ZeroDivisionError("the pump ran dry")

    monkeypatch.setattr(copy.env, "step", raises)
    _, rows = rounds_of(federation, 2, state, 1)
    line = "environment 'CartPole-v1' crashed in step (agent 1, copy 1): ZeroDivisionError: the pump ran dry"
    assert f"agent 1 excluded: the node refused: {line}" in notes
    assert rows["present"].tolist() == [[2, 3]], "it goes on from what it saved"
    assert line in caplog.text
    text = (tmp_path / "node-1" / "error.txt").read_text()
    assert 'raise ZeroDivisionError("the pump ran dry")' in text
