"""Overlapped rounds: nodes are never idle, and what is too old is not used."""

import numpy as np
import pytest

from fedrax.errors import FedraxError
from fedrax.parsing import DecodeError
from fedrax.records.rundir import RunDirectory
from fedrax.runtime.distributed.checks import check_envelope
from fedrax.runtime.distributed.dispatcher import AGAIN_SECONDS, LOST_TIMES, Dispatcher, Question
from fedrax.runtime.distributed.envelopes import EVALUATE, UNKNOWN_RUN, WORK, WORKED, Envelope
from fedrax.runtime.distributed.membership import Membership
from fedrax.runtime.distributed.pipeline import DEPTH, Pipeline
from fedrax.runtime.distributed.server import DistributedRuntime
from fedrax.runtime.distributed.transport import DeliveryError, InProcessTransport

from federations import configured, distributed, made, rounds_of
from stub_transport import RUN, Stub


def worked(envelope):
    agent, turn = envelope.fields["agent"], envelope.fields["round"]
    return Envelope(WORKED, {"run": RUN, "round": turn, "agent": agent, "form": "", "seconds": 1.0})


class Busy(Stub):
    """Each node does one order after the other, as Flower's do."""

    def __init__(self):
        super().__init__()
        self.free_at = {}

    def take(self, address, envelope):
        ticket = super().take(address, envelope)
        if envelope.kind == WORK and ticket in self.under_way:
            _, reply = self.under_way[ticket]
            start = max(self.time, self.free_at.get(address, 0.0))
            self.free_at[address] = start + self.nodes[address][2]
            self.under_way[ticket] = (self.free_at[address], reply)
        return ticket


@pytest.fixture
def transport():
    return Busy()


@pytest.fixture
def dispatcher(transport, tmp_path):
    return Dispatcher(transport, Membership(2, tmp_path / "members.json"), run=RUN, config="", note=lambda text: None)


def pipeline(dispatcher, staleness=2):
    def check(answer, agent, turn):
        fields = check_envelope(answer, WORKED, {"run": RUN, "round": turn, "agent": agent}).fields
        return fields["agent"], fields["round"]

    return Pipeline(dispatcher, check, staleness=staleness, seconds=1000)


def order(agent, turn):
    return Envelope(WORK, {"run": RUN, "round": turn, "agent": agent})


def test_every_node_has_an_order_waiting_while_it_works(dispatcher, transport):
    transport.add(10, "a", agent=0, after=5.0, answer=worked)
    transport.add(11, "b", agent=1, after=5.0, answer=worked)
    dispatcher.gather(2, 2, 0)
    begun, pipe = transport.time, pipeline(dispatcher)
    for version in range(4):
        results, _ = pipe.gather(version, order, agents=[0, 1], enough=2)
        assert results == {0: (0, version), 1: (1, version)}
    # Four orders of five seconds, one after the other without a pause.
    assert transport.time - begun == pytest.approx(20, abs=0.5)
    assert transport.asked.count((10, WORK)) == 5


def test_a_slow_node_does_not_hold_the_others_up_and_is_used_while_it_is_fresh(dispatcher, transport):
    transport.add(10, "a", agent=0, after=1.0, answer=worked)
    transport.add(11, "b", agent=1, after=2.5, answer=worked)
    dispatcher.gather(2, 2, 0)
    pipe, used = pipeline(dispatcher, staleness=6), []
    for version in range(8):
        used += pipe.gather(version, order, agents=[0, 1], enough=1)[0]
    assert used.count(0) >= 5
    assert used.count(1) == 2


def test_an_answer_that_is_too_old_is_left_out_and_named(dispatcher, transport):
    transport.add(10, "a", agent=0, after=1.0, answer=worked)
    transport.add(11, "b", agent=1, after=4.5, answer=worked)
    dispatcher.gather(2, 2, 0)
    pipe, records = pipeline(dispatcher, staleness=1), []
    for version in range(6):
        results, noted = pipe.gather(version, order, agents=[0, 1], enough=1)
        assert set(results) == {0}
        records += noted
    old = [record for record in records if record.agent == 1]
    assert [record.outcome for record in old] == ["stale"]
    assert "runtime.flower.staleness = 1" in old[0].reason


def test_a_node_that_starts_anew_takes_up_its_own_count(dispatcher, transport):
    answers = iter([Envelope(UNKNOWN_RUN), DeliveryError("its queue died")])
    transport.add(10, "a", agent=0, after=1.0, answer=lambda envelope: next(answers, None) or worked(envelope))
    dispatcher.gather(1, 1, 0)
    results, records = pipeline(dispatcher).gather(0, order, agents=[0], enough=1)
    assert set(results) == {0}
    assert [record.outcome for record in records[:2]] == ["absent", "absent"]


@pytest.mark.parametrize("wrong", [Envelope(WORKED, {"run": RUN}), DecodeError("no envelope")], ids=["lies", "garbage"])
def test_a_node_that_answers_wrongly_at_once_is_not_asked_again_in_the_round(dispatcher, transport, wrong):
    transport.add(10, "a", agent=0, after=60.0, answer=worked)
    transport.add(11, "b", agent=1, after=0.01, answer=lambda envelope: wrong)
    dispatcher.gather(2, 2, 0)
    noted, pipe = [], pipeline(dispatcher)
    dispatcher.note = noted.append
    for version in range(3):
        results, records = pipe.gather(version, order, agents=[0, 1], enough=1)
        assert set(results) == {0}
        # The order that it had, and the one that was waiting.
        assert [record.outcome for record in records if record.agent == 1] == ["excluded"] * DEPTH
    assert transport.asked.count((11, WORK)) == 3 * DEPTH
    assert sum("agent 1 excluded" in text for text in noted) == 3 * DEPTH


@pytest.mark.parametrize("lost", [Envelope(UNKNOWN_RUN), DeliveryError("its ClientApp failed")])
def test_a_node_that_fails_at_every_request_at_once_is_asked_less_and_less(dispatcher, transport, lost):
    transport.add(10, "a", agent=0, after=60.0, answer=worked)
    transport.add(11, "b", agent=1, after=0.01, answer=lambda envelope: lost)
    dispatcher.gather(2, 2, 0)
    pipe, seconds = pipeline(dispatcher), -transport.time
    for version in range(3):
        assert set(pipe.gather(version, order, agents=[0, 1], enough=1)[0]) == {0}
    seconds += transport.time
    assert transport.asked.count((11, WORK)) <= DEPTH * (LOST_TIMES + seconds / AGAIN_SECONDS)


def test_a_round_ends_where_nobody_is_left_who_may_answer(dispatcher, transport):
    transport.add(10, "a", agent=0, after=5.0, answer=worked)
    transport.add(11, "b", agent=1, after=0.01, answer=lambda envelope: Envelope(WORKED, {"run": RUN}))
    dispatcher.gather(2, 2, 0)
    pipe = pipeline(dispatcher)
    for version in range(2):
        results, _ = pipe.gather(version, order, agents=[0, 1], enough=2)
        assert set(results) == {0}


def test_evaluations_go_between_the_orders(dispatcher, transport):
    transport.add(10, "a", agent=0, after=5.0, answer=worked)
    dispatcher.gather(1, 1, 0)
    pipe = pipeline(dispatcher)
    pipe.gather(0, order, agents=[0], enough=1)
    transport.add(10, "a", agent=0, after=1.0)
    question = Question(Envelope(EVALUATE, {"run": RUN, "agent": 0}), lambda answer: answer.kind)
    results, _ = dispatcher.ask({0: question}, enough=1, seconds=100)
    assert results == {0: "evaluated"}
    assert pipe.gather(1, order, agents=[0], enough=1)[0] == {0: (0, 1)}


@pytest.mark.training
def test_a_federation_with_overlapping_rounds_trains(tmp_path):
    config = configured("fedavg-td3", "runtime.flower.staleness=2", "runtime.flower.quorum=1.0")
    federation, services, _ = distributed(config, tmp_path)
    before = federation.init()
    state, rows = rounds_of(federation, 4, before)
    np.testing.assert_array_equal(rows["present"], [[3, 3, 3, 3]])
    assert len(set(rows["agent_steps"][0])) == 1
    assert not np.allclose(state.server.params.actor.layers[0].weight, before.server.params.actor.layers[0].weight)
    assert all(service.session.done in (4, 5) for service in services)
    assert np.isfinite(rows["return"][0, 1::2]).all()


@pytest.mark.parametrize("case", ["fedpg-br", "neighbours-ppo", "distillation"])
def test_strategies_whose_messages_go_stale_are_refused(case, tmp_path):
    config = configured(case, "runtime.flower.staleness=2")
    with pytest.raises(FedraxError, match=r"set runtime\.flower\.staleness=0"):
        DistributedRuntime(config, InProcessTransport({}), RunDirectory(made(tmp_path)), note=lambda text: None)
