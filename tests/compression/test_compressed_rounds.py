"""Whole rounds with compressed updates: what travels and is counted, in the simulation and from nodes."""

import re

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

import fedrax
from fedrax.arrays import packed, unpacked
from fedrax.config import resolve
from fedrax.errors import FedraxError
from fedrax.kinds import DEFAULT_KINDS
from fedrax.records.rundir import RunDirectory
from fedrax.runtime.distributed.agent_service import AgentService
from fedrax.runtime.distributed.allowed import check_distributed
from fedrax.runtime.distributed.envelopes import WORK, Envelope
from fedrax.runtime.distributed.server import DistributedRuntime
from fedrax.runtime.distributed.transport import InProcessTransport
from fedrax.runtime.make import make_runtime
from fedrax.trees import tree_bytes

SMALL = [
    *("environment=CartPole-v1", "environment.horizon=40", "learner=policy-gradient", "learner.hidden=[8]"),
    *("learner.optimizer=sgd", "learner.learning_rate=0.1", "strategy=fedavg", "strategy.batch=2", "attack=none"),
    *("federation.agents=2", "budget.rounds=3", "checkpoint.every=1", "evaluation.episodes=1", "evaluation.every=3"),
    *("runtime.shared_seeds=true", "runtime.agents_per_batch=1"),
]
PPO = ["learner=ppo", "learner.num_steps=8", "environment.num_envs=2", 'strategy.average=["torso", "actor", "critic"]']


def overrides(*settings):
    table = {key: value for key, _, value in (each.partition("=") for each in [*SMALL, *settings])}
    return [f"{key}={value}" for key, value in table.items()]


def configured(*settings):
    return resolve({}, overrides(*settings))


def simulated(config, rounds=3):
    runtime = make_runtime(config)
    state = runtime.init()
    for index in range(rounds):
        ((state, _),) = runtime.advance(state, index)
    return jax.tree.map(lambda x: np.asarray(x[0]), state.server), jax.tree.map(lambda x: x[0], state.agents)


def distributed(config, folder, bend=lambda envelope, answer: answer):
    """A federation in this process, of which ``bend`` says what agent 1's node answers to orders."""
    services = [AgentService(folder / f"node-{k}", agent=k, shared_seeds=True) for k in range(config.federation.agents)]

    def node(service, agent):
        def answered(envelope):
            answer = service.answer(envelope)
            return bend(envelope, answer) if agent == 1 and envelope.kind == WORK else answer

        return answered

    transport = InProcessTransport({100 + k: node(service, k) for k, service in enumerate(services)})
    notes = []
    (folder / "run").mkdir(parents=True)
    return DistributedRuntime(config, transport, RunDirectory(folder / "run"), note=notes.append), services, notes


def rounds_of(federation, count=3):
    state, rows = federation.init(), []
    for index in range(count):
        ((state, block),) = federation.advance(state, index)
        rows.append(block)
    return jax.tree.map(lambda x: np.asarray(x[0]), state.server), rows


CASES = {
    "int8": ["compression=int8", "compression.error_feedback=true"],
    "int8 of an actor that travels in every second round": [
        *("compression=int8", "compression.error_feedback=true", "strategy.actor_every=2", *PPO)
    ],
    "top-k": ["compression=top-k", "compression.share=0.1"],
    "random-k": ["compression=random-k"],
}


@pytest.mark.training
@pytest.mark.parametrize("case", CASES)
def test_nodes_send_what_the_simulation_does(case, tmp_path):
    """A number that were rounded or chosen otherwise would be off by a 127th of the largest, or missing."""
    config = configured(*CASES[case])
    server, agents = simulated(config)
    federation, services, _ = distributed(config, tmp_path)
    after, _ = rounds_of(federation)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), after, server)
    for index, service in enumerate(services):
        residual = jax.tree.map(lambda x, k=index: x[k], agents.residual)
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-6),
            service.session.snapshot.agent.residual,
            residual,
        )
    if "random-k" not in case:
        assert any(np.any(x) for x in jax.tree.leaves(agents.residual))


@pytest.mark.training
@pytest.mark.parametrize(
    "settings",
    [
        ["compression=top-k", "compression.share=0.05", "environment.native=false", "environment.backend=gymnasium"],
        ["compression=sketch", "seeds=2"],
    ],
    ids=["host", "seeds"],
)
def test_a_resumed_run_equals_one_that_never_stopped(settings, tmp_path):
    fedrax.train({}, overrides("budget.rounds=4", *settings), out=tmp_path / "whole", progress=False)
    fedrax.train({}, overrides("budget.rounds=2", *settings), out=tmp_path / "parts", progress=False)
    fedrax.resume(tmp_path / "parts", ["budget.rounds=4"], progress=False)
    name = "checkpoints/checkpoint-4.safetensors"
    whole, parts = (load_file(tmp_path / run / name) for run in ("whole", "parts"))
    assert set(whole) == set(parts)
    assert any(".residual" in leaf for leaf in whole) == ("compression=top-k" in settings)
    for leaf, array in whole.items():
        np.testing.assert_array_equal(array, parts[leaf], err_msg=leaf)


def bent(change):
    """What a node sends whose message's update is changed, from round 1 on."""

    def bend(envelope, answer):
        if envelope.fields["round"] == 0:
            return answer
        message, report = unpacked(bend.template, answer.payload)
        update = change(jax.tree.map(np.array, message.update))
        return Envelope(answer.kind, answer.fields, packed((type(message)(update, message.statistics), report)))

    return bend


def first_scale(value):
    def change(update):
        leaves, structure = jax.tree.flatten(update)
        number = next(i for i, x in enumerate(leaves) if x.dtype == np.float32)
        leaves[number] = np.full_like(leaves[number], value)
        return jax.tree.unflatten(structure, leaves)

    return change


LIES = {
    "a scale that is none": ("int8", first_scale(np.nan), r"message.*scale is not finite"),
    "an infinite scale": ("int8", first_scale(np.inf), r"message.*scale is not finite"),
    "a scale too large": ("int8", first_scale(3e38), r"message.update.* is not finite once it is decoded"),
    "a place beyond the last": (
        "top-k",
        lambda update: update._replace(places=update.places + np.uint32(10**6)),
        "cannot be decoded: the places",
    ),
    "one place again and again": (
        "top-k",
        lambda update: update._replace(places=np.zeros_like(update.places)),
        "cannot be decoded: the places",
    ),
}


@pytest.mark.training
@pytest.mark.parametrize("lie", LIES)
def test_an_encoding_that_is_none_is_excluded_and_named(lie, tmp_path):
    name, change, reason = LIES[lie]
    bend = bent(change)
    share = ["compression.share=0.02"] if name == "top-k" else []
    config = configured(f"compression={name}", *share, "runtime.flower.quorum=0.5", "runtime.flower.max_norm=none")
    federation, _, notes = distributed(config, tmp_path, bend)
    bend.template = (federation.screening.message, federation.screening.report)
    server, rows = rounds_of(federation, 2)
    assert (int(rows[0]["present"][0, 0]), int(rows[1]["present"][0, 0])) == (2, 1)
    assert any(re.search(f"agent 1 excluded: .*{reason}", note) for note in notes), notes
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(server.params))


@pytest.mark.training
def test_what_is_counted_is_what_travels_compressed(tmp_path):
    sizes = []

    def observed(envelope, answer):
        sizes.append(len(answer.payload))
        return answer

    config = configured(*CASES["int8 of an actor that travels in every second round"])
    federation, _, _ = distributed(config, tmp_path, observed)
    rounds_of(federation)
    report = tree_bytes(federation.screening.report)
    assert [size - report for size in sizes] == [federation.message_bytes(index)[0] for index in range(3)]
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize(
    ("settings", "share"),
    [(["compression=float16"], 0.5), (["compression=int8"], 0.35), (["compression=random-k"], 0.11)],
)
def test_messages_weigh_a_share_of_what_they_did(settings, share):
    plain, compressed = (make_runtime(configured(*each)).message_bytes(0) for each in ([], settings))
    assert compressed[0] <= share * plain[0]
    assert compressed[1] == plain[1], "what goes down is as it was"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["strategy=local", "compression=int8"], "'local' do not exist; set compression=none"),
        (["strategy=neighbours", "strategy.batch=2", "compression=int8"], "'neighbours' hold no updates"),
        (
            ["compression=top-k", "strategy.actor_every=2", *PPO],
            "or let all parts travel in every round, as with strategy.actor_every=1",
        ),
        (
            ["compression=top-k", "compression.share=2"],
            "compression.share = 2.0 is not allowed: it must be between 1e-09",
        ),
        *[
            ([f"compression={kind}", "compression.share=0"], "compression.share = 0.0 is not allowed: it must be betw")
            for kind in ("top-k", "random-k", "sketch")
        ],
        (["compression=int9"], "did you mean 'int8'"),
    ],
)
def test_what_cannot_be_compressed_is_refused_in_one_line(settings, message):
    with pytest.raises(FedraxError, match=message):
        make_runtime(configured(*settings))


def test_rounds_that_overlap_need_encodings_that_any_round_can_read():
    config = configured("compression=random-k", "runtime.flower.staleness=2")
    with pytest.raises(FedraxError, match="can be read in their own round alone"):
        check_distributed(config, make_runtime(config).federation)


def test_runs_without_compression_are_the_experiments_they_were():
    config = configured()
    assert DEFAULT_KINDS["compression"] == config.compression["kind"] == "none"
    table = config.model_dump(mode="json")
    del table["compression"]
    assert resolve({key: value for key, value in table.items() if value is not None}).digest() == config.digest()
    assert configured("compression=int8").digest() != config.digest()
