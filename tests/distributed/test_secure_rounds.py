"""Rounds of a federation whose server learns a sum alone: what it receives, what it makes of it, and who drops out."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedrax.arrays import unpacked
from fedrax.config import resolve
from fedrax.errors import FedraxError
from fedrax.privacy.clip import clipped
from fedrax.privacy.secure_sum.identity import Identity
from fedrax.runtime.distributed.agent_service import AgentService
from fedrax.runtime.distributed.envelopes import (
    JOIN,
    KEYED,
    KEYS,
    MASK,
    MASKED,
    SHARE,
    UNMASK,
    WORK,
    Envelope,
    from_bytes,
)
from fedrax.runtime.distributed.screening import largest_answer
from fedrax.runtime.distributed.transport import DeliveryError
from fedrax.runtime.make import make_runtime
from fedrax.trees import ravel_rows, tree_bytes

from federations import SMALL, distributed, rounds_of

CLIP = 0.5
GRADIENTS = (
    *("fedpg-br/cartpole", *SMALL, "strategy=gpomdp", "strategy.batch=2", "environment.horizon=20"),
    *("attack=none", "attack.agents=0", "learner.optimizer=sgd", "learner.learning_rate=1", "evaluation.every=100"),
    *("learner.hidden=[8]", "federation.agents=4", f"privacy.clip={CLIP}"),
)
SECURE = (*GRADIENTS, "privacy.secure_sum=true")


def configured(*settings):
    source, *base = SECURE
    return resolve(source, [*base, *settings])


def flat(tree):
    return np.asarray(ravel_rows(jax.tree.map(lambda x: np.asarray(x)[None], tree))[0], np.float64)


def update_of(service):
    """What the agent made in the last round it did, clipped as its node does it."""
    session = service.session
    message, _ = unpacked((session.message, session.report), session.reply)
    return np.asarray(clipped(jnp.asarray(flat(message).astype(np.float32)), CLIP), np.float64)


def sums(folder):
    return [json.loads(line) for line in (folder / "run" / "sums.jsonl").read_text().splitlines()]


def step_of(federation, before, after):
    """The mean by which the server went, under gradient descent with step 1."""
    return -(flat(after.server.params) - flat(before.server.params))


def breaks(node, kind, after=False):
    """A node that is lost over its first request of a kind: before it answers, or with its answer on the way."""
    broken = []

    def answer(envelope):
        if envelope.kind == kind and not broken:
            broken.append(node(envelope) if after else None)
            raise DeliveryError("the node is not reachable")
        return node(envelope)

    return answer


@pytest.mark.training
def test_the_server_goes_by_the_mean_and_receives_no_part_of_any_update(tmp_path):
    travelled, vectors = [], []
    federation, services, notes = distributed(configured(), tmp_path, observe=travelled.append)
    state = federation.init()
    for index in range(2):
        ((after, rows),) = federation.advance(state, index)
        updates = [update_of(service) for service in services]
        vectors += [update.astype(np.float32) for update in updates]
        vectors += [
            flat(unpacked((s.session.message, s.session.report), s.session.reply)[0]).astype(np.float32)
            for s in services
        ]
        vectors += [services[k].session.secure.quantise(services[k].session._update(index), index) for k in range(4)]
        # Four quantised numbers, each off by less than a level of C / 2^19.
        error = np.abs(step_of(federation, state, after) - np.mean(updates, axis=0)).max()
        assert error < 2.0**-19 * CLIP + 1e-7, "and a float32's rounding of the parameters"
        assert rows["present"].tolist() == [[4]]
        state = after
    received = [data for data in travelled if from_bytes(data).kind not in (JOIN, KEYS, SHARE, MASK, UNMASK)]
    assert {from_bytes(data).kind for data in received} == {"joined", KEYED, "shared", MASKED, "unmasked"}
    heard = b"|".join(received)
    assert not found(heard, vectors)
    assert found(heard + vectors[0].tobytes()[64:128], vectors)
    assert [line["summed"] for line in sums(tmp_path)] == [[0, 1, 2, 3]] * 2
    assert {line["keys"] for line in sums(tmp_path)} == {"keys not authenticated"}
    assert sum("keys not authenticated" in note for note in notes) == 1


def found(heard, vectors):
    """Whether a window of 64 bytes of a vector is there: every such window holds one of these of 32."""
    return any(
        data[start : start + 32] in heard
        for data in (vector.tobytes() for vector in vectors)
        for start in range(0, len(data) - 31, 4)
    )


@pytest.mark.training
@pytest.mark.parametrize(
    ("kind", "after", "summed"),
    [
        (KEYS, False, [0, 2, 3]),
        (SHARE, False, [0, 2, 3]),
        (MASK, False, [0, 2, 3]),
        (MASK, True, [0, 2, 3]),
        (UNMASK, False, [0, 1, 2, 3]),
    ],
)
def test_the_sum_is_that_of_the_agents_that_stay(kind, after, summed, tmp_path):
    federation, services, _ = distributed(configured(), tmp_path)
    nodes = federation.dispatcher.transport.nodes
    nodes[101] = breaks(nodes[101], kind, after)
    if kind == KEYS:
        del nodes[101]
        federation.dispatcher.gather(3, 3, 10)
    before = federation.init()
    ((state, rows),) = federation.advance(before, 0)
    assert rows["present"].tolist() == [[len(summed)]]
    expected = np.mean([update_of(services[k]) for k in summed], axis=0)
    np.testing.assert_allclose(step_of(federation, before, state), expected, atol=2.0**-19 * CLIP + 1e-7)
    (line,) = sums(tmp_path)
    assert (line["summed"], line["lost"]) == (summed, None)
    records = [json.loads(each) for each in (tmp_path / "run" / "exchanges.jsonl").read_text().splitlines()]
    assert [record["outcome"] for record in records] == ["answered", "absent", "answered", "answered"]
    if kind != KEYS:
        assert records[1]["reason"] == f"in the exchange {kind!r}: the node is not reachable"


@pytest.mark.training
def test_a_round_of_too_few_is_lost_changes_nothing_and_the_next_one_goes_on(tmp_path):
    federation, _, notes = distributed(configured(), tmp_path)
    nodes = federation.dispatcher.transport.nodes
    for k in (1, 2):
        nodes[100 + k] = breaks(nodes[100 + k], MASK)
    before = federation.init()
    ((state, rows),) = federation.advance(before, 0)
    np.testing.assert_array_equal(flat(state.server.params), flat(before.server.params))
    assert rows["present"].tolist() == [[0]]
    assert rows["excluded"].tolist() == [[[True] * 4]], "so that a run that loses all its rounds stops"
    why = "2 agents have sent their masked vectors, and the threshold is 3"
    assert sums(tmp_path)[0]["lost"] == why
    assert f"round 1 is lost, and nobody's update is known: {why}" in notes
    ((after, rows),) = federation.advance(state, 1)
    assert rows["present"].tolist() == [[4]]
    assert np.abs(step_of(federation, state, after)).max() > 0


@pytest.mark.training
def test_an_update_is_in_one_sum_whoever_is_started_again(tmp_path):
    """In two sums over different agents one update is their difference."""
    federation, services, _ = distributed(configured(), tmp_path)
    first = federation.init()
    federation.advance(first, 0).__next__()
    # The server has forgotten the round; agent 0's process has, too.
    services[0].close()
    again, _, _ = distributed(configured(), tmp_path)
    again.dispatcher.transport.nodes |= {100 + k: services[k].answer for k in (1, 2, 3)}
    ((state, rows),) = again.advance(again.init(), 0)
    assert rows["present"].tolist() == [[0]]
    assert sums(tmp_path)[1]["enrolled"] == []
    ((_, rows),) = again.advance(state, 1)
    assert rows["present"].tolist() == [[4]]


@pytest.mark.training
def test_a_server_that_was_restarted_before_anything_was_masked_loses_nothing(tmp_path):
    federation, _, _ = distributed(configured(), tmp_path)

    class Stopped(Exception):
        pass

    def stops(node):
        def answer(envelope):
            if envelope.kind == MASK:
                raise Stopped
            return node(envelope)

        return answer

    nodes = dict(federation.dispatcher.transport.nodes)
    federation.dispatcher.transport.nodes = {k: stops(node) for k, node in nodes.items()}
    with pytest.raises(Stopped):
        federation.advance(federation.init(), 0).__next__()
    federation.close()
    again, _, _ = distributed(configured(), tmp_path)
    again.dispatcher.transport.nodes = nodes
    ((_, rows),) = again.advance(again.init(), 0)
    assert rows["present"].tolist() == [[4]]


@pytest.mark.training
def test_a_node_that_started_anew_within_the_round_is_out_of_its_sum(tmp_path):
    federation, services, notes = distributed(configured(), tmp_path)
    nodes = federation.dispatcher.transport.nodes
    node = nodes[101]

    def forgets(envelope):
        if envelope.kind == MASK:
            services[1].session = None
        return node(envelope)

    nodes[101] = forgets
    ((_, rows),) = federation.advance(federation.init(), 0)
    assert rows["present"].tolist() == [[3]]
    assert any("agent 1 excluded: the node refused: its secrets of round 1 are gone" in note for note in notes)


@pytest.mark.training
def test_nodes_give_nothing_in_the_clear(tmp_path):
    federation, services, _ = distributed(configured(), tmp_path)
    orders = []
    nodes = federation.dispatcher.transport.nodes
    node = nodes[100]

    def listens(envelope):
        orders.append(envelope)
        return node(envelope)

    nodes[100] = listens
    rounds_of(federation, 1)
    (order,) = [each for each in orders if each.kind == KEYS]
    answer = node(Envelope(WORK, order.fields, order.payload))
    assert answer.kind == "refused"
    (mask,) = [each for each in orders if each.kind == MASK]
    assert len(node(mask).payload) == 4 * len(update_of(services[0])), "the same request again"
    other = node(Envelope(MASK, mask.fields, mask.payload[:-164]))
    assert "another request of the stage masked" in other.fields["reason"]
    late = node(Envelope(UNMASK, mask.fields | {"round": 5}, b""))
    assert "its secrets of round 6 are gone" in late.fields["reason"]


@pytest.mark.training
def test_an_agent_that_was_sent_another_model_than_the_others_spoils_the_sum(tmp_path):
    """Otherwise a server could send models under which all updates but one vanish."""
    federation, _, _ = distributed(configured(), tmp_path)
    nodes = federation.dispatcher.transport.nodes
    node = nodes[101]
    nodes[101] = lambda envelope: node(
        Envelope(KEYS, envelope.fields, bytes(4) + envelope.payload[4:]) if envelope.kind == KEYS else envelope
    )
    before = federation.init()
    ((state, rows),) = federation.advance(before, 0)
    assert sums(tmp_path)[0]["enrolled"] == [0, 1, 2, 3]
    assert rows["present"].tolist() == [[0]]
    np.testing.assert_array_equal(flat(state.server.params), flat(before.server.params))


@pytest.mark.training
def test_who_drops_out_in_a_simulated_way_is_in_no_sum(tmp_path):
    config = configured("federation.dropout=0.2", "federation.agents=8")
    federation, services, _ = distributed(config, tmp_path)
    state = federation.init()
    for index in range(3):
        ((after, rows),) = federation.advance(state, index)
        line = sums(tmp_path)[index]
        assert rows["present"].tolist() == [[len(line["summed"])]]
        if not line["lost"]:
            expected = np.mean([update_of(services[k]) for k in line["summed"]], axis=0)
            np.testing.assert_allclose(step_of(federation, state, after), expected, atol=2.0**-19 * CLIP + 1e-7)
        state = after
    assert any(len(line["enrolled"]) < 8 for line in sums(tmp_path))


AVERAGE = ["strategy=fedavg", "strategy.actor_every=1"]


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (["strategy=distillation"], "more of an agent than its part in a mean"),
        (["strategy=clustered"], "more of an agent than its part in a mean"),
        (["strategy=local"], "send nothing"),
        (["strategy=fedavg", "strategy.return_temperature=1"], "leave strategy.return_temperature out"),
        (["strategy=fedavg", "learner.normalise=true"], "set learner.normalise=false"),
        ([*AVERAGE, "compression=int8"], "set compression=none"),
        (["strategy=fedavg", "strategy.actor_every=2"], "set strategy.actor_every=1"),
        ([*AVERAGE, "aggregator=median"], "set aggregator=mean"),
        ([*AVERAGE, "preaggregator=bucketing"], "set preaggregator=none"),
        ([*AVERAGE, "federation.agents=2"], "so that 3 take part"),
        ([*AVERAGE, "privacy.bits=30", "federation.agents=4"], "set privacy.bits to 29 or less"),
    ],
)
def test_what_needs_more_than_a_sum_is_refused(settings, why):
    base = ["privacy.clip=1", "privacy.secure_sum=true", "evaluation.environments=own"]
    with pytest.raises(FedraxError, match=why):
        make_runtime(resolve("fedtd3/pendulum", [*base, *settings]), agents=False)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (["strategy=fedavg", "learner.initial=none", "runtime.flower.staleness=1"], "set runtime.flower.staleness=0"),
        (["runtime.flower.max_norm=3"], "set privacy.clip, and runtime.flower.max_norm=adaptive"),
        (["attack=sign-flipping", "attack.agents=1"], "is simulated at the server"),
        (["federation.agents=101"], "100 at most"),
    ],
)
def test_what_cannot_be_had_on_nodes_is_refused(settings, why, tmp_path):
    with pytest.raises(FedraxError, match=why):
        distributed(configured(*settings), tmp_path)


def test_a_node_with_its_peers_keys_takes_part_in_secure_sums_alone(tmp_path):
    service = AgentService(tmp_path / "node", shared_seeds=True, identity=Identity(None, {}))
    config = configured("privacy.secure_sum=false").to_toml()
    answer = service.answer(Envelope(JOIN, {"run": "abc", "config": config}))
    assert answer.fields["reason"].startswith("this node takes part in secure sums alone")


def test_the_largest_answer_is_that_of_a_secure_sum_too(tmp_path):
    federation, _, _ = distributed(configured("federation.agents=100", "learner.hidden=[]"), tmp_path)
    assert (
        tree_bytes(federation.screening.message) < 99 * 164 < largest_answer(federation.config, federation.federation)
    )
