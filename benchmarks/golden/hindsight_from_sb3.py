"""Writes tests/learners/golden_hindsight.json: the goals that Stable-Baselines3's HerReplayBuffer puts in place.

Run it in an environment of its own (``pip install stable-baselines3==2.9.*``); the project does not depend on it. Two
copies of an environment whose every state has a number of its own play three episodes each; whatever the buffer
then samples is written down once: state before and after, goal, reward, and whether the state is terminal.
"""

from __future__ import annotations

import json
from pathlib import Path

import gymnasium
import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.her import HerReplayBuffer

LENGTHS = ((3, 4, 2), (5, 1, 4))
"""Steps of each copy's episodes; the last of each runs on."""
TARGET = Path(__file__).parents[2] / "tests" / "learners" / "golden_hindsight.json"


class Numbered(gymnasium.Env):
    """The rule of the goals: reached within half a number."""

    def __init__(self) -> None:
        line = gymnasium.spaces.Box(-1e6, 1e6, (1,), np.float32)
        self.observation_space = gymnasium.spaces.Dict(
            {"observation": line, "achieved_goal": line, "desired_goal": line}
        )
        self.action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def compute_reward(self, achieved: np.ndarray, desired: np.ndarray, info: object) -> np.ndarray:
        """0 at the goal, else -1."""
        return -(np.linalg.norm(achieved - desired, axis=-1) >= 0.5).astype(np.float32)


def seen(copy: int, episode: int, step: int) -> dict[str, float]:
    """A state's three parts: 1000 for each episode of each copy, and 1 for each step."""
    number = 1 + copy + 2 * episode
    return {
        "observation": 1000.0 * number + step,
        "achieved_goal": 1000.0 * number + step,
        "desired_goal": -1000.0 * number,
    }


def rows(copy: int) -> list[tuple[dict[str, float], dict[str, float], bool]]:
    """One copy's steps: before, after, and whether the episode ends by its time limit."""
    return [
        (seen(copy, episode, step), seen(copy, episode, step + 1), step == length - 1 and episode < 2)
        for episode, length in enumerate(LENGTHS[copy])
        for step in range(length)
    ]


def column(parts: list[dict[str, float]]) -> dict[str, np.ndarray]:
    """Both copies' observations."""
    return {name: np.array([[part[name]] for part in parts], np.float32) for name in parts[0]}


def sampled(kind: str) -> list[list[float]]:
    """Everything that the buffer gives with another goal."""
    environments = DummyVecEnv([Numbered] * 2)
    buffer = HerReplayBuffer(
        64,
        environments.observation_space,
        environments.action_space,
        environments,
        device="cpu",
        n_envs=2,
        n_sampled_goal=4,
        goal_selection_strategy=kind,
    )
    # The copies' steps are as many, so that both are added at once.
    for first, second in zip(rows(0), rows(1)[:9], strict=True):
        both = first, second
        buffer.add(
            column([row[0] for row in both]),
            column([row[1] for row in both]),
            np.zeros((2, 1), np.float32),
            np.full(2, -1.0, np.float32),
            np.array([row[2] for row in both]),
            [{"TimeLimit.truncated": row[2]} for row in both],
        )
    np.random.seed(0)  # noqa: NPY002 - the buffer draws from it
    found = set()
    for _ in range(400):
        batch = buffer.sample(64)
        columns = (
            *(batch.observations["achieved_goal"], batch.next_observations["achieved_goal"]),
            *(batch.observations["desired_goal"], batch.rewards, batch.dones),
        )
        found |= {tuple(map(float, row)) for row in np.concatenate([part.numpy() for part in columns], 1)}
    return sorted(list(row) for row in found if row[2] > 0)


def main() -> None:
    """Writes the table."""
    golden = {kind: sampled(kind) for kind in ("future", "final", "episode")}
    TARGET.write_text(json.dumps({"lengths": LENGTHS, **golden}) + "\n")


if __name__ == "__main__":
    main()
