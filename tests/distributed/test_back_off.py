"""A node that fails again and again is asked less and less often, and is trusted again after it has been good."""

import json
import stat

import pytest

from fedrax.errors import FedraxError
from fedrax.runtime.distributed.back_off import BackOff
from fedrax.runtime.distributed.dispatcher import ABSENT, ANSWERED, EXCLUDED, LATE, STALE, Record
from fedrax.runtime.distributed.ledger import EVALUATION, WORK, Ledger


def asked_in(back_off, rounds, fails):
    """The rounds in which agent 0 was asked, where it failed in those that ``fails`` says."""
    asked = []
    for number in range(rounds):
        if 0 not in back_off.paused(number):
            asked.append(number)
            back_off.saw(number, 0, failed=fails(number))
    return asked


def test_two_failures_of_five_pause_for_four_rounds_then_sixteen_then_64():
    asked = asked_in(BackOff(2), 300, lambda number: True)
    assert asked == [0, 1, 6, 23, 88, 153, 218, 283]


def test_one_failure_of_five_is_forgiven():
    assert asked_in(BackOff(2), 40, lambda number: number % 5 == 0) == list(range(40))


def test_after_a_pause_one_failure_suffices_until_a_window_was_good():
    asked = asked_in(BackOff(2), 60, lambda number: number in (0, 1, 8, 30))
    assert 8 in asked
    assert asked[asked.index(8) + 1] == 8 + 1 + 16, "the second pause, of sixteen rounds"
    assert 31 in asked, "five good rounds later, one failure is forgiven again"


def test_nobody_pauses_without_a_limit():
    assert asked_in(BackOff(None), 50, lambda number: True) == list(range(50))


def record(agent, outcome, asked=9):
    return Record(agent, "n", outcome, 1.0, 0.0, asked, 0, "why")


def judged(tmp_path, *rounds):
    """Whether agent 0 pauses after rounds of a new run with such records."""
    (tmp_path / "pauses.json").unlink(missing_ok=True)
    ledger = Ledger(tmp_path / "exchanges.jsonl", lambda text: None, max_failures=2)
    for number, records in enumerate(rounds):
        ledger.asked(number, [0, 1], enough=1, present={0, 1})
        ledger.judge(records, WORK)
    return 0 in ledger.back_off.until


def test_who_is_asked_and_lost_has_failed_and_who_is_not_there_has_not(tmp_path):
    assert judged(tmp_path, [record(0, ABSENT)], [record(0, ABSENT)])
    assert not judged(tmp_path, [record(0, ABSENT, 0)], [record(0, ABSENT, 0)])


def test_an_agent_fails_once_a_round_and_old_answers_are_no_failure(tmp_path):
    assert not judged(tmp_path, [record(0, LATE), record(0, EXCLUDED)])
    assert not judged(tmp_path, [record(0, EXCLUDED), record(0, ANSWERED)], [record(0, EXCLUDED)])
    assert not judged(tmp_path, *[[record(0, STALE)]] * 9)


def test_pauses_are_named_recorded_and_never_cost_the_quorum(tmp_path):
    notes = []
    ledger = Ledger(tmp_path / "exchanges.jsonl", notes.append, max_failures=2)
    for number in range(2):
        assert ledger.asked(number, [0, 1, 2], enough=2, present={0, 1, 2}) == [0, 1, 2]
        ledger.write(number, [record(0, ANSWERED), record(1, ABSENT, 0), record(2, [LATE, EXCLUDED][number])], str)
    assert notes == [
        "agent 2 paused: lost, late or excluded in 2 of the last 2 rounds in which it was asked; it is asked again in "
        "round 7 (runtime.flower.max_failures)"
    ]
    assert ledger.asked(2, [0, 1, 2], enough=2, present={0, 1, 2}) == [0, 1]
    ledger.write(2, [record(0, ANSWERED), record(1, ANSWERED)], str)
    last = (tmp_path / "exchanges.jsonl").read_text().splitlines()[-1]
    assert last.startswith('{"round": 2, "agent": 2, "node": "2", "outcome": "paused"')
    assert last.endswith('"reason": "asked again in round 7"}')
    assert ledger.asked(3, [0, 1, 2], enough=3, present={0, 1, 2}) == [0, 1, 2], "two are fewer than the quorum"
    assert ledger.asked(4, [0, 1, 2], enough=2, present={0, 2}) == [0, 1, 2], "only one of the others is there"
    assert ledger.asked(6, [0, 1, 2], enough=2, present={0, 1, 2}) == [0, 1, 2], "round 7"


def test_a_restarted_server_goes_on_with_the_pauses(tmp_path):
    def restarted():
        return Ledger(tmp_path / "exchanges.jsonl", lambda text: None, max_failures=2)

    asked = []
    for number in range(100):
        ledger = restarted()
        if 0 in ledger.asked(number, [0, 1], enough=1, present={0, 1}):
            asked.append(number)
            ledger.write(number, [record(0, LATE), record(1, ANSWERED)], str)
    assert asked == asked_in(BackOff(2), 100, lambda number: True) == [0, 1, 6, 23, 88]
    assert stat.S_IMODE((tmp_path / "pauses.json").stat().st_mode) == 0o600


def test_a_round_that_a_restarted_server_does_again_is_judged_once(tmp_path):
    for _ in range(3):
        ledger = Ledger(tmp_path / "exchanges.jsonl", lambda text: None, max_failures=2)
        ledger.asked(0, [0], enough=1, present={0})
        ledger.write(0, [record(0, LATE)], str)
        assert not ledger.back_off.until
    # What else was asked in the round counts, once.
    ledger.judge([record(0, LATE)], EVALUATION)
    assert ledger.back_off.until == {0: 5}


def test_without_a_limit_a_resumed_run_has_no_pauses(tmp_path):
    judged(tmp_path, [record(0, LATE)], [record(0, LATE)])
    assert Ledger(tmp_path / "exchanges.jsonl", print, max_failures=2).back_off.paused(2) == {0: 6}
    assert Ledger(tmp_path / "exchanges.jsonl", print, max_failures=None).back_off.paused(2) == {}


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"judged": {}, "agents": {}},
        {"judged": {"work": 0, "evaluation": 0}, "agents": []},
        {"judged": {"work": 0, "evaluation": 0}, "agents": {"window": {"x": []}, "pauses": {}, "until": {}}},
        {"judged": {"work": 0, "evaluation": 0}, "agents": {"window": {"0": ["no"]}, "pauses": {}, "until": {}}},
        {"judged": {"work": 0, "evaluation": 0}, "agents": {"window": {}, "pauses": {"0": -1}, "until": {}}},
        {"judged": {"work": 0, "evaluation": 0}, "agents": {"window": {}, "pauses": {}, "until": {"0": "soon"}}},
    ],
)
def test_a_damaged_list_of_pauses_is_refused_in_one_line(tmp_path, table):
    (tmp_path / "pauses.json").write_text(json.dumps(table))
    with pytest.raises(FedraxError, match=r"pauses\.json is damaged; delete it"):
        Ledger(tmp_path / "exchanges.jsonl", print, max_failures=2)
