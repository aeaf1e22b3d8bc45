"""Gymnasium-Robotics: its tasks by their ids, and what EnvPool must be told to make the same ones.

The package is imported here alone, and when one of its ids is asked for: importing it registers nothing, takes half a
second and prints a notice.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re

import gymnasium

from fedrax.environments.base import Dict, Spaces, has_goals
from fedrax.environments.goals import DESIRED, Goal, found_goal
from fedrax.environments.metaworld import DEFAULTS as METAWORLD
from fedrax.environments.metaworld import is_metaworld

FAMILIES = re.compile(r"(Fetch|HandReach|HandManipulate|PointMaze|AntMaze|AdroitHand|FrankaKitchen)\w*-v\d+")
"""Ids of the package."""
FETCH = re.compile(r"Fetch(Reach|Push|PickAndPlace|Slide)(Dense)?-v\d+")
SLIDE_JOINT = {"Reach": 0.4049, "Push": 0.405, "PickAndPlace": 0.405, "Slide": 0.05}
"""Where the robot stands at first, in m. EnvPool registers 0.4049 for all: its FetchSlide is another task, a fifth of
whose goals lie past the table's edge."""
FETCH_THRESHOLD = 0.05
"""Metres from its goal within which Fetch succeeds."""


def load_robotics(id: str) -> bool:
    """Registers the package's environments where ``id`` is one of them; returns whether it is registered now."""
    if id in gymnasium.registry:
        return True
    if FAMILIES.fullmatch(id) and importlib.util.find_spec("gymnasium_robotics") is not None:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            import gymnasium_robotics

            gymnasium.register_envs(gymnasium_robotics)
    return id in gymnasium.registry


def envpool_defaults(id: str) -> dict[str, float]:
    """Options by which EnvPool's ``id`` becomes Gymnasium-Robotics' task, or Meta-World's with the goal seen."""
    if is_metaworld(id):
        return dict(METAWORLD)
    matched = FETCH.fullmatch(id)
    return {"initial_slide0": SLIDE_JOINT[matched[1]]} if matched else {}


def goal_of(id: str, spaces: Spaces, environment: gymnasium.Env | None) -> Goal | None:
    """The rule by which ``id`` rewards; without an environment to ask, that of the tasks that EnvPool has.

    None for what is no goal environment, or is not known.

    Raises:
        NoRule: the reward is no function of the distance to the goal.
    """
    observation = spaces.observation
    if not isinstance(observation, Dict) or not has_goals(observation):
        return None
    if environment is not None:
        return found_goal(environment, observation.tree[DESIRED].shape[0])
    matched = FETCH.fullmatch(id)
    if matched is None:
        return None
    return Goal("distance", FETCH_THRESHOLD) if matched[2] else Goal("sparse", FETCH_THRESHOLD, inclusive=True)
