"""Curves: evaluations are held, never interpolated or extrapolated; aggregates are of all seeds."""

import dataclasses

import numpy as np
import pytest

from fedrax.errors import FedraxError
from fedrax.report.curves import (
    AXES,
    SeedCurve,
    aggregate_at,
    available_axes,
    best_scores,
    final_scores,
    seed_curve,
    summarise,
)
from fedrax.report.runs import Group, History, load_run


def group_of(*paths, label="ours"):
    return Group(label, tuple(load_run(path) for path in paths))


def test_the_last_evaluation_holds_until_the_next():
    curve = SeedCurve(0, np.array([10.0, 20.0, 40.0]), np.array([1.0, 2.0, 4.0]))
    held = curve.at([5, 10, 19.9, 20, 39, 40, 40.1])
    assert np.array_equal(held, [np.nan, 1, 1, 2, 2, 4, np.nan], equal_nan=True)


def test_every_axis_has_its_cost(write_run, tmp_path):
    (history,) = load_run(write_run(tmp_path / "a", seeds=(0,))).histories
    rows = tuple(row | {"bytes_mesh": 4 * row["bytes_up"]} for row in history.rows)
    last = {name: seed_curve(dataclasses.replace(history, rows=rows), name).x[-1] for name in AXES}
    assert last == {
        "trajectories": 400,
        "round": 4,
        "steps_per_agent": 8000,
        "total_steps": 100_000,
        "bytes": 10_000,
        "bytes_mesh": 24_000,
        "seconds": 60,
    }


def test_axes_without_their_columns_are_left_out(write_run, tmp_path):
    group = group_of(write_run(tmp_path / "a", without=("bytes_up", "seconds")))
    assert available_axes([group]) == ["trajectories", "round", "steps_per_agent", "total_steps"]


def test_rounds_without_evaluation_are_skipped_and_null_is_not_a_number():
    rows = ({"round": 0, "return": 5.0}, {"round": 1}, {"round": 2, "return": None})
    curve = seed_curve(History(0, rows, None), "round")
    assert curve.x.tolist() == [1, 3]
    assert np.array_equal(curve.y, [5, np.nan], equal_nan=True)


def test_smoothing_is_a_trailing_mean():
    rows = tuple({"round": number, "return": float(number)} for number in range(1, 5))
    assert seed_curve(History(0, rows, None), "round", smoothing=3).y.tolist() == [1, 1.5, 2, 3]


def test_aggregates_of_three_seeds(write_run, tmp_path):
    curve = summarise(group_of(write_run(tmp_path / "a")), "trajectories")
    assert curve.x.tolist() == [100, 200, 300, 400]
    assert curve.centre.tolist() == [110, 210, 310, 410]
    assert (curve.low <= curve.centre).all()
    assert (curve.centre <= curve.high).all()
    assert curve.low[0] >= 100
    assert curve.high[0] <= 120


def test_the_aggregate_ends_where_the_first_seed_ends(write_run, tmp_path):
    short = write_run(tmp_path / "a", seeds=(0,), rounds=2, finished=False)
    curve = summarise(group_of(short, write_run(tmp_path / "b", seeds=(1,))), "round")
    assert curve.x.tolist() == [1, 2]
    assert curve.seeds[1].x.tolist() == [1, 2, 3, 4]


def test_one_seed_has_no_band(write_run, tmp_path):
    curve = summarise(group_of(write_run(tmp_path / "a", seeds=(0,))), "round")
    assert curve.centre.tolist() == [100, 200, 300, 400]
    assert np.isnan(curve.low).all()
    assert np.isnan(curve.high).all()


def test_a_diverged_seed_breaks_the_curve(write_run, tmp_path):
    path = write_run(tmp_path / "a")
    text = (path / "metrics.jsonl").read_text().replace('"return": 320.0', '"return": NaN')
    (path / "metrics.jsonl").write_text(text)
    assert np.isnan(summarise(group_of(path), "round").centre).tolist() == [False, False, True, False]


def test_many_evaluations_are_drawn_on_a_grid(write_run, tmp_path):
    curve = summarise(group_of(write_run(tmp_path / "a", rounds=50)), "round", points=10)
    assert curve.x.size == 10
    assert (curve.x[0], curve.x[-1]) == (1, 50)


def test_values_at_given_costs(write_run, tmp_path):
    centre, low, high = aggregate_at(group_of(write_run(tmp_path / "a")), [99, 250, 400, 401], statistic="mean")
    assert np.array_equal(centre, [np.nan, 210, 410, np.nan], equal_nan=True)
    assert np.isnan(low).tolist() == np.isnan(high).tolist() == [True, False, False, True]


def test_final_and_best_scores(write_run, tmp_path):
    path = write_run(tmp_path / "a", seeds=(0, 1))
    text = (path / "metrics.jsonl").read_text().replace('"return": 200.0', '"return": 999.0')
    (path / "metrics.jsonl").write_text(text)
    assert final_scores(group_of(path)).tolist() == [400, 410]
    assert best_scores(group_of(path)).tolist() == [999, 410]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"x": "trajectory"}, "did you mean 'trajectories'"), ({"statistic": "median"}, "unknown statistic")],
)
def test_unknown_names_are_refused(write_run, tmp_path, arguments, message):
    with pytest.raises(FedraxError, match=message):
        summarise(group_of(write_run(tmp_path / "a")), **arguments)
