"""Which group is better and how sure that is, and gains over learning alone."""

import dataclasses

import numpy as np
import pytest

from fedrax.report.comparisons import (
    comparison_html,
    gain_table,
    holm,
    improvement_table,
    profile_figure,
    profiles_of,
)
from fedrax.report.runs import Group, History, Run


def group(label, *returns, strategy="fedavg", own=None):
    """A group of a seed each with these last returns, of one agent or of several."""
    histories = []
    for seed, value in enumerate(returns):
        row = {"round": 0, "trajectories": 1}
        row |= {"return": float(np.mean(value)), "agent_returns": list(np.atleast_1d(value).astype(float))}
        row |= {} if own is None else {"agent_own_returns": own[seed]}
        histories.append(History(seed, (row,), np.size(value)))
    return Group(label, (Run("run", {"strategy": {"kind": strategy}}, {}, {}, tuple(histories)),))


def test_the_better_stands_first_with_its_chance():
    headings, lines = improvement_table([group("low", 1, 2, 3, 4), group("high", 5, 6, 7, 8)], "mean")
    assert headings == ["", "over", "chance of a higher return", "which is", "seeds", *headings[5:]]
    assert headings[5:] == ["after trajectories per agent (reference count)"]
    assert lines == [["high", "low", "100 % [100 %, 100 %]", "better", "4 and 4", "1"]]


def test_three_seeds_each_are_too_few_whoever_wins():
    _, ((*_, verdict, seeds, _),) = improvement_table([group("low", 1, 2, 3), group("high", 5, 6, 7)], "mean")
    assert (verdict, seeds) == ("too few seeds", "3 and 3")


def test_many_seeds_of_one_do_not_make_up_for_two_of_the_other():
    _, ((*_, verdict, _, _),) = improvement_table([group("a", 1, 2), group("b", 3, 4, 5, 6, 7, 8, 9, 10)], "mean")
    assert verdict == "too few seeds"


def curves(label, returns, *, seeds=5, every=100):
    """Seeds evaluated each so many trajectories, ``returns`` and a little more by seed."""
    histories = [
        History(
            seed,
            tuple(
                {"round": place, "trajectories": every * (place + 1), "return": value + seed / 10}
                for place, value in enumerate(returns)
            ),
            1,
        )
        for seed in range(seeds)
    ]
    return Group(label, (Run("run", {}, {}, {}, tuple(histories)),))


def test_an_interrupted_run_is_compared_at_what_it_has_used():
    """What stands at the end is the longer run's advantage, and no verdict on the setups."""
    long, short = curves("long", [1, 2, 3, 9]), curves("short", [5, 6])
    _, ((one, other, chance, verdict, _, at),) = improvement_table([long, short], "mean")
    assert (one, other, verdict, at) == ("long", "short", "worse", "200")
    assert chance.startswith("0 % [")
    assert "Budgets were not used alike" in comparison_html([long, short], "mean", "")
    assert "Budgets were not used alike" not in comparison_html([long, curves("b", [1, 1, 1, 1])], "mean", "")


def test_without_an_evaluation_at_a_common_cost_there_is_no_verdict():
    _, ((*_, chance, verdict, _, _),) = improvement_table([curves("a", [1, 2]), curves("b", [5], every=50)], "mean")
    assert (chance, verdict) == ("–", "unequal budgets")


def test_of_many_pairs_each_needs_more_certainty():
    """Four seeds against four reach 2/70, which is enough for one pair, and not for the least of six."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == [
        True,
        False,
        False,
        True,
    ]  # Holm's procedure by hand: 0.0125, 0.0167, 0.025
    assert holm([float("nan"), 0.02]) == [False, True]
    groups = [group(f"g{number}", *(10 * number + np.arange(4))) for number in range(4)]
    assert {line[3] for line in improvement_table(groups, "mean")[1]} == {"not certain"}
    assert {line[3] for line in improvement_table(groups[:2], "mean")[1]} == {"better"}


def test_what_overlaps_is_not_certain():
    _, lines = improvement_table([group("a", 1, 3, 5, 7, 9), group("b", 2, 4, 6, 8, 10)], "iqm")
    ((one, _, chance, verdict, *_),) = lines
    assert (one, verdict) == ("b", "not certain")
    assert chance.startswith("60 % [")


@pytest.mark.parametrize("others", [[], [(5.0,)], [(float("nan"), 1.0)]])
def test_one_group_of_several_finite_seeds_is_compared_with_nothing(others):
    groups = [group("a", 1, 2, 3), *(group("b", *returns) for returns in others)]
    assert improvement_table(groups, "iqm") is None
    assert comparison_html(groups, "iqm", "") is None


def test_of_many_groups_each_stands_beside_the_best():
    groups = [group(f"g{number}", number, number + 0.5) for number in range(8)]
    _, lines = improvement_table(groups, "mean")
    assert [line[:2] for line in lines] == [["g7", f"g{number}"] for number in range(6, -1, -1)]


def test_profiles_fall_from_one_to_none_within_their_bands():
    profiles = profiles_of([group("a", 1, 2, 3, 4), group("b", 4, 4, 4, 4)])
    for line in profiles.values():
        assert (line["y"][0], line["y"][-1]) == (1, 0)
        assert (np.diff(line["y"]) <= 0).all()
        assert (line["low"] <= line["y"]).all()
        assert (line["y"] <= line["high"]).all()
    assert share_above(profiles["a"], 2.5) == 0.5
    assert len(profile_figure(profiles).axes[0].lines) == 2


def share_above(line, level):
    """What the drawn line says: its steps hold up to the next."""
    return line["y"][np.searchsorted(line["x"], level, side="right") - 1]


def test_profiles_step_at_the_scores():
    """On a grid of levels a step stood as far above its score as the next level was."""
    one, two = (0.0, 1.0, 100.0, 100.5), (-7.25, 3.0, 3.0, 50.0)
    profiles = profiles_of([group("a", *one), group("b", *two)])
    for label, scores in (("a", one), ("b", two)):
        for level in (*one, *two):
            for beside in (level - 1e-6, level, level + 1e-6):
                assert share_above(profiles[label], beside) == np.mean(np.array(scores) > beside)
        assert len(profiles[label]["x"]) == len(set(scores)) + 2
    assert profiles["a"]["x"][[0, -1]].tolist() == profiles["b"]["x"][[0, -1]].tolist()


def test_gains_are_taken_agent_by_agent_and_seed_by_seed():
    alone = group("alone", (1, 10), (2, 20), strategy="local")
    together = group("together", (3, 9), (4, 18), (100, 100))
    headings, lines = gain_table([together, alone])
    assert headings == ["", "over", "gain of the mean agent", "smallest gain", "agents that gain", "agent 0", "agent 1"]
    assert lines == [["together", "alone", "0.25 [0.00, 0.50]", "-1.5 [-2.0, -1.0]", "1 of 2", "2.0", "-1.5"]]


def test_gains_have_one_number_of_digits():
    alone = group("alone", (0.0, 0.0), strategy="local")
    _, lines = gain_table([group("a", (0.5937, 60.85)), group("b", (1.0, 2.0)), alone])
    assert [line[-2:] for line in lines] == [["0.59", "60.85"], ["1.00", "2.00"]]


def test_a_gain_is_one_in_the_agents_own_environment():
    alone = group("alone", (1, 1), strategy="local", own=[[5.0, 6.0]])
    _, ((*_, first, second),) = gain_table([group("together", (7, 7)), alone])
    assert (first, second) == ("2", "1")


def test_a_gain_is_over_those_who_learn_alone_under_the_same_settings():
    def at(rate, label, value, strategy):
        (run,) = group(label, (value, value), strategy=strategy).runs
        return Group(label, (dataclasses.replace(run, config={**run.config, "learner": {"rate": rate}}),))

    slow, fast = at(0.1, "alone slow", 1, "local"), at(0.2, "alone fast", 5, "local")
    together = at(0.2, "together", 7, "fedavg")
    _, lines = gain_table([slow, fast, together])
    assert [line[:3] for line in lines] == [["together", "alone fast", "2"]]
    # Of several that all differ, none is the reference; of a single one, its name is said.
    other = at(0.3, "other", 7, "fedavg")
    assert gain_table([slow, fast, other]) is None
    assert gain_table([slow, other])[1][0][:3] == ["other", "alone slow", "6"]


def test_without_agents_that_learn_alone_there_is_no_gain():
    assert gain_table([group("a", (1, 2)), group("b", (1, 2))]) is None
    assert gain_table([group("a", (1, 2, 3)), group("alone", (1, 2), strategy="local")]) is None
