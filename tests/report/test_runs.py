"""Run directories: reading, grouping, labels, and what is refused."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedrax.errors import FedraxError
from fedrax.report.comparisons import improvement_table
from fedrax.report.labels import labels_of
from fedrax.report.runs import group_runs, load_run, load_runs, named_runs


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
        (lambda path: path.write_text("x"), "it is a file, and a run is a directory"),
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


def labels_with(write_run, folder, **texts):
    """The labels of runs to whose configuration these tables are added, by their folders' names."""
    for name, text in texts.items():
        path = write_run(folder / name.replace("__", "/"), seeds=(0,))
        (path / "config.toml").write_text((path / "config.toml").read_text() + text)
    runs = [load_run(folder / name.replace("__", "/")) for name in texts]
    return [group.label for group in group_runs(runs)]


@pytest.mark.parametrize(
    ("one", "other", "labels"),
    [
        ('[compression]\nkind = "none"', '[compression]\nkind = "int8"', ["compression=none", "compression=int8"]),
        ("[budget]\nrounds = 20", "[budget]\nrounds = 40", ["budget.rounds=20", "budget.rounds=40"]),
        ('[privacy]\nunit = "none"', '[privacy]\nunit = "update"', ["privacy.unit=none", "privacy.unit=update"]),
        (
            "[federation.x]\nlocal_updates = 1",
            "[federation.x]\nlocal_updates = 2",
            ["federation.x.local_updates=1", "federation.x.local_updates=2"],
        ),
        (
            '[compression]\nkind = "none"\n[privacy]\nunit = "none"',
            '[compression]\nkind = "int8"\n[privacy]\nunit = "update"',
            ["compression=none, privacy.unit=none", "compression=int8, privacy.unit=update"],
        ),
    ],
)
def test_a_label_says_which_tables_setting_it_means_and_every_chosen_table(write_run, tmp_path, one, other, labels):
    assert labels_with(write_run, tmp_path, a=one, b=other) == labels


def test_chosen_tables_come_before_what_follows_from_them(write_run, tmp_path):
    """Not the number of rounds, which differs too, where compression says it."""
    texts = {
        name: f'[budget]\nrounds = {rounds}\n[compression]\nkind = "{kind}"'
        for name, rounds, kind in (("a", 5, "none"), ("b", 6, "int8"), ("c", 5, "top-k"))
    }
    assert labels_with(write_run, tmp_path, **texts) == ["compression=none", "compression=int8", "compression=top-k"]


def test_a_key_that_says_what_it_is_needs_no_table(write_run, tmp_path):
    for name, rate in (("a", 0.1), ("b", 0.2)):
        path = write_run(tmp_path / name)
        text = (path / "config.toml").read_text()
        (path / "config.toml").write_text(text.replace("hidden = ", f"learning_rate = {rate}\nhidden = "))
    assert [group.label for group in group_runs(load_runs([tmp_path]))] == ["learning_rate=0.1", "learning_rate=0.2"]


def test_nobody_attacks_is_said_so(write_run, tmp_path):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", attack="sign-flipping", byzantine=3)
    assert [group.label for group in group_runs(load_runs([tmp_path]))] == ["no attack", "sign-flipping"]


LONG = "[records]\nfirst = 'FILL'\n".replace("FILL", 70 * "x")


def test_labels_are_unique_where_settings_make_no_short_ones(write_run, tmp_path):
    """Two folders of one name were one line: a comparison of both was left out without a word."""
    texts = {f"{parent}__base": LONG.replace("x'", f"{parent}'") for parent in ("one", "two")}
    assert labels_with(write_run, tmp_path, **texts) == ["base (one)", "base (two)"]
    for place, name in enumerate(("one__base", "two__base")):
        path = tmp_path / name.replace("__", "/") / "metrics.jsonl"
        path.write_text(
            "".join(json.dumps({"seed": s, "round": 0, "return": place + s, "trajectories": 1}) + "\n" for s in (0, 1))
        )
    groups = group_runs([load_run(tmp_path / "one/base"), load_run(tmp_path / "two/base")])
    assert [line[:2] for line in improvement_table(groups, "mean")[1]] == [["base (two)", "base (one)"]]


def test_a_number_tells_apart_what_folders_do_not(tmp_path):
    folder = tmp_path / "base"
    assert labels_of([{}, {}, {}], ["", "", ""], [folder, folder, tmp_path / "base (2)"]) == [
        "base",
        "base (3)",
        "base (2)",
    ]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["x", "y/x", "z/x", "x (y)", "x (2)"])), min_size=1))
def test_no_two_labels_are_equal(drawn):
    settings = [{"budget.rounds": number} for number, _ in enumerate(drawn)]
    folders = [Path(folder) for _, folder in drawn]
    for setups in ([setup for setup, _ in drawn], ["" for _ in drawn]):
        assert len(set(labels_of(settings, setups, folders))) == len(drawn)
    same = [{} for _ in drawn]
    assert len(set(labels_of(same, ["" for _ in drawn], folders))) == len(drawn)


def test_one_setup_before_and_after_a_change_is_told_apart_by_it():
    settings = [{"budget.rounds": 20}, {"budget.rounds": 40}, {"budget.rounds": 20}]
    assert labels_of(settings, ["plain", "plain", "robust"], [Path("a"), Path("b"), Path("c")]) == [
        "plain (budget.rounds=20)",
        "plain (budget.rounds=40)",
        "robust",
    ]


def test_runs_are_called_by_setup_and_seed_or_by_their_folders(write_run, tmp_path):
    for setup, strategy in (("a", "fedpg-br"), ("b", "svrpg")):
        for seed in (0, 1):
            write_run(tmp_path / "sweep" / setup / f"seed-{seed}", seeds=(seed,), strategy=strategy)
    runs = load_runs([tmp_path / "sweep"])
    assert [name for name, _ in named_runs(group_runs(runs))] == ["a, seed 0", "a, seed 1", "b, seed 0", "b, seed 1"]
    write_run(tmp_path / "x" / "mine", seeds=(0, 1, 2))
    write_run(tmp_path / "y" / "mine", seeds=(0, 1, 2), strategy="svrpg")
    runs = [load_run(tmp_path / "x" / "mine"), load_run(tmp_path / "y" / "mine")]
    assert [name for name, _ in named_runs(group_runs(runs))] == ["fedpg-br (mine)", "svrpg (mine)"]
    assert [name for name, _ in named_runs(group_runs(runs[:1]))] == ["mine"]
    assert [name for name, _ in named_runs(group_runs([runs[0], runs[0]]))] == [
        "fedpg-br, CartPole-v1, 10 agents (mine)",
        "fedpg-br, CartPole-v1, 10 agents (mine) (2)",
    ]


def test_a_setups_folder_is_known_before_the_sweep_has_its_record(write_run, tmp_path):
    for setup in ("a", "b"):
        write_run(tmp_path / setup / "seed-0", seeds=(0,), strategy="svrpg" if setup == "a" else "fedpg-br")
        (tmp_path / setup / "seed-0.log").write_text("")
    paths = [tmp_path / "a", tmp_path / "b" / "seed-0"]
    assert [group.label for group in group_runs(load_runs(paths))] == ["a", "b"]
    (tmp_path / "b" / "seed-0.log").unlink()
    assert [group.label for group in group_runs(load_runs(paths))] == ["svrpg", "fedpg-br"]
