"""Sweeps: which seeds train in one run, and what earlier runs of a folder make of it."""

import json
import re

import pytest

import fedrax
from fedrax.cli import main
from fedrax.errors import FedraxError
from fedrax.sweeps import grouping
from fedrax.sweeps.grouping import grouped, most_together
from fedrax.sweeps.plan import read_plan
from fedrax.sweeps.tasks import read_progress, tasks_of

from sweep_files import written


def runs_of(path, jobs=1):
    return [job.directory.relative_to(job.directory.parents[1]).as_posix() for job in read_plan(path, jobs=jobs).jobs]


def begin(*folders):
    """Runs that have begun."""
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "config.toml").write_text("")


def test_the_seeds_of_a_setup_are_one_run(tmp_path):
    path = written(tmp_path, "seeds = 10\n[setups.a]\n[setups.b]", together=True)
    plan = read_plan(path, jobs=2)
    assert [job.name for job in plan.jobs] == ["a seeds 0 to 9", "b seeds 0 to 9"]
    assert plan.jobs[0].overrides[-2:] == ("seeds=10", "seed=0")
    assert plan.jobs[0].config.all_seeds == tuple(range(10))
    assert plan.jobs[0].directory == tmp_path / "out" / "a" / "seeds-0-9"


def test_seeds_that_do_not_follow_one_another_are_runs_of_their_own(tmp_path):
    path = written(tmp_path, "seeds = [3, 4, 9]\n[setups.a]", together=True)
    assert runs_of(path) == ["a/seeds-3-4", "a/seed-9"]


def test_no_core_is_idle_where_there_are_fewer_setups(tmp_path):
    path = written(tmp_path, "seeds = 8\n[setups.a]", together=True)
    assert runs_of(path, jobs=4) == ["a/seeds-0-1", "a/seeds-2-3", "a/seeds-4-5", "a/seeds-6-7"]


def test_a_file_says_how_many_seeds_a_run_has(tmp_path, capsys):
    path = written(tmp_path, "seeds = 3\nseeds_per_run = 2\n[setups.a]", together=True)
    assert runs_of(path) == ["a/seeds-0-1", "a/seed-2"]
    path = written(tmp_path, "seeds = 3\nseeds_per_run = 0\n[setups.a]", together=True)
    assert main(["sweep", str(path)]) == 1
    assert "seeds_per_run = 0 is not allowed: give a whole number from 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("preset", "change"),
    [
        ("fedpg-br/cartpole", "environment.native=false"),
        ("fedpg-br/cartpole", "environment.heterogeneity={length = {distribution = 'uniform', low = 0.4, high = 0.6}}"),
        ("fedpg-br/cartpole", "runtime=flower"),
        ("fedpg-br/cartpole", "video.every=10"),
        ("fedppo/simple-crossing", "strategy.topology=random strategy.degree=1"),
    ],
)
def test_seeds_whose_runs_would_draw_otherwise_train_alone(tmp_path, preset, change):
    (job,) = read_plan(written(tmp_path, "[setups.a]", preset=preset, changes=re.split(r" (?=strategy)", change))).jobs
    assert most_together(job.config, at_once=1) == 1


def test_a_graph_that_two_seeds_happen_to_share_is_drawn_all_the_same(tmp_path):
    # Of two agents, every connected graph is the same.
    changes = ["strategy.topology=random", "strategy.degree=1", "federation.agents=2"]
    (job,) = read_plan(written(tmp_path, "[setups.a]", preset="fedppo/simple-crossing", changes=changes)).jobs
    assert most_together(job.config, at_once=1) == 1


@pytest.mark.parametrize("changes", [["strategy=clustered"], ["strategy=similarity"], ["strategy.topology=ring"]])
def test_what_binds_without_drawing_trains_together(tmp_path, changes):
    (job,) = read_plan(written(tmp_path, "[setups.a]", preset="fedppo/simple-crossing", changes=changes)).jobs
    assert most_together(job.config, at_once=1) == grouping.MOST_SEEDS


def test_a_strategy_of_ones_own_that_binds_and_says_nothing_trains_alone():
    plain = fedrax.resolve("fedpg-br/cartpole", ["strategy=fedavg", "learner=ppo", "aggregator=mean"]).component(
        "strategy"
    )
    own = type("Own", (type(plain),), {"bind": lambda self, agents, seed: self})
    assert not plain.draws
    assert own().draws


def test_replays_fit_into_the_memory(tmp_path, monkeypatch):
    changes = ["environment=Pendulum-v1", "learner=td3", "strategy=fedavg", "aggregator=mean", "federation.agents=10"]
    changes += ["learner.actor_layers=[1]", "learner.feature_layers=[1]", "learner.head_layers=[1]"]
    (job,) = read_plan(written(tmp_path, "[setups.a]", changes=changes)).jobs
    learner = job.config.component("learner")
    assert learner.actor_layers == (1,)  # So that a state is little more than its replays.
    each = 10 * learner.memory_bytes(grouping.describe_run(job.config)[0].spaces)
    monkeypatch.setattr(grouping, "machine_memory", lambda: 17 * each)
    assert most_together(job.config, at_once=1) == 8
    assert most_together(job.config, at_once=2) == 4


def test_networks_fit_into_the_memory(tmp_path, monkeypatch):
    changes = ["environment=Pendulum-v1", "learner=td3", "strategy=fedavg", "aggregator=mean", "federation.agents=10"]
    changes += [
        "learner.actor_layers=[512, 512]",
        "learner.feature_layers=[512]",
        "learner.head_layers=[512]",
        "learner.buffer_size=1000",
        "learner.batch_size=10",
    ]
    (job,) = read_plan(written(tmp_path, "[setups.a]", changes=changes)).jobs
    actor, critic = (inputs * 512 + 512 + 512 * 512 + 512 + 512 + 1 for inputs in (3, 4))
    networks = 10 * 4 * (actor + 2 * critic)
    monkeypatch.setattr(grouping, "machine_memory", lambda: 40 * networks)
    # An agent has networks, their targets and two moments of each; the server has some too.
    assert 2 <= most_together(job.config, at_once=1) <= 5


def test_runs_of_an_earlier_version_go_on_and_the_rest_trains_together(tmp_path):
    out = tmp_path / "out" / "a"
    begin(out / "seed-0", out / "seed-3")
    path = written(tmp_path, "seeds = 7\n[setups.a]", together=True)
    assert runs_of(path) == ["a/seed-0", "a/seed-3", "a/seeds-1-2", "a/seeds-4-6"]
    # A record of that version says nothing of several seeds.
    entry = {"setup": "a", "seed": 0, "attempts": 3, "seconds": 5.0}
    (tmp_path / "out" / "sweep.json").write_text(json.dumps({"jobs": [entry]}))
    for folder in ("seed-0", "seed-3"):
        (job,) = (job for job in read_plan(path).jobs if job.directory.name == folder)
        (out / folder / "config.toml").write_text(job.config.to_toml())
    assert [task.attempts for task in tasks_of(read_plan(path, jobs=1))] == [3, 0, 0, 0]


def test_more_seeds_are_added_to_a_finished_sweep(tmp_path):
    begin(tmp_path / "seeds-0-4")
    assert grouped(range(10), tmp_path, together=100, parts=1) == [tuple(range(5)), tuple(range(5, 10))]


def test_a_run_of_more_seeds_than_are_asked_for_is_refused(tmp_path):
    begin(tmp_path / "seeds-0-4")
    with pytest.raises(FedraxError, match="seeds-0-4 is a run of seeds 0 to 4, of which the sweep has only some"):
        grouped(range(3), tmp_path, together=100, parts=1)


def test_progress_is_that_of_all_seeds(tmp_path):
    changes = ["budget.trajectories=none", "budget.rounds=10"]
    (job,) = read_plan(written(tmp_path, "seeds = 2\n[setups.a]", changes=changes, together=True), jobs=1).jobs
    rows = [
        {"seed": seed, "round": n, "return": 10.0 * seed + n, "total_steps": 100, "seconds": 2.0}
        for n in range(5)
        for seed in (0, 1)
    ]
    records = tmp_path / "metrics.jsonl"
    records.write_text("\n".join(map(json.dumps, rows[:-1])))
    found = read_progress(records, job.config)
    assert (found.fraction, found.last_return, found.steps, found.seconds) == (0.4, (4.0 + 13.0) / 2, 200, 2.0)
