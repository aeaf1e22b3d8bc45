"""The public API and the command line on short native runs."""

import base64
import json
import math
import re
import shutil
import subprocess
import sys

import gymnasium
import numpy as np
import pytest

import fedrax
from fedrax.cli import main
from fedrax.printing import summary_lines

SHORT = ["budget.trajectories=none", "budget.rounds=12", "evaluation.episodes=3", "checkpoint.every=4"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "short"
    return fedrax.train("fedpg-br/cartpole", SHORT, seeds=2, out=out, progress=False)


def test_run_directory_holds_everything(run):
    names = {path.name for path in run.path.iterdir()}
    assert names >= {
        "config.toml",
        "manifest.json",
        "metrics.jsonl",
        "metrics.csv",
        "tensorboard",
        "checkpoints",
        "policy.safetensors",
        "best.safetensors",
        "summary.json",
    }
    assert {path.name for path in (run.path / "tensorboard").iterdir()} == {"seed_0", "seed_1"}


@pytest.mark.training
def test_overrides_alone_train_the_defaults(tmp_path, capsys):
    settings = ["budget.rounds=1", "environment.horizon=20", "evaluation.episodes=1", "federation.agents=2"]
    assert main(["train", *settings, "--out", str(tmp_path / "run"), "--quiet"]) == 0
    config = fedrax.load(tmp_path / "run").config
    assert (config.environment.id, config.federation.agents, config.budget.rounds) == ("CartPole-v1", 2, 1)
    assert main(["train", "attack=none"]) == 1
    assert "no budget: set budget.rounds" in capsys.readouterr().err


def test_summary_counts_what_the_rows_count(run):
    summary, rows = run.summary(), run.metrics()
    assert summary["rounds"] == [12, 12]
    for index, seed in enumerate(summary["seeds"]):
        mine = [row for row in rows if row["seed"] == seed]
        assert [row["round"] for row in mine] == list(range(12))
        last = mine[-1]
        for name in ("trajectories", "total_steps", "gradient_steps", "bytes_up", "server_trajectories"):
            assert summary[name][index] == last[name]
        assert summary["final_return"][index] == last["return"]
        assert summary["best_return"][index] == max(row["return"] for row in mine)


def test_rows_are_in_one_order(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "run")
    lines = (run.path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(lines[1::2] + lines[::2]))
    assert fedrax.load(tmp_path / "run").metrics() == run.metrics()


def test_an_evaluation_of_the_best_says_how_it_was_chosen(run, capsys):
    best = ", ".join(f"{value:,.1f}" for value in run.summary()["best_return"])

    def said(*arguments):
        assert main(["evaluate", str(run.path), "--episodes", "3", *arguments]) == 0
        lines = capsys.readouterr().out.splitlines()
        return lines[:-1], lines[-1]

    same, line = said("--policy", "best")
    assert line.startswith(
        f"best_return was {best} over the 3 episodes that this policy was chosen by, and these begin"
    )
    assert line.endswith("--evaluation-seed 90211 gives others")
    for value, told in zip(run.summary()["best_return"], same, strict=True):
        assert f"return {value:.2f} " in told, "the same episodes"
    others, line = said("--policy", "best", "--evaluation-seed", "90211")
    assert line.endswith("these episodes begin in other initial states")
    assert others != same
    assert "best_return" not in said("--policy", "last")[1]


def test_costs_add_up(run):
    for row in run.metrics():
        assert row["total_steps"] == row["agent_steps"] + row["server_steps"]
        assert row["total_trajectories"] == row["agent_trajectories"] + row["server_trajectories"]
    parameters = 4 * 16 + 16 + 16 * 16 + 16 + 16 * 2 + 2
    last = run.metrics()[-1]
    assert last["bytes_up"] == 12 * 4 * parameters
    assert last["bytes_down"] == 12 * (4 * parameters + 4)


def test_trajectories_follow_the_references_count(run):
    """K B + b N over K + 1, rounded: from the round's own numbers, b = 4 and N = gradient steps."""
    rows = [row for row in run.metrics() if row["seed"] == 0]
    names = ("trajectories", "agent_trajectories", "gradient_steps")
    before = dict.fromkeys(names, 0)
    for row in rows:
        spent = {name: row[name] - before[name] for name in names}
        expected = round((spent["agent_trajectories"] + 4 * spent["gradient_steps"]) / 11)
        assert spent["trajectories"] == expected
        before = row


@pytest.mark.training
def test_seeds_trained_together_equal_seeds_trained_alone(run, tmp_path):
    alone = fedrax.train("fedpg-br/cartpole", [*SHORT, "seed=1"], out=tmp_path / "alone", progress=False)
    together = [row for row in run.metrics() if row["seed"] == 1]
    for ours, theirs in zip(together, alone.metrics(), strict=True):
        assert ours["trajectories"] == theirs["trajectories"]
        assert ours["train_return"] == pytest.approx(theirs["train_return"], rel=0.05)


def test_evaluation_is_the_same_every_time(run):
    first, second = run.evaluate(episodes=5), run.evaluate(episodes=5)
    assert sorted(first) == [0, 1]
    for seed in first:
        np.testing.assert_array_equal(first[seed].returns, second[seed].returns)
    evaluated = run.evaluate(episodes=3)
    assert evaluated[0].returns.mean() == pytest.approx(run.summary()["final_return"][0])


def test_a_run_says_what_it_is(run, tmp_path):
    mean = np.mean(run.summary()["final_return"])
    text = repr(run)
    assert text.startswith(f"<Run {run.path}: fedpg-br, policy-gradient, CartPole-v1, 10 agents, ")
    assert ", seeds 0 to 1, final return" in text
    assert f"final return {mean:,.6g} ± " in text
    shutil.copytree(run.path, tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    assert repr(fedrax.load(tmp_path / "run")).endswith("seeds 0 to 1, not finished>")


def test_a_summary_says_what_its_numbers_count(run):
    summary, lines = run.summary(), {line[:18].strip(): line[19:] for line in summary_lines(run)}
    (per_agent, other), (sampled, more) = summary["trajectories"], summary["total_trajectories"]
    assert lines["trajectories"] == (
        f"{per_agent:,}, {other:,} per agent (reference count); sampled by all: {sampled:,}, {more:,}"
    )
    assert sampled > 5 * per_agent, "ten agents sample"
    one, two = (round(total / 12) for total in summary["bytes_up"])
    assert lines["bytes_up"].endswith(f" per agent; a round, on average: {one:,}, {two:,}")
    assert "bytes_down" in lines
    assert lines["final_return"].endswith(" mean over evaluation.episodes = 3")
    assert lines["best_return"].endswith(" of the run's evaluations, evaluation.episodes = 3 each")


def test_a_notebook_shows_a_run_as_a_table_and_its_curve(run, tmp_path):
    page = run._repr_html_()
    rows = re.findall(r"<th[^>]*>(.*?)</th><td[^>]*>(.*?)</td>", page)
    assert ("environment", "CartPole-v1") in rows
    assert [name for name, _ in rows][:2] == ["run", "strategy"]
    picture = re.search(r'src="data:image/png;base64,(.*?)"', page)[1]
    assert base64.b64decode(picture).startswith(b"\x89PNG")
    # Before anything was recorded, and of a name that is markup.
    bare = tmp_path / "<b>run"
    bare.mkdir()
    shutil.copy(run.path / "config.toml", bare)
    page = fedrax.load(bare)._repr_html_()
    assert "&lt;b&gt;run" in page
    assert "not finished" in page
    assert "<img" not in page


def test_the_curve_of_a_run_is_a_figure(run, tmp_path):
    figure = run.figure("round", title="short")
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("rounds", "evaluation return")
    assert figure.get_suptitle() == "short"
    figure.savefig(tmp_path / "curve.svg")
    assert figure._repr_png_().startswith(b"\x89PNG")
    for unknown in ("rounds", ""):
        with pytest.raises(fedrax.FedraxError, match=r"allowed: .*round"):
            run.figure(unknown)


def test_a_frame_has_a_row_for_each_seed_and_round(run):
    pandas = pytest.importorskip("pandas")
    frame = run.frame()
    assert isinstance(frame, pandas.DataFrame)
    assert len(frame) == len(run.metrics()) == 24
    rows = [row for row in run.metrics() if row["seed"] == 1]
    assert frame[frame["seed"] == 1]["trajectories"].tolist() == [row["trajectories"] for row in rows]


def test_without_pandas_there_is_no_frame_but_a_line(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(fedrax.FedraxError, match=r'pip install "fedrax\[pandas\]", or take the rows of metrics'):
        run.frame()


def test_a_trained_policy_holds_the_pole_as_long_as_its_evaluation_says(run):
    """A few episodes by hand in Gymnasium: the same policies, and near the returns that were measured in JAX."""
    policy, environment = run.policy(seed=1), gymnasium.make("CartPole-v1")
    returns = []
    for number in range(20):
        observation, _ = environment.reset(seed=number)
        steps, over = 0, False
        while not over:
            observation, _, terminated, truncated, _ = environment.step(policy(observation))
            steps, over = steps + 1, terminated or truncated
        returns.append(steps)
    measured = run.evaluate(episodes=50)[1].returns
    assert abs(np.mean(returns) - measured.mean()) < 4 * measured.std() / math.sqrt(20)


def test_a_run_that_goes_on_acts_by_its_last_checkpoint(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "run")
    for name in ("policy.safetensors", "best.safetensors", "summary.json"):
        (tmp_path / "run" / name).unlink()
    batch, going = np.random.default_rng(0).normal(size=(200, 4)), fedrax.load(tmp_path / "run")
    for best in (False, True):
        np.testing.assert_array_equal(going.policy(seed=1, best=best)(batch), run.policy(seed=1, best=best)(batch))


def test_best_policy_earns_the_best_return(run):
    best = run.evaluate(episodes=3, policy="best")
    for index, seed in enumerate(run.config.all_seeds):
        assert best[seed].returns.mean() == pytest.approx(run.summary()["best_return"][index])


def test_a_policy_that_is_best_at_the_end_is_the_best_one(tmp_path):
    """Where the last round has no evaluation of its own."""
    run = fedrax.train(
        "fedpg-br/cartpole",
        [*SHORT, "budget.rounds=4", "evaluation.every=3", "environment.horizon=60", "learner.learning_rate=0.03"],
        seeds=4,
        out=tmp_path / "run",
        progress=False,
    )
    best, summary, rows = run.evaluate(episodes=3, policy="best"), run.summary(), run.metrics()
    ends = 0
    for index, seed in enumerate(run.config.all_seeds):
        assert best[seed].returns.mean() == pytest.approx(summary["best_return"][index])
        *before, last = [row["return"] for row in rows if row["seed"] == seed and "return" in row]
        assert last == summary["final_return"][index], "the last row has the evaluation at the end"
        ends += summary["best_return"][index] > max(before)
    assert ends > 0, "no seed's last policy was its best"


def test_a_run_directory_is_not_overwritten(run):
    with pytest.raises(fedrax.FedraxError, match="already holds a run"):
        fedrax.train("fedpg-br/cartpole", SHORT, out=run.path, progress=False)


def test_resuming_a_finished_run_changes_nothing(run):
    before = (run.path / "metrics.jsonl").read_bytes()
    assert fedrax.resume(run.path, progress=False).summary() == run.summary()
    assert (run.path / "metrics.jsonl").read_bytes() == before


def test_commands(run, capsys, tmp_path):
    assert main(["evaluate", str(run.path), "--episodes", "2"]) == 0
    assert "seed 1: return" in capsys.readouterr().out
    assert main(["report", str(run.path), "--out", str(tmp_path / "r.html")]) == 0
    assert "<html" in (tmp_path / "r.html").read_text()
    assert main(["render", str(run.path), "--out", str(tmp_path / "video")]) == 0
    assert (tmp_path / "video.gif").stat().st_size > 1000
    assert (tmp_path / "video.mp4").stat().st_size > 1000
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    for name in ("fedpg-br/cartpole", "krum", "alie", "svrpg", "policy-gradient", "CartPole-v1"):
        assert name in listed


@pytest.mark.parametrize(
    "name", ["fedpg-br", "fedpg-filter", "alie", "federation", "runtime", "attack", "fedpg-br/cartpole"]
)
def test_describe_names_every_option(name, capsys):
    assert main(["describe", name]) == 0
    assert len(capsys.readouterr().out.splitlines()) > 1


def test_describe_shows_meaning_unit_and_default(capsys):
    main(["describe", "fedpg-br"])
    text = capsys.readouterr().out
    assert "strategy.minibatch = 4   [integer, >= 1, trajectories]" in text
    assert 'strategy.mode = "reference"   [reference | paper]' in text


@pytest.mark.parametrize("seed", [-1, 2**31])
def test_an_evaluation_seed_that_cannot_be_counted_is_one_line(run, seed, capsys):
    assert main(["evaluate", str(run.path), "--evaluation-seed", str(seed)]) == 1
    error = capsys.readouterr().err
    assert error == f"fedrax: --evaluation-seed {seed} is not allowed: it must be between 0 and 2147483647\n"


def test_help_does_not_wait_for_jax():
    code = "import sys; from fedrax import cli; cli.grammar(cli.COMMANDS).format_help(); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_manifest_says_what_made_the_run(run):
    manifest = json.loads((run.path / "manifest.json").read_text())
    assert manifest["seeds"] == [0, 1]
    assert manifest["config_hash"] == run.config.digest()
    assert manifest["ended"] is not None


WITHOUT_EXTRAS = """
import sys

EXTRAS = ("flwr", "cryptography", "uvicorn", "starlette", "envpool", "minigrid", "gymnasium_robotics", "mujoco")
EXTRAS += ("Box2D", "dp_accounting", "torch", "metaworld", "onnx", "pandas")


class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in EXTRAS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Missing())
from fedrax.cli import main

run = sys.argv[1]
settings = ["environment.horizon=5", "budget.trajectories=none", "budget.rounds=1", "evaluation.episodes=1"]
settings += ["attack=none", "attack.agents=0"]
settings += ["federation.agents=3", "strategy=gpomdp", "strategy.batch=1", "learner.hidden=[2]"]
settings += ["privacy.clip=1", "privacy.secure_sum=true"]
main(["train", "fedpg-br/cartpole", *settings, "--out", run, "--quiet"])
main(["audit", run, "--attacks", "A6", "--quiet"])
main(["report", run, "--out", run + ".html"])
"""


@pytest.mark.training
def test_what_the_core_does_needs_no_extra(tmp_path):
    """The first commands of the README are run in an installation without any."""
    command = [sys.executable, "-c", WITHOUT_EXTRAS, str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "final_return" in done.stdout
    assert "trajectories" in done.stdout
    assert (tmp_path / "run.html").is_file()


def test_importing_the_interface_needs_no_extra():
    code = WITHOUT_EXTRAS.partition("from fedrax.cli")[0] + "import fedrax.api"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
