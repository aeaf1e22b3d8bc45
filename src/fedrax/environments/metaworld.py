"""Meta-World's tasks (Yu et al., 2020; version 3 by Farama), by EnvPool or by the package ``metaworld``.

Ids are EnvPool's: ``MetaWorld/WindowClose-v3``. The package is no part of ``fedrax[all]``: it wants a version of MuJoCo
that breaks others. Where it is installed, its tasks are registered under the same ids.

Here the goal is seen unless ``environment.kwargs.partially_observable=true`` hides it, as in Meta-World's MT and ML
benchmarks respectively; EnvPool alone hides it by default.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from fedrax.errors import FedraxError, unknown

PREFIX = "MetaWorld/"
TASKS = [
    "assembly",
    "basketball",
    "bin-picking",
    "box-close",
    "button-press",
    "button-press-topdown",
    "button-press-topdown-wall",
    "button-press-wall",
    "coffee-button",
    "coffee-pull",
    "coffee-push",
    "dial-turn",
    "disassemble",
    "door-close",
    "door-lock",
    "door-open",
    "door-unlock",
    "drawer-close",
    "drawer-open",
    "faucet-close",
    "faucet-open",
    "hammer",
    "hand-insert",
    "handle-press",
    "handle-press-side",
    "handle-pull",
    "handle-pull-side",
    "lever-pull",
    "peg-insert-side",
    "peg-unplug-side",
    "pick-out-of-hole",
    "pick-place",
    "pick-place-wall",
    "plate-slide",
    "plate-slide-back",
    "plate-slide-back-side",
    "plate-slide-side",
    "push",
    "push-back",
    "push-wall",
    "reach",
    "reach-wall",
    "shelf-place",
    "soccer",
    "stick-pull",
    "stick-push",
    "sweep",
    "sweep-into",
    "window-close",
    "window-open",
]
MT10 = [
    "reach",
    "push",
    "pick-place",
    "door-open",
    "drawer-open",
    "drawer-close",
    "button-press-topdown",
    "peg-insert-side",
    "window-open",
    "window-close",
]
HORIZON = 500
"""Steps of an episode; the package refuses to go on."""
DEFAULTS = {"partially_observable": False}
"""What EnvPool must be told to show the goal."""


def id_of(task: str) -> str:
    """The id of a task by its name, with or without its version.

    Raises:
        FedraxError: there is no such task.
    """
    name = task.removesuffix("-v3")
    if name not in TASKS:
        raise unknown("task of Meta-World: environment.task =", task, TASKS)
    return f"{PREFIX}{''.join(word.capitalize() for word in name.split('-'))}-v3"


def spelled_out(environment: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration's table ``environment`` with ids in place of the short forms of Meta-World's.

    ``task = "window-close"`` stands for ``id``, ``tasks = "MT10"`` for a list.

    Raises:
        FedraxError: no such task, or a task beside another id.
    """
    table = dict(environment)
    if table.get("tasks") == "MT10":
        table["tasks"] = [id_of(task) for task in MT10]
        table.setdefault("id", table["tasks"][0])
    elif isinstance(table.get("tasks"), str):
        raise FedraxError(
            f"environment.tasks = {table['tasks']!r} is not allowed: give a list of environments, or MT10 for "
            "Meta-World's ten tasks"
        )
    task = table.pop("task", None)
    if task is None:
        return table
    id = id_of(str(task))
    if table.get("id", id) != id:
        raise FedraxError(
            f"environment.task = {task!r} stands for environment.id = {id!r}, and environment.id = {table['id']!r} is "
            "set beside it: leave one out"
        )
    return table | {"id": id}


def is_metaworld(id: str) -> bool:
    """Whether the id looks like one of Meta-World's."""
    return id.startswith(PREFIX)


def load_metaworld(id: str) -> None:
    """Registers the task with Gymnasium; does nothing where it is registered, or nobody knows it."""
    if id in gymnasium.registry:
        return
    for task in TASKS:
        if id == id_of(task):
            entry = f"{__name__}:make_task"
            gymnasium.register(id, entry_point=entry, max_episode_steps=HORIZON, kwargs={"task": task, **DEFAULTS})


def metaworld_missing(id: str) -> FedraxError:
    """The error where nobody can step the task ``id``."""
    return FedraxError(
        f'environment {id!r} needs a package that is not installed: pip install "fedrax[envpool]", or '
        '"fedrax[metaworld]" in an environment of its own'
    )


def make_task(task: str, *, partially_observable: bool = False, render_mode: str | None = None) -> gymnasium.Env:
    """The package's environment of a task, whose resets follow their seeds."""
    if importlib.util.find_spec("metaworld") is None:
        raise gymnasium.error.DependencyNotInstalled("metaworld is not installed")
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    made = ALL_V3_ENVIRONMENTS[f"{task}-v3"](render_mode=render_mode)
    made._partially_observable = partially_observable
    return SeededTask(made)


class SeededTask(gymnasium.Wrapper):
    """One of the package's tasks, whose goals are drawn from the seeds of its resets.

    The package ignores these seeds, and draws two goals in a reset, of which it shows the first in the first
    observation of some tasks. So a goal is drawn in a first reset, by the task's own rules, and set in a second one.
    """

    def __init__(self, environment: gymnasium.Env) -> None:
        super().__init__(environment)
        # The space was kept when the task was made, with the goal hidden.
        vars(environment).pop("sawyer_observation_space", None)
        self.observation_space = environment.get_wrapper_attr("sawyer_observation_space")
        self._generator = np.random.default_rng()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """A goal from the seed, or the next of the last seed's."""
        if seed is not None:
            self._generator = np.random.default_rng(seed)
        task: Any = self.env.unwrapped
        task._set_task_called = True
        task.seeded_rand_vec, task._freeze_rand_vec = True, False
        task.seed(int(self._generator.integers(2**31 - 1)))
        self.env.reset(options=options)
        task._freeze_rand_vec = True
        return self.env.reset(options=options)
