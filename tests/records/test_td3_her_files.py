"""The TD3+HER reference's files: what stands in them, and that they follow the rows whatever happened."""

import csv

import numpy as np
import pytest

import fedrax
from fedrax.errors import FedraxError
from fedrax.records.metrics import MetricsWriter
from fedrax.records.rundir import RunDirectory
from fedrax.records.td3_her import TD3HERFiles
from fedrax.runtime.make import make_runtime

SETTINGS = {"learning_rate": 1e-3, "discount": 0.98, "tau": 0.005, "batch_size": 256, "rounds": 20, "horizon": 50}
SETTINGS |= {"target_noise": 0.2, "target_noise_clip": 0.5, "policy_delay": 2, "activation": "relu"}
HEADER = "episode_rewards,success_rates,actor_losses,critic_losses,q1_values,q2_values\n"


def files(folder, environments=("FetchPush-v4", "FetchSlide-v4", "FetchPush-v4"), seeds=(0,)):
    return TD3HERFiles(folder, tuple(seeds), tuple(environments), SETTINGS)


def row(number, returns, success, seed=0, losses=None):
    """A row of the log for as many agents as ``returns`` has."""
    filled = {} if losses is None else {f"agent_train_{name}": values for name, values in losses.items()}
    told = {} if success is None else {"agent_train_success": success}
    return {"seed": seed, "round": number, **told, "agent_episode_returns": returns, **filled}


LOSSES = {"actor_loss": [1.5, None], "critic_loss": [0.25, None], "value": [-3.0, None], "second_value": [-2.0, None]}


def test_a_row_is_an_episode_and_what_a_round_has_once_stands_in_its_first_row(tmp_path):
    written = files(tmp_path, ("FetchPush-v4", "FetchSlide-v4"))
    written.rewrite([row(0, [[-50.0, -49.0], []], [0.0, None])])
    written.append([row(1, [[], [-7.0]], [None, 1.0], losses=LOSSES), row(2, [[], []], None)])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "Success rate.csv",
        "hyperparameters_FetchPush-v4_0.csv",
        "hyperparameters_FetchSlide-v4_1.csv",
        "metrics_FetchPush-v4_0.csv",
        "metrics_FetchSlide-v4_1.csv",
    ]
    assert (tmp_path / "metrics_FetchPush-v4_0.csv").read_text() == (
        HEADER + "-50.0,0.0,,,,\n-49.0,,,,,\n,,1.5,0.25,-3.0,-2.0\n"
    )
    assert (tmp_path / "metrics_FetchSlide-v4_1.csv").read_text() == HEADER + "-7.0,1.0,,,,\n"
    assert (tmp_path / "Success rate.csv").read_text() == "FetchPush-v4 1,FetchSlide-v4 1\n0.0,\n,1.0\n,\n"
    assert (tmp_path / "hyperparameters_FetchPush-v4_0.csv").read_text() == (
        "actor_lr,critic_lr,discount,tau,batch_size,epochs,episodes_per_epoch,max_timesteps,policy_noise,noise_clip,"
        "policy_freq\n0.001,0.001,0.98,0.005,256,20,,50,0.2,0.5,2\n"
    )


def test_agents_of_one_task_are_numbered_and_one_agent_has_no_suffix(tmp_path):
    files(tmp_path / "three").rewrite([])
    header = (tmp_path / "three" / "Success rate.csv").read_text()
    assert header == "FetchPush-v4 1,FetchSlide-v4 1,FetchPush-v4 2\n"
    assert (tmp_path / "three" / "metrics_FetchPush-v4_2.csv").read_text() == HEADER
    files(tmp_path / "one", ["FetchReach-v4"]).rewrite([])
    names = ["Success rate.csv", "hyperparameters.csv", "metrics.csv"]
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == names
    files(tmp_path / "odd", ["robots:space/Fetch-v1"] * 2).rewrite([])
    assert (tmp_path / "odd" / "metrics_robots-space-Fetch-v1_1.csv").exists()


def test_every_seed_has_a_folder(tmp_path):
    written = files(tmp_path, ["FetchReach-v4"], seeds=[3, 4])
    written.rewrite([row(0, [[-1.0]], None, seed=3)])
    written.append([row(0, [[-2.0]], [0.5], seed=4)])
    assert (tmp_path / "seed_3" / "metrics.csv").read_text() == HEADER + "-1.0,,,,,\n"
    assert (tmp_path / "seed_4" / "metrics.csv").read_text() == HEADER + "-2.0,0.5,,,,\n"
    # A line without a number is not an empty line, which many readers skip.
    assert (tmp_path / "seed_3" / "Success rate.csv").read_text() == 'FetchReach-v4 1\n""\n'


def test_a_resumed_run_has_the_same_files(tmp_path):
    rows = [row(number, [[-1.0 * number], [-2.0, 0.5]], [0.0, 0.5]) for number in range(5)]

    def write(folder, parts):
        directory = RunDirectory(folder)
        folder.mkdir()
        for done, part in parts:
            further = files(directory.td3_her, ["FetchPush-v4", "FetchSlide-v4"])
            with MetricsWriter(directory, resume_round=done, further=[further]) as writer:
                for each in part:
                    writer.write([each])
        return {path.name: path.read_bytes() for path in directory.td3_her.iterdir()}

    whole = write(tmp_path / "whole", [(0, rows)])
    # Four rounds were done, the checkpoint was after two.
    assert write(tmp_path / "resumed", [(0, rows[:4]), (2, rows[2:])]) == whole
    assert len(whole) == 5


SMALL = [
    *("environment=PointReach-v0", "environment.num_envs=2", "federation.agents=2", "federation.local_updates=3"),
    *("learner=td3", "learner.num_steps=20", "learner.learning_starts=100", "learner.batch_size=8"),
    *("learner.updates_per_step=1", "learner.buffer_size=400", "learner.hindsight=future", "strategy=fedavg"),
    *("learner.actor_layers=[8]", "learner.feature_layers=[8]", "learner.head_layers=[8]"),
    *("evaluation.every=2", "evaluation.episodes=2", "checkpoint.every=2", "records.csv_layout=td3-her"),
]


def columns(path):
    with path.open(newline="") as file:
        return {name: list(column) for name, *column in zip(*csv.reader(file), strict=True)}


def numbers(column):
    return [float(cell) for cell in column if cell]


@pytest.mark.training
def test_a_run_writes_what_its_rows_say_and_goes_on_with_the_same_files(tmp_path):
    whole = fedrax.train({}, [*SMALL, "budget.rounds=4"], out=tmp_path / "whole", progress=False)
    fedrax.train({}, [*SMALL, "budget.rounds=2"], out=tmp_path / "parts", progress=False)
    fedrax.resume(tmp_path / "parts", ["budget.rounds=4"], progress=False)
    names = sorted(path.name for path in (tmp_path / "whole" / "td3-her").iterdir())
    for name in names:
        assert (tmp_path / "parts/td3-her" / name).read_bytes() == (tmp_path / "whole/td3-her" / name).read_bytes()
    assert len(names) == 5

    rows = whole.metrics()
    spreadsheet = columns(tmp_path / "whole/td3-her/Success rate.csv")
    returns, losses = [], []
    for agent in range(2):
        table = columns(tmp_path / f"whole/td3-her/metrics_PointReach-v0_{agent}.csv")
        returns.append(numbers(table["episode_rewards"]))
        losses.append(numbers(table["critic_losses"]))
        # 60 steps a round of two copies, 51 an episode and its reset: four rounds end four episodes in each.
        assert len(returns[-1]) == 8
        assert numbers(spreadsheet[f"PointReach-v0 {agent + 1}"]) == numbers(table["success_rates"])
        # A copy that never touches its goal has -50, and one that does has more.
        shares = [row["agent_train_success"][agent] for row in rows]
        touched = sum(value > -50 for value in returns[-1])
        episodes = [len(row["agent_episode_returns"][agent]) for row in rows]
        assert np.dot(shares, episodes) == pytest.approx(touched)
    total = sum(row["train_return"] * len(np.hstack(row["agent_episode_returns"])) for row in rows)
    assert total == pytest.approx(np.sum(returns), rel=1e-5)
    # Before learning starts there is no loss; then the mean over agents is the row's.
    known = [row["critic_loss"] for row in rows if row["critic_loss"] is not None]
    assert known == pytest.approx(np.mean(losses, 0), rel=1e-5)
    assert len(known) == len(numbers(columns(tmp_path / "whole/td3-her/metrics_PointReach-v0_0.csv")["q2_values"])) > 0


def test_another_layout_is_refused_and_so_is_a_learner_without_critics():
    with pytest.raises(FedraxError, match=r"records.csv_layout = 'flower' is not allowed: .*'fedrax' or 'td3-her'"):
        fedrax.resolve({}, ["budget.rounds=1", "records.csv_layout=flower"])
    config = fedrax.resolve({}, ["budget.rounds=1", "learner=ppo", "strategy=fedavg", "records.csv_layout=td3-her"])
    with pytest.raises(
        FedraxError, match=r"twin critics, which learner 'ppo' has not; set learner to one of: sac, td3, or"
    ):
        make_runtime(config)
