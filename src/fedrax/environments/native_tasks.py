"""Native environments of several tasks as one, in which a parameter says which task it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from fedrax.environments.base import NativeEnvironment, Observation, Physics, Spaces, Transition
from fedrax.environments.tasks import TASK, Mixture, task_of


class MixedTasks(NativeEnvironment):
    """The task that the parameter ``task`` says; its state has a place for every task's.

    Mapped over agents of different tasks, every copy computes the steps of all tasks and keeps its own.
    """

    each: tuple[NativeEnvironment, ...]
    mixture: Mixture = eqx.field(static=True)

    @property
    def spaces(self) -> Spaces:  # type: ignore[override]
        """The mixture's."""
        return self.mixture.spaces

    @property
    def time_limit(self) -> int:  # type: ignore[override]
        """The shortest."""
        return min(task.time_limit for task in self.each)

    @property
    def frames_per_second(self) -> int:  # type: ignore[override]
        """The first task's."""
        return self.each[0].frames_per_second

    def physics(self) -> dict[str, float]:
        """The first task, and all tasks' parameters: a name that several have is one parameter."""
        together: dict[str, float] = {}
        for task in reversed(self.each):
            together |= task.physics()
        return together | {TASK: 0}

    def check(self, physics: Mapping[str, float]) -> None:
        """As the task."""
        task = self.each[task_of(physics)]
        task.check({name: physics[name] for name in task.physics()})

    def draw(self, state: PyTree, physics: Mapping[str, float]) -> np.ndarray:
        """The task's picture."""
        task = task_of(physics)
        return self.each[task].draw(state[task], physics)

    def reset(self, key: PRNGKeyArray, physics: Physics) -> tuple[PyTree, Observation]:
        """A fresh state of the task."""
        empty = self._empty(key, physics)

        def fresh(task: int) -> tuple[PyTree, Observation]:
            state, observation = self.each[task].reset(key, physics)
            return _put(empty, task, state), self.mixture.seen(task, observation)

        return self._switch(physics, fresh)

    def step(self, state: PyTree, action: Array, key: PRNGKeyArray, physics: Physics) -> Transition:
        """One step of the task; where some task says when its goal is reached, the others never reach one."""
        each = zip(self.each, state, strict=True)
        trials = [jax.eval_shape(task.step, own, action, key, physics) for task, own in each]
        tells = any(after.success is not None for after in trials)

        def stepped(task: int) -> Transition:
            after = self.each[task].step(state[task], action, key, physics)
            success = after.success if after.success is not None or not tells else jnp.zeros((), bool)
            return Transition(
                _put(state, task, after.state),
                self.mixture.seen(task, after.observation),
                jnp.asarray(after.reward, jnp.float32),
                jnp.asarray(after.terminated, bool),
                success,
            )

        return self._switch(physics, stepped)

    def _switch(self, physics: Physics, verb: Callable[[int], Any]) -> Any:
        number = jnp.asarray(physics[TASK]).astype(jnp.int32)
        return jax.lax.switch(number, [lambda task=task: verb(task) for task in range(len(self.each))])

    def _empty(self, key: PRNGKeyArray, physics: Physics) -> PyTree:
        """A state of every task, of zeros."""
        shapes = tuple(jax.eval_shape(task.reset, key, physics)[0] for task in self.each)
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)


def _put(states: PyTree, task: int, state: PyTree) -> PyTree:
    """The states of all tasks with this one's."""
    typed = jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), state, states[task])
    return (*states[:task], typed, *states[task + 1 :])
