"""Sweeps: what a file means."""

import json

import pytest

import fedrax
from fedrax.cli import main
from fedrax.errors import FedraxError
from fedrax.sweeps.attempts import arguments_of
from fedrax.sweeps.plan import read_plan
from fedrax.sweeps.tasks import Task

from sweep_files import TINY, written


def test_a_file_becomes_setups_times_seeds(tmp_path):
    path = written(
        tmp_path,
        """
        seeds = [3, 5]
        jobs = 4
        [setups.plain]
        [setups.robust]
        attack.kind = "alie"
        "attack.agents" = 1
        set = ["aggregator=krum"]
        [setups.other]
        preset = "fedpg-br/halfcheetah"
        """,
    )
    plan = read_plan(path)
    assert [setup.name for setup in plan.setups] == ["plain", "robust", "other"]
    assert [(job.setup.name, *job.seeds) for job in plan.jobs[:4]] == [
        ("plain", 3),
        ("robust", 3),
        ("other", 3),
        ("plain", 5),
    ]
    robust = plan.jobs[4]
    assert robust.overrides[len(TINY) :] == (
        "attack.kind=alie",
        "attack.agents=1",
        "aggregator=krum",
        "seeds=1",
        "seed=5",
    )
    assert robust.config == fedrax.resolve("fedpg-br/cartpole", robust.overrides)
    assert robust.config.aggregator["kind"] == "krum"
    assert robust.directory == tmp_path / "out" / "robust" / "seed-5"
    assert robust.log == tmp_path / "out" / "robust" / "seed-5.log"
    assert plan.jobs[2].config.environment.id.startswith("HalfCheetah")
    assert plan.at_once == 4
    assert read_plan(path, jobs=1).at_once == 1


def test_where_a_sweep_lies_and_how_many_seeds_it_has(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('preset = "fedpg-br/cartpole"\nseeds = 2\n[setups.a]')
    assert [str(job.directory) for job in read_plan(path).jobs] == [
        f"runs/sweeps/mine/a/seed-{seed}" for seed in (0, 1)
    ]


def test_a_sweep_without_a_preset_changes_the_defaults(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        '[set]\nenvironment = "CartPole-v1"\nlearner = "ppo"\nbudget.rounds = 3\n[setups.a]\nstrategy = "fedavg"'
    )
    (job,) = read_plan(path).jobs
    assert (job.config.learner["kind"], job.config.strategy["kind"]) == ("ppo", "fedavg")
    assert arguments_of(Task(job))[:2] == ["train", "environment=CartPole-v1"]


def test_a_preset_beside_the_file_is_found(tmp_path):
    (tmp_path / "base.toml").write_text("budget.rounds = 7")
    (job,) = read_plan(written(tmp_path, "[setups.a]", preset="base.toml", changes=[])).jobs
    assert job.config.budget.rounds == 7


def test_a_grid_multiplies_every_setup(tmp_path):
    plan = read_plan(
        written(
            tmp_path,
            """
            [setups.a]
            federation.agents = 9
            [setups.b]
            [grid]
            federation.agents = [3, 4]
            "learner.hidden" = [[8], [16, 16]]
            """,
        )
    )
    assert [setup.name for setup in plan.setups][:3] == [
        "a,federation.agents=3,learner.hidden=-8-",
        "a,federation.agents=3,learner.hidden=-16-16-",
        "a,federation.agents=4,learner.hidden=-8-",
    ]
    assert len(plan.jobs) == 8
    assert plan.jobs[0].config.federation.agents == 3
    assert list(plan.jobs[1].config.learner["hidden"]) == [16, 16]


def test_a_grid_alone_is_of_the_preset(tmp_path):
    plan = read_plan(written(tmp_path, "[grid]\nfederation.agents = [3, 4]\nstrategy.batch_max = [3]"))
    assert [job.setup.name for job in plan.jobs] == [
        "federation.agents=3,strategy.batch_max=3",
        "federation.agents=4,strategy.batch_max=3",
    ]
    assert [job.config.federation.agents for job in plan.jobs] == [3, 4]


@pytest.mark.parametrize(
    "value", [True, 3, 2.5e-4, "plain", "3", "two words", 'a "quote"', ["a", 1.5], {"low": 0.5, "x y": [1, "2"]}, None]
)
def test_values_survive_as_overrides(value):
    from fedrax.config import parse_override
    from fedrax.sweeps.plan import override

    found = parse_override(override("environment.heterogeneity", [value]))["environment"]["heterogeneity"]
    assert found == [value] or value is None
    assert parse_override(override("x.y", value))["x"]["y"] == ("none" if value is None else value)


@pytest.mark.parametrize(
    ("text", "needles"),
    [
        ("[setups.a]\n[setups.last]\nfederation.agent = 3", ["setup 'last'", "did you mean 'agents'"]),
        ('[setups.last]\nset = ["attack=alias"]', ["setup 'last'", "did you mean 'alie'"]),
        ('[setups.last]\npreset = "fedpg-br/cartpol"', ["setup 'last'", "did you mean 'fedpg-br/cartpole'"]),
        ("", ["no setups", "[setups.NAME]"]),
        ("[grid]", ["no setups", "[setups.NAME]"]),
        ("[setups.a]\n[setups.A]", ["two setups", "'a' and 'A'", "one folder"]),
        ("setup.a = 1", ["unknown key 'setup'", "did you mean 'setups'"]),
        ("seeds = 0\n[setups.a]", ["seeds = 0", "from 1"]),
        ("seeds = [1, 1]\n[setups.a]", ["seeds = [1, 1]", "different"]),
        ("jobs = true\n[setups.a]", ["jobs = True", "whole number"]),
        ("setups = 3", ["setups = 3", "table"]),
        ("[setups]\na = 3", ["setups.a = 3", "table"]),
        ("num_seeds = 3\n[setups.a]", ["unknown key 'num_seeds'", "did you mean 'seeds'"]),
        ("learner.discount = 0.9\n[setups.a]", ["learner is a setting of runs", "[set]"]),
        ("budget.rounds = 3\n[setups.a]", ["budget is a setting of runs", "[set]"]),
        ("[setups.'a/b']", ["'a/b'", "letters"]),
        ("[setups.'..']", ["'..'", "letters"]),
        ("[setups.'']", ["''", "letters"]),
        (f"[setups.{'a' * 256}]", ["at most 255 characters"]),
        ("[setups.a]\nseed = 3", ["setup 'a'", "seed"]),
        ("[setups.a]\nset = 3", ["setups.a.set = 3", "key=value"]),
        ('[setups.a]\nset = ["attack"]', ["'attack'", "key=value"]),
        ("[setups.a]\n[grid]\nfederation.agents = 3", ["grid.federation.agents = 3", "list"]),
        ('[setups.a]\n[grid]\nname = ["a b", "a/b"]', ["two setups", "a,name=a-b"]),
        ("[setups.a", ["not valid TOML"]),
    ],
)
def test_a_mistake_in_a_file_is_one_line(tmp_path, capsys, text, needles):
    path = written(tmp_path, text)
    assert main(["sweep", str(path)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for needle in [str(path), *needles]:
        assert needle in error
    assert not (tmp_path / "out").exists()


OWN = ["sweep.json", "Sweep.json", "search.json", "error.txt", "report.html", "report.png", "report-2.pdf"]
OWN += ["sweep.damaged.json", "sweep.damaged-2.json"]


@pytest.mark.parametrize("name", OWN)
def test_no_setup_takes_the_name_of_a_file_of_the_sweep(tmp_path, capsys, name):
    path = written(tmp_path, f"[setups.first]\n[setups.{json.dumps(name)}]")
    assert main(["sweep", str(path)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{name!r} cannot be a setup's name: {tmp_path / 'out' / name.lower()} is a file of the sweep" in error
    assert not (tmp_path / "out").exists()


def test_a_file_that_lies_where_a_setups_runs_would_is_told_before_any_trains(tmp_path):
    path = written(tmp_path, "[setups.first]\n[setups.notes]")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes").write_text("mine")
    with pytest.raises(FedraxError, match=r"'notes' cannot be a setup's name: .*/out/notes is a file"):
        read_plan(path)


def test_a_mistake_on_the_command_line_is_one_line(tmp_path, capsys):
    path = str(written(tmp_path, "[setups.a]"))
    for arguments, needle in (
        ([path, "--jobs", "0"], "jobs = 0"),
        ([path, "--retry", "-1"], "retry = -1"),
        ([str(tmp_path / "nothing.toml")], "No such file"),
    ):
        assert main(["sweep", *arguments]) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert needle in error
