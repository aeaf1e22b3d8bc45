"""An agent on its node: it answers twice alike, survives its process, and refuses in words."""

import shutil

import jax
import numpy as np
import pytest

from fedrax.errors import FedraxError
from fedrax.runtime.distributed.agent_service import AgentService, AgentSession
from fedrax.runtime.distributed.envelopes import (
    END,
    EVALUATE,
    JOIN,
    JOINED,
    OVER,
    REFUSED,
    UNFIT,
    UNKNOWN_RUN,
    WORK,
    WORKED,
    Envelope,
)
from fedrax.runtime.distributed.randomness import shared_randomness
from fedrax.runtime.distributed.transport import InProcessTransport

from federations import agent_service, configured, distributed, rounds_of, same

CASE = ("fedavg-td3", "federation.agents=1", "strategy.actor_every=1")


class Recorder:
    """A node that keeps the envelopes it was sent."""

    def __init__(self, service):
        self.service, self.envelopes = service, []

    def __call__(self, envelope):
        self.envelopes.append(envelope)
        return self.service.answer(envelope)


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    """Two rounds of a federation of one, the envelopes it took, and its node's folder."""
    folder = tmp_path_factory.mktemp("history")
    config = configured(*CASE)
    service = agent_service(folder / "node", agent=0)
    node = Recorder(service)
    federation, _, _ = distributed(config, folder, InProcessTransport({7: node}))
    rounds_of(federation, 2)
    return node.envelopes, service, folder


def worked(envelopes):
    return [envelope for envelope in envelopes if envelope.kind == WORK]


@pytest.mark.training
def test_an_envelope_that_comes_twice_is_answered_twice_alike(history):
    envelopes, service, _ = history
    before = jax.device_get(service.session.snapshot)
    answer = service.answer(worked(envelopes)[-1])
    assert answer.kind == WORKED
    assert service.answer(worked(envelopes)[-1]) == answer
    same(before, service.session.snapshot, 0)


@pytest.mark.training
def test_a_restarted_agent_goes_on_where_it_was(history, tmp_path):
    envelopes, service, folder = history
    assert agent_service(folder / "node").answer(worked(envelopes)[-1]) == service.answer(worked(envelopes)[-1])
    again = agent_service(folder / "node")
    join = next(envelope for envelope in envelopes if envelope.kind == JOIN)
    assert again.answer(join) == Envelope(
        JOINED, {"run": join.fields["run"], "node": service.name, "agent": 0, "done": 2}
    )
    assert again.answer(worked(envelopes)[-1]).payload == service.answer(worked(envelopes)[-1]).payload
    same(again.session.snapshot, service.session.snapshot, 0)


@pytest.mark.training
def test_an_extended_budget_reaches_the_node(history, tmp_path):
    """What it anneals over is the budget, and its agent is as it was."""
    envelopes, service, folder = history
    node = agent_service(shutil.copytree(folder / "node", tmp_path / "node"))
    join = next(envelope for envelope in envelopes if envelope.kind == JOIN)
    longer = str(join.fields["config"]).replace("[budget]\nrounds = 4", "[budget]\nrounds = 9")
    assert node.answer(Envelope(JOIN, {**join.fields, "config": longer})).fields["done"] == 2
    assert node.session.config.budget.rounds == 9
    same(node.session.snapshot, service.session.snapshot, 0)
    assert agent_service(tmp_path / "node").answer(worked(envelopes)[-1]).kind == WORKED


@pytest.mark.training
def test_a_killed_agent_does_the_round_again_as_it_would_have(history, tmp_path):
    envelopes, service, folder = history
    whole = service.answer(worked(envelopes)[-1])
    # As if the process had died over the second round, before it saved it.
    (folder / "node" / "runs" / service.session.run / "checkpoints" / "checkpoint-2.safetensors").unlink()
    again = agent_service(folder / "node")
    assert again.answer(envelopes[0]).fields["done"] == 1
    assert again.answer(worked(envelopes)[-1]).payload == whole.payload


@pytest.fixture(scope="module")
def fast_history(tmp_path_factory):
    """Three rounds of a fast federation of one: the envelopes its agent took, and the answer to the last."""
    folder = tmp_path_factory.mktemp("fast")
    node = Recorder(agent_service(folder / "node", agent=0))
    federation, _, _ = distributed(configured(*CASE, "runtime.flower.fast=true"), folder, InProcessTransport({7: node}))
    rounds_of(federation, 3)
    join = next(envelope for envelope in node.envelopes if envelope.kind == JOIN)
    orders = worked(node.envelopes)
    return join, orders, node.service.answer(orders[-1])


def killed_in_the_second_round(history, folder):
    """A node's service that has answered two rounds, and saved one."""
    join, (first, second, _), _ = history
    service = agent_service(folder, agent=0)
    for envelope in (join, first, second):
        service.answer(envelope)
    return service


@pytest.mark.training
def test_a_fast_agent_that_is_killed_before_it_is_saved_does_the_round_again(fast_history, tmp_path):
    """The server has the answer, so the next order is of the next round."""
    join, (*_, third), expected = fast_history
    killed = killed_in_the_second_round(fast_history, tmp_path)
    assert not (tmp_path / "runs" / killed.session.run / "checkpoints" / "checkpoint-2.safetensors").exists()
    again = agent_service(tmp_path)
    assert again.answer(join).fields["done"] == 2
    assert again.answer(third).payload == expected.payload
    again.flush()
    # It does it again once: with the third saved, nothing is left to be done.
    assert agent_service(tmp_path).answer(third).payload == expected.payload


@pytest.mark.training
def test_a_fast_agent_goes_on_without_an_order_that_cannot_be_read(fast_history, tmp_path):
    join, (*_, third), expected = fast_history
    killed = killed_in_the_second_round(fast_history, tmp_path)
    (tmp_path / "runs" / killed.session.run / "order").write_bytes(b"")
    again = agent_service(tmp_path)
    assert again.answer(join).fields["done"] == 1
    answer = again.answer(third)
    assert (answer.kind, answer.payload != expected.payload) == (WORKED, True)


def test_it_cannot_go_back(history):
    envelopes, service, _ = history
    first, last = worked(envelopes)[0], worked(envelopes)[-1]
    assert service.answer(last).kind == WORKED
    answer = service.answer(first)
    assert answer.kind == REFUSED
    assert "cannot go back to round 1" in answer.fields["reason"]


@pytest.mark.parametrize(
    ("envelope", "why"),
    [
        (Envelope(JOIN, {"run": "../x", "config": ""}), "no name of a run"),
        (Envelope(JOIN, {"run": "x", "config": "]"}), "TOMLDecodeError"),
        (Envelope(JOIN, {"run": "x", "config": 'plugins = ["os"]'}), "start the node with --plugins"),
        (Envelope(JOIN, {"run": "x", "config": 'environment.id = "os:X-v0"'}), "start the node with --plugins"),
        (Envelope(JOIN, {"run": "x", "config": "[budget]\nround = 3"}), "unknown key budget.round"),
        (Envelope(JOIN, {}), "KeyError"),
    ],
)
def test_what_it_cannot_do_is_refused_in_words(tmp_path, envelope, why):
    answer = agent_service(tmp_path).answer(envelope)
    assert answer.kind in (REFUSED, UNFIT)
    assert why in answer.fields["reason"]


def test_a_node_imports_its_own_copy_of_a_plugin_and_no_other(tmp_path):
    """The server's may lie anywhere, or nowhere; what is not named at the node is not imported."""
    text = "from pathlib import Path\nPath(__file__).with_suffix('.ran').touch()\n"
    for site in ("server", "node"):
        (tmp_path / site).mkdir()
        (tmp_path / site / "node_plugin.py").write_text(text)
    own = str(tmp_path / "node" / "node_plugin.py")
    budget = "budget.rounds = 1\n"
    asked = f'{budget}plugins = ["{tmp_path / "server" / "node_plugin.py"}"]'
    refused = agent_service(tmp_path / "a").answer(Envelope(JOIN, {"run": "x", "config": asked}))
    assert refused.kind == UNFIT
    assert str(tmp_path / "server" / "node_plugin.py") in refused.fields["reason"]
    assert (
        agent_service(tmp_path / "a", plugins=[own]).answer(Envelope(JOIN, {"run": "x", "config": asked})).kind
        == JOINED
    )
    more = f'{budget}plugins = ["{own}", "antigravity"]'
    assert (
        "antigravity"
        in agent_service(tmp_path / "b", plugins=[own])
        .answer(Envelope(JOIN, {"run": "y", "config": more}))
        .fields["reason"]
    )
    assert [path.parent.name for path in tmp_path.rglob("*.ran")] == ["node"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"agent": 1}, "agent 0 of the run, not agent 1"),
        ({"form": "?"}, "other shapes"),
        ({"round": "x"}, "ValueError"),
    ],
)
def test_an_order_that_is_not_for_it_is_refused(history, change, why):
    envelopes, service, _ = history
    last = worked(envelopes)[-1]
    answer = service.answer(Envelope(WORK, {**last.fields, "round": 9, **change}, last.payload))
    assert answer.kind == REFUSED
    assert why in answer.fields["reason"]


def test_an_agent_whose_work_failed_goes_on_from_what_it_saved(history, monkeypatch):
    envelopes, service, _ = history
    last = worked(envelopes)[-1]
    before = service.answer(last)

    def fail(part, snapshot, *rest):
        jax.tree.map(lambda x: x.delete(), snapshot)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(type(service.session.runtime), "work", fail)
    answer = service.answer(Envelope(WORK, {**last.fields, "round": 2}, last.payload))
    assert answer.kind == REFUSED
    assert "out of memory" in answer.fields["reason"]
    monkeypatch.undo()
    assert service.answer(last).payload == before.payload
    assert service.answer(Envelope(WORK, {**last.fields, "round": 2}, last.payload)).kind == WORKED


def test_a_site_says_only_what_its_environment_is(tmp_path):
    with pytest.raises(FedraxError, match="it may set environment"):
        agent_service(tmp_path, overrides=["learner.tau=0.5"])
    config = configured(*CASE)
    service = agent_service(tmp_path / "node", overrides=["environment.heterogeneity.observation_noise_std=0.25"])
    federation, _, _ = distributed(config, tmp_path, InProcessTransport({7: service.answer}))
    federation.dispatcher.gather(1, 1, 0)
    assert service.session.config.environment.heterogeneity["observation_noise_std"] == 0.25
    assert "observation_noise_std" not in config.environment.heterogeneity


def test_a_sites_environment_must_be_its_agents_task(tmp_path):
    """Agents 0, 1 and 2 reach, push and slide."""
    config = configured("tasks")
    session = AgentSession("run", config, tmp_path, shared_randomness(0), environment="PointSlide-v0")
    with pytest.raises(FedraxError, match=r"has PointReach-v0, and the node has PointSlide-v0; .* with --agent 2$"):
        session.work(Envelope(WORK, {"agent": 0, "round": 0}))
    session = AgentSession("run", config, tmp_path, shared_randomness(0), environment="PointPark-v0")
    with pytest.raises(FedraxError, match=r"no agent of the run has that$"):
        session.work(Envelope(WORK, {"agent": 0, "round": 0}))


def test_it_says_that_it_does_not_know_a_run(history, tmp_path):
    _, service, _ = history
    for kind in (WORK, EVALUATE):
        assert agent_service(tmp_path).answer(Envelope(kind, {"run": "other"})) == Envelope(UNKNOWN_RUN)
        assert service.answer(Envelope(kind, {"run": "other"})) == Envelope(UNKNOWN_RUN)


def test_nodes_have_names_of_their_own_that_last(tmp_path):
    names = {agent_service(tmp_path / str(k % 2)).name for k in range(4)}
    assert len(names) == 2
    np.testing.assert_array_equal([len(name) for name in names], [32, 32])


def test_the_end_of_a_run_that_a_node_is_not_in_is_none_of_its_own(tmp_path):
    told = []
    service = AgentService(tmp_path, tell=told.append)
    assert service.answer(Envelope(END, {"run": "abc", "rounds": 12})).kind == UNKNOWN_RUN
    assert told == []


@pytest.mark.training
def test_the_end_of_an_earlier_run_ends_not_the_present_one(tmp_path):
    told = []
    service = AgentService(tmp_path / "node", agent=0, shared_seeds=True, tell=told.append)
    first, _, _ = distributed(configured(*CASE), tmp_path / "first", InProcessTransport({7: service.answer}))
    rounds_of(first, 1)
    second, _, _ = distributed(configured(*CASE), tmp_path / "second", InProcessTransport({7: service.answer}))
    rounds_of(second, 1)
    present = service.session
    first.end(1)
    assert service.session is present
    assert not any(line.startswith(OVER) for line in told)


@pytest.mark.training
def test_a_nodes_owner_is_told_who_it_is_and_what_it_does(tmp_path):
    told = []
    service = AgentService(tmp_path / "node", agent=0, shared_seeds=True, tell=told.append)
    federation, _, _ = distributed(configured(*CASE), tmp_path, InProcessTransport({7: service.answer}))
    rounds_of(federation, 2)
    federation.end(2)
    assert [line.partition(" in ")[0] for line in told] == [
        "this node is agent 0 of the run 'SCCD Pendulum', its only agent, after 0 rounds",
        "round 1: trained",
        "round 2: trained",
        "the run is over, after 2 rounds",
    ]
