"""What is far beyond the usual is not used, and what is usual is the honest agents' to say."""

import numpy as np
import pytest

from fedrax.errors import FedraxError
from fedrax.runtime.distributed.recent import ROUNDS, Recent


@pytest.fixture
def recent(tmp_path):
    return Recent(tmp_path / "recent.json")


def norms(*updates, **others):
    parts = {"statistics": 0.0, "individual": 0.0, **others}
    return {agent: {"update": length, **parts} for agent, length in enumerate(updates)}


def refused(recent, number, *updates, model=1.0):
    return set(recent.too_long(number, norms(*updates), model))


def test_a_message_of_3e38_is_refused_in_the_first_round(recent):
    reasons = recent.too_long(0, norms(1.0, 3e38, 2.0), 1.0)
    assert reasons == {
        1: "an update of norm 3e+38, over the limit of 60: 30 times what is usual (runtime.flower.max_norm sets "
        "another, a number or none)"
    }


def test_what_is_usual_follows_the_medians_of_ten_rounds(recent):
    assert not refused(recent, 0, 50.0, 50.0, 50.0)
    for number in range(1, 1 + ROUNDS):
        assert not refused(recent, number, 1.0, 2.0, 1400.0)
    assert refused(recent, 1 + ROUNDS, 1.0, 2.0, 1400.0) == {2}, "the median of 50 is forgotten by now"


def test_all_may_grow_together_and_silent_agents_count_for_nothing(recent):
    assert not refused(recent, 0, 0.0, 0.0, 0.01)
    assert not refused(recent, 1, 0.0, 0.01, 0.01)
    assert not refused(recent, 2, 90.0, 100.0, 110.0)


def test_one_of_two_cannot_have_the_other_refused_by_sending_next_to_nothing(recent):
    for number in range(5):
        assert not refused(recent, number, 1e-30, 0.9, model=1.0)
    assert refused(recent, 5, 1e-30, 31.0, model=1.0) == {1}, "once it is longer than the model itself"
    assert refused(recent, 6, 1e-3, 1e-3, 0.9, model=1.0) == {2}, "of three, one cannot choose the median"


def test_a_lie_in_sums_or_in_what_is_relayed_is_refused_by_its_own_measure(recent):
    table = norms(1.0, 1.0, 1.0, statistics=2.0, individual=3.0)
    table[1] = {**table[1], "statistics": 3e38}
    table[2] = {**table[2], "individual": 3e38}
    reasons = recent.too_long(0, table, 1.0)
    assert reasons[1].startswith("statistics of norm 3e+38, over the limit of 2e+06")
    assert reasons[2].startswith("an individual part of norm 3e+38, over the limit of 3e+06")
    assert set(reasons) == {1, 2}


def test_a_combination_that_is_not_finite_or_leaps_is_wrong(recent):
    before = {"w": np.ones(4, np.float32), "n": np.int32(3), "best": np.float32(-np.inf)}
    assert recent.wrong(0, before, {**before, "w": np.array([1, np.nan, 1, 1], np.float32)}) == (
        "the combined model is not finite"
    )
    first = recent.wrong(0, before, {**before, "w": np.full(4, 1e30, np.float32)})
    assert first == "the combined model is 2e+30 away from the last one, over the limit of 3e+06"
    for number in range(3):
        assert recent.wrong(number, before, {**before, "w": before["w"] + 1, "best": np.float32(2)}) is None
    leap = recent.wrong(3, before, {**before, "w": before["w"] + 101})
    assert leap == "the combined model is 202 away from the last one, over the limit of 200"
    assert recent.wrong(3, before, {**before, "w": before["w"] + 99}) is None
    assert recent.wrong(4, before, before) is None, "nothing came"


def test_a_restarted_server_judges_as_before_and_a_round_done_again_counts_once(tmp_path, recent):
    for number in range(14):
        recent.too_long(number, norms(1.0 + number, 1.0 + number), 0.0)
        recent.wrong(number, np.zeros(1), np.ones(1) * (1 + number))
        recent.save()
    again = Recent(tmp_path / "recent.json")
    assert again.before("update", 14) == recent.before("update", 14) == [float(number) for number in range(5, 15)]
    # The last round is done again: it is judged by the ten before it, as the first time.
    assert again.before("step", 13) == [float(number) for number in range(4, 14)]
    again.too_long(13, norms(7.0, 7.0), 0.0)
    assert again.before("update", 14) == [*(float(number) for number in range(5, 14)), 7.0]


@pytest.mark.parametrize("row", ["[0]", "[1e400, 1]", "[0, NaN]", '[0, "x"]', "[0, 1e999]"])
def test_a_damaged_file_is_said_to_be_one(recent, row):
    rows = ", ".join(f'"{name}": [{row}]' for name in recent.series)
    recent.path.write_text(f"{{{rows}}}")
    with pytest.raises(FedraxError, match=r"recent\.json is damaged"):
        Recent(recent.path)


def test_the_longest_message_is_found_beside_the_median_of_each_part(recent):
    table = norms(1.0, 2.0, 1.5, statistics=1e6)
    assert recent.longest(table) == 1
    table[2] = {**table[2], "statistics": 3e6}
    assert recent.longest(table) == 2
    assert recent.longest(norms(0.0, 0.0)) == 0


def test_what_all_say_again_and_again_is_believed_in_the_end(recent):
    for number in range(3):
        assert recent.wrong(number, np.zeros(1), np.ones(1)) is None
    tries = 0
    while recent.wrong(3 + tries, np.zeros(1), np.full(1, 5e3)) is not None:
        tries, recent.undone = tries + 1, recent.undone + 1
    assert tries == 2, "100, 1,000 and 10,000 times the usual step"
