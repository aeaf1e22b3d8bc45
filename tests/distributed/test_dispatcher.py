"""Nodes come, go, are late and lie; a round ends with those who answered. No JAX, no time but the transport's own."""

import pytest

from fedrax.parsing import DecodeError
from fedrax.runtime.distributed.checks import check_envelope
from fedrax.runtime.distributed.dispatcher import AGAIN_SECONDS, LOST_TIMES, Dispatcher, Question
from fedrax.runtime.distributed.envelopes import EVALUATED, JOIN, UNKNOWN_RUN, Envelope
from fedrax.runtime.distributed.membership import Membership
from fedrax.runtime.distributed.transport import DeliveryError

from stub_transport import RUN, Stub


@pytest.fixture
def transport():
    return Stub()


@pytest.fixture
def dispatcher(transport, tmp_path):
    notes = []
    made = Dispatcher(transport, Membership(3, tmp_path / "members.json"), run=RUN, config="", note=notes.append)
    made.notes = notes
    return made


def questions(agents=(0, 1, 2)):
    def question(agent):
        def check(envelope):
            return check_envelope(envelope, EVALUATED, {"run": RUN, "agent": agent}).fields["agent"]

        return Question(Envelope("evaluate", {"run": RUN, "agent": agent}), check)

    return {agent: question(agent) for agent in agents}


def outcomes(records):
    return {record.agent: record.outcome for record in records}


def test_nodes_are_the_agents_they_ask_for_or_the_first_free(dispatcher, transport):
    transport.add(10, "a", agent=2)
    transport.add(11, "b")
    dispatcher.gather(2, 2, 60)
    assert {m.index: m.address for m in dispatcher.membership.present.values()} == {2: 10, 0: 11}


def test_everyone_answers(dispatcher, transport):
    for k in range(3):
        transport.add(10 + k, f"n{k}", agent=k, after=0.5 + k)
    dispatcher.gather(3, 1, 60)
    results, records = dispatcher.ask(questions(), enough=3, seconds=100)
    assert results == {0: 0, 1: 1, 2: 2}
    assert outcomes(records) == dict.fromkeys(range(3), "answered")
    assert 2.5 <= records[2].seconds < 3
    assert transport.time < 10


def test_gathering_ends_with_a_quorum_after_its_time(dispatcher, transport):
    transport.add(10, "a")
    transport.add(11, "b")
    dispatcher.gather(3, 2, 60)
    assert 60 <= transport.time < 62


def test_a_straggler_is_late_and_the_round_ends_without_it(dispatcher, transport):
    for k, after in enumerate([0.1, 0.1, 500.0]):
        transport.add(10 + k, f"n{k}", agent=k, after=after)
    dispatcher.gather(3, 1, 60)
    started = transport.time
    results, records = dispatcher.ask(questions(), enough=2, seconds=30)
    assert set(results) == {0, 1}
    assert outcomes(records)[2] == "late"
    assert 30 <= transport.time - started < 31


def test_a_late_answer_is_never_used_for_the_next_round(dispatcher, transport):
    transport.add(10, "a", agent=0, after=0.1)
    transport.add(11, "b", agent=1, after=40.0)
    dispatcher.gather(2, 1, 0)
    dispatcher.ask(questions((0, 1)), enough=1, seconds=30)
    transport.add(
        11, "b", agent=1, after=0.1, answer=lambda envelope: Envelope(EVALUATED, {"run": RUN, "agent": 7, "names": ""})
    )
    results, records = dispatcher.ask(questions((0, 1)), enough=1, seconds=30)
    assert set(results) == {0}
    assert outcomes(records)[1] == "excluded"


def test_without_a_quorum_the_round_waits_past_its_deadline(dispatcher, transport):
    transport.add(10, "a", agent=0, after=0.1)
    transport.add(11, "b", agent=1, after=100.0)
    dispatcher.gather(2, 2, 0)
    results, _ = dispatcher.ask(questions((0, 1)), enough=2, seconds=30)
    assert set(results) == {0, 1}
    assert transport.time >= 100
    assert any("waiting for more" in note for note in dispatcher.notes)


def test_a_lost_node_does_not_hold_the_round_up(dispatcher, transport):
    for k in range(3):
        transport.add(10 + k, f"n{k}", agent=k)
    dispatcher.gather(3, 1, 60)
    transport.add(12, "n2", agent=2, after=3.0, answer=lambda envelope: DeliveryError("the node is not reachable"))
    results, records = dispatcher.ask(questions(), enough=2, seconds=1000)
    assert set(results) == {0, 1}
    assert records[2].outcome == "absent"
    assert "not reachable" in records[2].reason
    assert transport.time < 100


def test_a_lost_node_is_waited_for_within_the_time_where_its_answer_is_wanted(dispatcher, transport):
    transport.add(10, "a", agent=0)
    transport.add(11, "b", agent=1)
    dispatcher.gather(2, 2, 60)

    def die(envelope):
        transport.add(11, "b", agent=1)
        return DeliveryError("the node's agent died over the request")

    transport.add(11, "b", agent=1, after=3.0, answer=die)
    results, _ = dispatcher.ask(questions((0, 1)), enough=1, wanted=2, seconds=1000)
    assert set(results) == {0, 1}
    transport.remove(11)
    started = transport.time
    results, records = dispatcher.ask(questions((0, 1)), enough=1, wanted=2, seconds=30)
    assert (set(results), outcomes(records)[1]) == ({0}, "absent")
    assert 30 <= transport.time - started < 31


def test_a_node_that_comes_back_under_another_address_is_asked_in_the_same_round(dispatcher, transport):
    for k in range(2):
        transport.add(10 + k, f"n{k}", agent=k, after=20.0)
    dispatcher.gather(2, 1, 0)

    def die(envelope):
        transport.remove(11)
        transport.add(21, "n1", agent=1, after=1.0)
        return DeliveryError("the node died")

    transport.add(11, "n1", agent=1, after=0.2, answer=die)
    results, records = dispatcher.ask(questions((0, 1)), enough=1, seconds=1000)
    assert set(results) == {0, 1}
    assert outcomes(records) == {0: "answered", 1: "answered"}
    assert dispatcher.membership.present[1].address == 21


def test_a_node_that_left_without_a_word_is_asked_again_when_it_is_back(dispatcher, transport):
    """Its answer was on its way, and its transport knows of no failure."""
    for k in range(2):
        transport.add(10 + k, f"n{k}", agent=k)
    dispatcher.gather(2, 2, 0)

    def die(envelope):
        transport.remove(11)
        transport.add(21, "n1", agent=1)

    transport.add(11, "n1", agent=1, after=None, answer=die)
    results, records = dispatcher.ask(questions((0, 1)), enough=2, seconds=100)
    assert outcomes(records) == {0: "answered", 1: "answered"}
    assert set(results) == {0, 1}
    assert transport.time < 50
    assert not dispatcher.pending


def test_a_node_whose_process_started_anew_joins_again_in_the_same_round(dispatcher, transport):
    transport.add(10, "a", agent=0, after=20.0)
    answers = iter([Envelope(UNKNOWN_RUN), Envelope(EVALUATED, {"run": RUN, "agent": 1, "names": ""})])
    transport.add(11, "b", agent=1, answer=lambda envelope: next(answers))
    dispatcher.gather(2, 1, 0)
    results, records = dispatcher.ask(questions((0, 1)), enough=1, seconds=1000)
    assert set(results) == {0, 1}
    assert outcomes(records) == {0: "answered", 1: "answered"}
    assert transport.asked.count((11, JOIN)) == 2


def test_a_liar_is_excluded_named_and_not_asked_again_in_the_round(dispatcher, transport):
    for k in range(2):
        transport.add(10 + k, f"n{k}", agent=k)
    transport.add(
        12, "n2", agent=2, answer=lambda envelope: Envelope(EVALUATED, {"run": RUN, "agent": 2, "names": "", "more": 1})
    )
    dispatcher.gather(3, 1, 60)
    results, records = dispatcher.ask(questions(), enough=2, seconds=1000)
    assert set(results) == {0, 1}
    assert records[2].outcome == "excluded"
    assert "unknown field 'more'" in records[2].reason
    assert transport.asked.count((12, "evaluate")) == 1


def test_an_answer_that_cannot_be_decoded_excludes_its_node(dispatcher, transport):
    transport.add(10, "a", agent=0)
    transport.add(11, "b", agent=1, answer=lambda envelope: DecodeError("a payload of float64"))
    dispatcher.gather(2, 1, 0)
    _, records = dispatcher.ask(questions((0, 1)), enough=1, seconds=10)
    assert records[1].outcome == "excluded"
    assert records[1].reason == "a payload of float64"


def test_only_liars_end_the_round_without_a_result(dispatcher, transport):
    transport.add(10, "a", agent=0, answer=lambda envelope: DecodeError("nonsense"))
    dispatcher.gather(1, 1, 0)
    results, records = dispatcher.ask(questions((0,)), enough=1, seconds=10)
    assert results == {}
    assert outcomes(records) == {0: "excluded"}


def test_a_node_that_may_not_join_is_told_why_and_asked_again_only_after_a_while(dispatcher, transport):
    transport.add(10, "a", run="another")
    transport.add(11, "b", agent=0)
    dispatcher.gather(1, 1, 0)
    dispatcher.ask(questions((0,)), enough=1, seconds=5)
    while transport.time < 8:
        dispatcher.turn()
    assert transport.asked.count((10, JOIN)) == 2, "the second says why"
    while transport.time < 15:
        dispatcher.turn()
    assert transport.asked.count((10, JOIN)) == 3


def test_those_in_reserve_are_asked_where_the_others_are_lost(dispatcher, transport):
    for agent in range(3):
        transport.add(10 + agent, f"n{agent}", agent=agent)
    dispatcher.gather(3, 3, 0)
    transport.remove(10)
    results, records = dispatcher.ask(questions((0,)), enough=1, seconds=30, reserve=questions((1, 2)))
    assert set(results) == {1, 2}
    assert outcomes(records) == {0: "absent", 1: "answered", 2: "answered"}
    assert transport.time < 30


def test_those_in_reserve_are_asked_where_the_others_are_late(dispatcher, transport):
    transport.add(10, "a", agent=0, after=None)
    transport.add(11, "b", agent=1)
    dispatcher.gather(2, 2, 0)
    results, records = dispatcher.ask(questions((0,)), enough=1, seconds=30, reserve=questions((1,)))
    assert set(results) == {1}
    assert outcomes(records) == {0: "late", 1: "answered"}


def test_those_in_reserve_are_left_alone_where_the_others_suffice(dispatcher, transport):
    transport.add(10, "a", agent=0)
    transport.add(11, "b", agent=1)
    dispatcher.gather(2, 2, 0)
    results, records = dispatcher.ask(questions((0,)), enough=1, seconds=30, reserve=questions((1,)))
    assert set(results) == {0}
    assert outcomes(records) == {0: "answered"}


def test_a_node_that_fails_at_every_request_is_asked_every_ten_seconds(dispatcher, transport):
    transport.add(10, "a", agent=0, after=90.0)
    transport.add(11, "b", agent=1, after=0.01, answer=lambda envelope: Envelope(UNKNOWN_RUN))
    dispatcher.gather(2, 2, 0)
    results, _ = dispatcher.ask(questions((0, 1)), enough=1, wanted=2, seconds=100)
    assert set(results) == {0}
    assert LOST_TIMES < transport.asked.count((11, "evaluate")) <= LOST_TIMES + 100 / AGAIN_SECONDS


def test_a_node_that_is_lost_between_good_answers_is_asked_again_at_once(dispatcher, transport):
    def every_other(envelope):
        asked.append(1)
        if len(asked) % 2:
            return Envelope(UNKNOWN_RUN)
        return Envelope(EVALUATED, {"run": RUN, "agent": 0, "names": ""})

    asked = []
    transport.add(10, "a", agent=0, after=0.1, answer=every_other)
    dispatcher.gather(1, 1, 0)
    begun = transport.time
    for _ in range(2 * LOST_TIMES):
        assert set(dispatcher.ask(questions((0,)), enough=1, seconds=100)[0]) == {0}
    assert transport.time - begun < 2 * LOST_TIMES * 2


def test_people_are_told_whose_key_an_agent_has(dispatcher, transport, monkeypatch):
    monkeypatch.setattr(transport, "site", lambda address: "node-2" if address == 10 else "", raising=False)
    transport.add(10, "a")
    transport.add(11, "b")
    transport.add(12, "a")
    notes = []
    dispatcher.note = notes.append
    dispatcher.gather(2, 2, 0)
    assert sum(note.endswith("has joined (key node-2)") for note in notes) == 1
    assert sum(note.endswith("has joined") for note in notes) == 1
    transport.remove(10)
    for _ in range(50):
        dispatcher.turn()
    assert sum(note.endswith("is gone (key node-2)") for note in notes) == 1
