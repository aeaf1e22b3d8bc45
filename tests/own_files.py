"""A user's own files, in a folder of their own, and a process that has not seen them yet."""

import shutil
import sys
from pathlib import Path

import gymnasium
import pytest

OWN = Path(__file__).parent / "own"

TINY = [
    "learner=ppo",
    "learner.hidden=[8]",
    "learner.num_steps=8",
    "learner.update_epochs=1",
    "strategy=fedavg",
    "environment.num_envs=2",
    "federation.agents=2",
    "budget.rounds=1",
    "checkpoint.every=1",
    "evaluation.episodes=2",
]


class Project:
    """A folder with a user's files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._before = set(sys.modules), list(sys.path), dict(gymnasium.registry)

    def copy(self, *names: str) -> None:
        """Copies of files from ``tests/own``."""
        for name in names:
            shutil.copy(OWN / name, self.path / name)

    def write(self, name: str, text: str) -> Path:
        """A file with this text."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def forget(self) -> None:
        """Makes this process what a fresh one is: no plugin was imported."""
        modules, paths, registered = self._before
        for name in set(sys.modules) - modules:
            file = getattr(sys.modules[name], "__file__", None)
            if file is not None and Path(file).is_relative_to(self.path.parent):
                del sys.modules[name]
        sys.path[:] = paths
        gymnasium.registry.clear()
        gymnasium.registry.update(registered)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A user's folder, which is the current one."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    made = Project(folder)
    yield made
    made.forget()
