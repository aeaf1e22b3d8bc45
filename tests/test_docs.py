"""The code in the documentation runs, and what it registers trains."""

import re
from pathlib import Path

import pytest

import fedrax

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    """The page's code blocks as one file, as a user would write them."""
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "extending.md").read_text(), re.DOTALL)
    assert len(blocks) == 4
    path = tmp_path_factory.mktemp("plugin") / "mine.py"
    path.write_text("\n".join(blocks))
    return path


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
