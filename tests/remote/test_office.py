"""Nodes come, go, are late and lie; a round ends with those who answered. No JAX, no clock but the post's own."""

import pytest

from fedrax.arrays import DecodeError
from fedrax.runtime.remote.checks import Rejected, check_letter
from fedrax.runtime.remote.letters import EVALUATED, JOIN, JOINED, STRANGER, Letter
from fedrax.runtime.remote.members import Members
from fedrax.runtime.remote.office import Office, Question
from fedrax.runtime.remote.post import Lost

from stub_post import RUN, Stub


@pytest.fixture
def post():
    return Stub()


@pytest.fixture
def office(post, tmp_path):
    notes = []
    made = Office(post, Members(3, tmp_path / "members.json"), run=RUN, config="", note=notes.append)
    made.notes = notes
    return made


def questions(agents=(0, 1, 2)):
    def question(agent):
        def check(letter):
            return check_letter(letter, EVALUATED, {"run": RUN, "agent": agent}).fields["agent"]

        return Question(Letter("evaluate", {"run": RUN, "agent": agent}), check)

    return {agent: question(agent) for agent in agents}


def outcomes(records):
    return {record.agent: record.outcome for record in records}


def test_nodes_get_the_places_they_ask_for_or_the_first_free(office, post):
    post.add(10, "a", agent=2)
    post.add(11, "b")
    office.gather(2, 2, 60)
    assert {m.index: m.address for m in office.members.present.values()} == {2: 10, 0: 11}


def test_everyone_answers(office, post):
    for k in range(3):
        post.add(10 + k, f"n{k}", agent=k, after=0.5 + k)
    office.gather(3, 1, 60)
    results, records = office.ask(questions(), enough=3, seconds=100)
    assert results == {0: 0, 1: 1, 2: 2}
    assert outcomes(records) == dict.fromkeys(range(3), "answered")
    assert 2.5 <= records[2].seconds < 3
    assert post.time < 10


def test_gathering_ends_with_a_quorum_after_its_time(office, post):
    post.add(10, "a")
    post.add(11, "b")
    office.gather(3, 2, 60)
    assert 60 <= post.time < 62


def test_a_straggler_is_late_and_the_round_ends_without_it(office, post):
    for k, after in enumerate([0.1, 0.1, 500.0]):
        post.add(10 + k, f"n{k}", agent=k, after=after)
    office.gather(3, 1, 60)
    started = post.time
    results, records = office.ask(questions(), enough=2, seconds=30)
    assert set(results) == {0, 1}
    assert outcomes(records)[2] == "late"
    assert 30 <= post.time - started < 31


def test_a_late_answer_is_never_used_for_the_next_round(office, post):
    post.add(10, "a", agent=0, after=0.1)
    post.add(11, "b", agent=1, after=40.0)
    office.gather(2, 1, 0)
    office.ask(questions((0, 1)), enough=1, seconds=30)
    post.add(11, "b", agent=1, after=0.1, answer=lambda letter: Letter(EVALUATED, {"run": RUN, "agent": 7}))
    results, records = office.ask(questions((0, 1)), enough=1, seconds=30)
    assert set(results) == {0}
    assert outcomes(records)[1] == "excluded"


def test_without_a_quorum_the_round_waits_past_its_deadline(office, post):
    post.add(10, "a", agent=0, after=0.1)
    post.add(11, "b", agent=1, after=100.0)
    office.gather(2, 2, 0)
    results, _ = office.ask(questions((0, 1)), enough=2, seconds=30)
    assert set(results) == {0, 1}
    assert post.time >= 100
    assert any("waiting for more" in note for note in office.notes)


def test_a_lost_node_does_not_hold_the_round_up(office, post):
    for k in range(3):
        post.add(10 + k, f"n{k}", agent=k)
    office.gather(3, 1, 60)
    post.add(12, "n2", agent=2, after=3.0, answer=lambda letter: Lost("the node is not reachable"))
    results, records = office.ask(questions(), enough=2, seconds=1000)
    assert set(results) == {0, 1}
    assert records[2].outcome == "absent"
    assert "not reachable" in records[2].reason
    assert post.time < 100


def test_a_node_that_comes_back_under_another_address_is_asked_in_the_same_round(office, post):
    for k in range(2):
        post.add(10 + k, f"n{k}", agent=k, after=20.0)
    office.gather(2, 1, 0)

    def die(letter):
        post.remove(11)
        post.add(21, "n1", agent=1, after=1.0)
        return Lost("the node died")

    post.add(11, "n1", agent=1, after=0.2, answer=die)
    results, records = office.ask(questions((0, 1)), enough=1, seconds=1000)
    assert set(results) == {0, 1}
    assert outcomes(records) == {0: "answered", 1: "answered"}
    assert office.members.present[1].address == 21


def test_a_node_whose_process_started_anew_joins_again_in_the_same_round(office, post):
    post.add(10, "a", agent=0, after=20.0)
    answers = iter([Letter(STRANGER), Letter(EVALUATED, {"run": RUN, "agent": 1})])
    post.add(11, "b", agent=1, answer=lambda letter: next(answers))
    office.gather(2, 1, 0)
    results, records = office.ask(questions((0, 1)), enough=1, seconds=1000)
    assert set(results) == {0, 1}
    assert outcomes(records) == {0: "answered", 1: "answered"}
    assert post.asked.count((11, JOIN)) == 2


def test_a_liar_is_excluded_named_and_not_asked_again_in_the_round(office, post):
    for k in range(2):
        post.add(10 + k, f"n{k}", agent=k)
    post.add(12, "n2", agent=2, answer=lambda letter: Letter(EVALUATED, {"run": RUN, "agent": 2, "more": 1}))
    office.gather(3, 1, 60)
    results, records = office.ask(questions(), enough=2, seconds=1000)
    assert set(results) == {0, 1}
    assert records[2].outcome == "excluded"
    assert "unknown field 'more'" in records[2].reason
    assert post.asked.count((12, "evaluate")) == 1


def test_an_answer_that_is_no_letter_excludes_its_node(office, post):
    post.add(10, "a", agent=0)
    post.add(11, "b", agent=1, answer=lambda letter: DecodeError("a payload of float64"))
    office.gather(2, 1, 0)
    _, records = office.ask(questions((0, 1)), enough=1, seconds=10)
    assert records[1].outcome == "excluded"
    assert records[1].reason == "a payload of float64"


def test_only_liars_end_the_round_without_a_result(office, post):
    post.add(10, "a", agent=0, answer=lambda letter: DecodeError("nonsense"))
    office.gather(1, 1, 0)
    results, records = office.ask(questions((0,)), enough=1, seconds=10)
    assert results == {}
    assert outcomes(records) == {0: "excluded"}


def test_places_are_kept_across_a_restart_of_the_server(office, post, tmp_path):
    post.add(10, "a", agent=1)
    office.gather(1, 1, 0)
    again = Members(3, tmp_path / "members.json")
    letter = Letter(JOINED, {"run": RUN, "node": "a", "agent": -1, "done": 4})
    assert again.admit(99, letter, run=RUN, addresses={99}).index == 1


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"agent": 1}, "another node"),
        ({"agent": 3}, "agents 0 to 2"),
        ({"agent": -7}, "agents 0 to 2"),
        ({"node": "../../x"}, "letters and digits"),
        ({"run": "r2"}, "run 'r2'"),
    ],
)
def test_a_node_that_asks_for_what_it_cannot_have_is_not_admitted(office, tmp_path, fields, why):
    members = Members(3, tmp_path / "m.json")
    members.admit(10, Letter(JOINED, {"run": RUN, "node": "a", "agent": 1, "done": 0}), run=RUN, addresses={10})
    with pytest.raises(Rejected, match=why):
        members.admit(
            11, Letter(JOINED, {"run": RUN, "node": "b", "agent": 0, "done": 0} | fields), run=RUN, addresses={10, 11}
        )


def test_a_name_that_is_there_already_cannot_be_taken_over(tmp_path):
    members = Members(3, tmp_path / "m.json")
    letter = Letter(JOINED, {"run": RUN, "node": "a", "agent": 1, "done": 0})
    members.admit(10, letter, run=RUN, addresses={10})
    with pytest.raises(Rejected, match="another node, which is there"):
        members.admit(11, letter, run=RUN, addresses={10, 11})
    assert members.admit(11, letter, run=RUN, addresses={11}).address == 11


def test_a_node_that_may_not_join_is_asked_again_only_after_a_while(office, post):
    post.add(10, "a", run="another")
    post.add(11, "b", agent=0)
    office.gather(1, 1, 0)
    office.ask(questions((0,)), enough=1, seconds=5)
    while post.time < 8:
        office.turn()
    assert post.asked.count((10, JOIN)) == 1
    while post.time < 15:
        office.turn()
    assert post.asked.count((10, JOIN)) == 2
