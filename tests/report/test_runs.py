"""Run directories: reading, grouping, labels, and what is refused."""

import pytest

from fedrax.errors import FedraxError
from fedrax.report.runs import group_runs, load_run, load_runs


def test_a_run_is_read_by_seed_and_round(write_run, tmp_path):
    run = load_run(write_run(tmp_path / "a", seeds=(3, 1)))
    assert [history.seed for history in run.histories] == [1, 3]
    assert [row["round"] for row in run.histories[0].rows] == [0, 1, 2, 3]
    assert run.histories[0].agents == 10
    assert run.finished
    assert (run.kind("strategy"), run.kind("environment")) == ("fedpg-br", "CartPole-v1")


def test_a_run_that_has_just_begun_is_empty(tmp_path):
    (tmp_path / "config.toml").write_text('name = "new"\n')
    run = load_run(tmp_path)
    assert run.histories == ()
    assert not run.finished


def test_a_torn_last_line_is_ignored(write_run, tmp_path):
    path = write_run(tmp_path / "a", seeds=(0,), finished=False)
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"seed": 0, "round": 5, "retu')
    assert len(load_run(path).histories[0].rows) == 4


def test_a_directory_of_runs_stands_for_its_runs(write_run, tmp_path):
    for name in ("b10", "a", "b9", "9"):
        write_run(tmp_path / name)
    (tmp_path / "notes").mkdir()
    assert [run.name for run in load_runs([tmp_path])] == ["9", "a", "b9", "b10"]


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda path: None, "no such directory"),
        (lambda path: path.mkdir(), "no config.toml"),
        (lambda path: (path.mkdir(), (path / "config.toml").write_text("a = ")), "cannot be read"),
        (
            lambda path: (
                path.mkdir(),
                (path / "config.toml").write_text(""),
                (path / "metrics.jsonl").write_text('{"seed": 0, "round": 2}\n{"seed": 0, "round": 2}\n'),
            ),
            "round 2 of seed 0 follows round 2",
        ),
        (
            lambda path: (
                path.mkdir(),
                (path / "config.toml").write_text(""),
                (path / "metrics.jsonl").write_text('{"se\n{"seed": 0, "round": 2}\n'),
            ),
            "damaged in line 1",
        ),
        (
            lambda path: (
                path.mkdir(),
                (path / "config.toml").write_text(""),
                (path / "summary.json").write_text("{"),
            ),
            "summary.json is damaged: .*; delete it",
        ),
        *(
            (
                lambda path, name=name: (
                    path.mkdir(),
                    (path / "config.toml").write_text(""),
                    (path / name).write_bytes(b"\xff\n{}\n"),
                ),
                message,
            )
            for name, message in {
                "config.toml": "config.toml cannot be read",
                "summary.json": "summary.json is damaged",
                "manifest.json": "manifest.json is damaged",
                "metrics.jsonl": "metrics.jsonl is damaged in line 1",
            }.items()
        ),
        (
            lambda path: (
                path.mkdir(),
                (path / "config.toml").write_text(""),
                (path / "metrics.jsonl").write_text('{"round": "x"}\n{"round": 1}\n'),
            ),
            "damaged in line 1",
        ),
    ],
)
def test_what_is_no_run_is_refused_in_one_line(tmp_path, prepare, message):
    prepare(tmp_path / "run")
    with pytest.raises(FedraxError, match=message) as raised:
        load_runs([tmp_path / "run"])
    assert "\n" not in str(raised.value)


def test_no_path_is_refused():
    with pytest.raises(FedraxError, match="no run is given"):
        load_runs([])


def test_runs_that_differ_in_seeds_and_name_are_one_group(write_run, tmp_path):
    write_run(tmp_path / "a", seeds=(0, 1), name="first")
    write_run(tmp_path / "b", seeds=(2,), name="second")
    (group,) = group_runs(load_runs([tmp_path]))
    assert [history.seed for history in group.histories] == [0, 1, 2]
    assert group.label == "fedpg-br, CartPole-v1, 10 agents"
    assert not group.repeated


def test_a_seed_run_twice_counts_once_by_its_longer_record(write_run, tmp_path):
    write_run(tmp_path / "a", seeds=(0, 1), rounds=2)
    write_run(tmp_path / "b", seeds=(1,), rounds=4)
    (group,) = group_runs(load_runs([tmp_path]))
    assert [(history.seed, len(history.rows)) for history in group.histories] == [(0, 2), (1, 4)]
    assert group.repeated


def test_labels_name_what_differs_and_nothing_that_follows_from_it(write_run, tmp_path):
    write_run(tmp_path / "a", agents=10)
    write_run(tmp_path / "b", agents=1)
    write_run(tmp_path / "c", agents=1, strategy="svrpg")
    labels = [group.label for group in group_runs(load_runs([tmp_path]))]
    assert labels == ["fedpg-br, agents=10", "fedpg-br, agents=1", "svrpg, agents=1"]
