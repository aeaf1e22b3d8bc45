"""The code in the documentation runs, and what it registers trains."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

import fedrax
from fedrax.aggregators.base import Aggregator, PreAggregator
from fedrax.attacks.base import Attack
from fedrax.compression.base import Compression
from fedrax.config import resolve
from fedrax.environments.base import NativeEnvironment
from fedrax.learners.base import EpisodeLearner, Learner
from fedrax.registry import options_of
from fedrax.runtime.make import make_runtime
from fedrax.strategies.base import Strategy
from fedrax.trees import ravel_rows

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    """The page's code blocks as one file, as a user would write them."""
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "extending.md").read_text(), re.DOTALL)
    assert len(blocks) == 8
    path = tmp_path_factory.mktemp("plugin") / "mine.py"
    path.write_text("\n".join(blocks))
    return path


@pytest.mark.training
def test_extending_page_trains(plugin, tmp_path):
    run = fedrax.train(
        "fedpg-br/cartpole",
        [
            f'plugins=["{plugin}"]',
            "strategy=momentum",
            "strategy.batch=8",
            "aggregator=sign-majority",
            "aggregator.step=0.05",
            "attack=mimic",
            "attack.agents=1",
            "compression=coarse",
            'records.loggers=["lines"]',
            "records.loggers.lines.prefix=round-",
            "environment=Corridor-v0",
            "environment.horizon=50",
            "environment.heterogeneity.drift=[0.0, 0.05, 0.1, -0.05]",
            "federation.agents=4",
            "budget.rounds=20",
            "budget.trajectories=none",
            "learner.learning_rate=0.05",
        ],
        out=tmp_path / "run",
        progress=False,
    )
    rows = run.metrics()
    assert len(rows) == 20
    assert rows[-1]["return"] > rows[0]["return"] or rows[-1]["return"] == 50.0
    assert rows[-1]["byzantine"] == 1
    lines = (run.path / "lines-0.txt").read_text().splitlines()
    assert lines[-1] == f"round-19 {rows[-1]['return']}"
    assert len(lines) == 20


@pytest.mark.training
def test_the_pages_learner_learns(plugin, tmp_path):
    run = fedrax.train(
        {},
        [
            *(
                f'plugins=["{plugin}"]',
                "learner=standardised-reinforce",
                "learner.learning_rate=0.02",
                "strategy=fedavg",
            ),
            *("environment=CartPole-v1", "environment.horizon=100", "federation.agents=3", "budget.rounds=30"),
            *("evaluation.every=30", "checkpoint.every=30"),
        ],
        out=tmp_path / "run",
        progress=False,
    )
    assert run.summary()["final_return"] > 50, "a random policy lasts 22 steps"


@pytest.mark.training
def test_the_pages_reference_policy_holds_agents_near_it(plugin):
    def after(weight):
        settings = ["strategy=fedavg-kl", f"strategy.divergence_weight={weight}", "learner=policy-gradient"]
        settings += ["learner.optimizer=sgd", "learner.learning_rate=0.1", "environment=CartPole-v1"]
        settings += ["environment.horizon=20", "federation.agents=2", "federation.local_updates=4", "budget.rounds=1"]
        settings += ["strategy.batch=4", "checkpoint.every=1", "evaluation.episodes=2", f'plugins=["{plugin}"]']
        runtime = make_runtime(resolve({}, settings))
        before = runtime.init()
        start = ravel_rows(before.server.params)[0]
        ((state, _),) = runtime.advance(before, 0)
        return np.linalg.norm(ravel_rows(state.server.params)[0] - start)

    assert 0 < after(3.0) < after(0.0)


def public(cls):
    """What a class and its bases declare, less what Python and Equinox do."""
    own = {name for base in cls.__mro__ if base.__module__.startswith("fedrax") for name in vars(base)}
    options = set(options_of(cls)) if dataclasses.is_dataclass(cls) else set()
    return {name for name in own if not name.startswith("_")} - options - {"name"} | {"__call__"} & own


@pytest.mark.parametrize(
    ("row", "cls", "more"),
    [
        ("aggregator", Aggregator, {"f", "demand"}),
        ("pre-aggregator", PreAggregator, set()),
        ("attack", Attack, {"applied", "on_messages", "on_statistics"}),
        ("compression", Compression, set()),
        ("strategy", Strategy, {"hands_out_own"}),
        ("learner", Learner, {"episodic", "first_params", "networks"}),
        ("learner of whole episodes", EpisodeLearner, {"episodic", "first_params", "networks"}),
        ("environment", NativeEnvironment, set()),
    ],
)
def test_the_table_of_verbs_is_complete(row, cls, more):
    """``more`` are not to be overridden."""
    lines = {}
    for line in (DOCS / "extending.md").read_text().splitlines():
        if line.startswith("| ") and line.count("|") == 4:
            name, must, may = (cell.strip() for cell in line.strip("|").split("|"))
            lines[name] = (set(re.findall(r"`(\w+)`", must)), set(re.findall(r"`(\w+)`", may)))
    must, may = lines[row]
    if row == "learner of whole episodes":
        may |= lines["learner"][1] | {"learn"}
    abstract = set(getattr(cls, "__abstractmethods__", ()))
    assert must >= abstract
    if row != "environment":
        assert must == abstract
    declared = public(cls) | set(cls.__annotations__) if row == "environment" else public(cls)
    assert (must | may) - declared == set(), "the page names what there is not"
    assert declared - must - may - more == set(), "the page leaves out what there is"


def test_architecture_names_files_that_exist():
    layout = re.search(r"## Layout\n\n```\n(.*?)```", (DOCS / "architecture.md").read_text(), re.DOTALL)
    root = Path(fedrax.__file__).parent
    for line in layout.group(1).splitlines()[1:]:
        folder, *names = line.split()
        base = root / folder if folder.endswith("/") else root
        for name in names if folder.endswith("/") else [folder, *names]:
            if name.endswith(".py"):
                assert (base / name).is_file(), name
            elif folder.endswith("/") and name not in ("one", "TOML", "per") and "(" not in name and ")" not in name:
                found = (base / f"{name.rstrip('/')}.py").is_file() or (base / name).is_dir()
                assert found or folder in ("aggregators/", "attacks/", "presets/"), f"{folder}{name}"
