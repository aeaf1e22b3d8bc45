"""Hindsight experience replay (Andrychowicz et al., 2017): transitions of goals that an episode achieved.

Goals are exchanged when transitions are sampled, inside the compiled update: the reward of the next state under the new
goal is the environment's own rule (:class:`~fedrax.environments.goals.Goal`). Only finished episodes are sampled.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from fedrax.environments.base import Box, Dict, Spaces, Steps
from fedrax.environments.goals import ACHIEVED, DESIRED, Goal
from fedrax.learners.replay import Transitions, packed, row_widths, transitions_by_copy, unpacked

Hindsight = Literal["none", "future", "final", "episode", "reference"]
REFERENCE_GOALS = 4
"""Transitions that the TD3+HER reference relabels in an episode, or all of a shorter one.

It stores them beside the episode's own, so that it draws an episode of L steps by its L + 4 rows, where it is drawn by
L here. Of episodes of equal length, such as its tasks have, that is the same.
"""


class HindsightReplay(eqx.Module):
    """The last transitions of each copy of the environment, oldest overwritten first.

    A copy's rows are in the order of time, so the steps of an episode lie side by side. Of an episode that is
    overwritten in part the first steps go first; goals are drawn from those that are left, never across its seam.
    """

    rows: Float[Array, "copies capacity width"]
    step: Int[Array, "copies capacity"]
    """Each transition's place in its episode."""
    left: Int[Array, "copies capacity"]
    """Transitions that follow it in its episode; -1 while the episode runs."""
    cursor: Int[Array, " copies"]
    """Where each copy's next row goes."""
    size: Int[Array, " copies"]
    """Rows filled so far."""
    running: Int[Array, " copies"]
    """Of these, the newest, those of the episode that still runs."""
    last: Float[Array, "copies o"]
    """What each copy's newest transition led to: read from the rows, it would cost a copy of all of them, as they are
    written in the same program."""
    space: Dict = eqx.field(static=True)
    goal: Goal = eqx.field(static=True)
    kind: Hindsight = eqx.field(static=True)
    ratio: float = eqx.field(static=True)
    """Share of a minibatch whose goals are exchanged."""
    horizon: int = eqx.field(static=True)
    """Steps of the longest episode."""
    minimum_reward: float | None = eqx.field(static=True, default=None)
    """Rewards of exchanged goals below this are raised to it, as those remembered were."""

    @property
    def sampled(self) -> Int[Array, ""]:
        """How many transitions are sampled from: those of finished episodes."""
        return (self.size - self.running).sum()

    def remember(self, steps: Steps, minimum_reward: float | None = None) -> HindsightReplay:
        """The replay with the steps that are experience; rewards below ``minimum_reward`` are raised to it.

        An episode that does not go on where the last collection stopped was given up, and counts as finished.
        """
        new, _ = packed(self.space, transitions_by_copy(steps, minimum_reward))
        mine = (self.rows, self.step, self.left, self.cursor, self.size, self.running, self.last)
        add = jax.vmap(self._remembered, in_axes=(0,) * len(mine) + (1, 1, 1))
        rows, step, left, cursor, size, running, last = add(*mine, new, steps.valid, steps.over)
        return dataclasses.replace(
            self, rows=rows, step=step, left=left, cursor=cursor, size=size, running=running, last=last
        )

    def _remembered(
        self,
        rows: Array,
        step: Array,
        left: Array,
        cursor: Array,
        size: Array,
        running: Array,
        last: Array,
        new: Array,
        valid: Array,
        over: Array,
    ) -> tuple[Array, ...]:
        """One copy's arrays with ``T`` rows more."""
        capacity, width = rows.shape[0], last.shape[0]
        continues = valid[0] & (last == new[0, :width]).all()
        kept = jnp.where(continues, running, 0)
        count = jnp.cumsum(valid, dtype=jnp.int32)
        never = jnp.iinfo(jnp.int32).max

        # Where the episode of each new row ended before, and will end, counted in new rows; `never` if not yet.
        ended = jax.lax.cummax(jnp.where(over, count, 0))
        before = jnp.concatenate([jnp.zeros(1, jnp.int32), ended[:-1]])
        first = jnp.concatenate([jnp.zeros(1, bool), jnp.cumsum(over)[:-1] > 0])
        end = jax.lax.cummin(jnp.where(over, count, never), reverse=True)

        place = jnp.where(valid, (cursor + count - 1) % capacity, capacity)
        rows = rows.at[place].set(new, mode="drop")
        step = step.at[place].set(count - 1 - before + jnp.where(first, 0, kept), mode="drop")
        left = left.at[place].set(jnp.where(end == never, -1, end - count), mode="drop")

        # The earlier rows of an episode that ends here, or was given up, are told how far they are from its end.
        back = jnp.arange(min(self.horizon, capacity), dtype=jnp.int32)
        known = (back < running) & (~continues | (end[0] != never))
        place = jnp.where(known, (cursor - 1 - back) % capacity, capacity)
        left = left.at[place].set(back + jnp.where(continues, end[0], 0), mode="drop")

        total = count[-1]
        newest = valid.shape[0] - 1 - jnp.argmax(valid[::-1])
        last = jnp.where(total > 0, new[newest, -width - 1 : -1], last)
        running = jnp.where(ended[-1] > 0, total - ended[-1], kept + total)
        return rows, step, left, (cursor + total) % capacity, jnp.minimum(size + total, capacity), running, last

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Transitions:
        """Transitions drawn uniformly with replacement, leaves ``[*shape, ...]``; meaningless where there are none.

        The goals of the first :attr:`ratio` of the last axis are exchanged.
        """
        row_key, goal_key, chance_key = jax.random.split(key, 3)
        copy, number = self._drawn(row_key, shape)
        place = self._place(copy, number)
        transitions = unpacked(self.space, self.rows[copy, place], None)
        step, left = self.step[copy, place], self.left[copy, place]
        achieved = self._achieved(copy, self._place(copy, self._goal_number(goal_key, number, step, left)))
        if self.kind == "reference":
            length = step + left + 1
            goals = jnp.minimum(REFERENCE_GOALS, length)
            chosen = jax.random.uniform(chance_key, shape) * (length + goals) < goals
        else:
            chosen = jnp.broadcast_to(jnp.arange(shape[-1]) < round(self.ratio * shape[-1]), shape)
        return self._exchanged(transitions, achieved, chosen)

    def _drawn(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """Copies, and places among each one's transitions of finished episodes, from the oldest."""
        ends = jnp.cumsum(self.size - self.running)
        index = jax.random.randint(key, shape, 0, jnp.maximum(ends[-1], 1))
        copy = jnp.minimum(jnp.searchsorted(ends, index, side="right"), ends.shape[0] - 1)
        return copy, index - jnp.where(copy > 0, ends[copy - 1], 0)

    def _place(self, copy: Array, number: Array) -> Array:
        """The row of a copy's transition by its number from the oldest."""
        return (self.cursor[copy] - self.size[copy] + number) % self.rows.shape[1]

    def _goal_number(self, key: PRNGKeyArray, number: Array, step: Array, left: Array) -> Array:
        """The transition of the same episode that the new goal is of."""
        last = number + left
        if self.kind == "final":
            return last
        first = number - jnp.minimum(step, number) if self.kind == "episode" else number
        return first + jax.random.randint(key, number.shape, 0, jnp.maximum(last - first + 1, 1))

    def _achieved(self, copy: Array, place: Array) -> Array:
        """The goal achieved after a transition's action; the reference takes that before it."""
        names = [name for name, _ in self.space.parts]
        sizes = [math.prod(part.shape) for _, part in self.space.parts]
        before = sum(sizes[: names.index(ACHIEVED)])
        begin = before if self.kind == "reference" else self.rows.shape[-1] - 1 - _observed(self.space) + before
        columns = begin + jnp.arange(sizes[names.index(ACHIEVED)])
        return self.rows[copy[..., None], place[..., None], columns]

    def _exchanged(self, transitions: Transitions, goal: Array, chosen: Array) -> Transitions:
        """The transitions with these goals where chosen, and what follows from them."""
        before: Any = transitions.observation
        after: Any = transitions.next_observation
        goal = jnp.where(chosen[..., None], goal, before[DESIRED])
        if self.kind == "reference":
            reward, terminated = self.goal.reward(goal, goal), jnp.ones_like(transitions.reward)
        else:
            reward, terminated = self.goal.reward(after[ACHIEVED], goal), transitions.terminated
            if self.goal.ends:
                terminated = self.goal.success(after[ACHIEVED], goal).astype(jnp.float32)
        if self.minimum_reward is not None:
            reward = jnp.maximum(reward, self.minimum_reward)
        return Transitions(
            before | {DESIRED: goal},
            transitions.action,
            jnp.where(chosen, reward, transitions.reward),
            after | {DESIRED: goal},
            jnp.where(chosen, terminated, transitions.terminated),
        )


def _observed(space: Box | Dict) -> int:
    """Numbers of one observation."""
    return sum(math.prod(part.shape) for part in jax.tree.leaves(space.tree))


def empty_hindsight(
    spaces: Spaces,
    capacity: int,
    *,
    copies: int,
    horizon: int,
    kind: Hindsight,
    ratio: float,
    minimum_reward: float | None = None,
) -> HindsightReplay:
    """A replay without transitions of so many copies, ``capacity`` of all together, in spaces that have a goal."""
    each = capacity // copies
    zeros = jnp.zeros((copies, each), jnp.int32)
    none = jnp.zeros(copies, jnp.int32)
    rows = jnp.zeros((copies, each, row_widths(spaces)[0]))
    last = jnp.zeros((copies, _observed(spaces.observation)))
    space: Any = spaces.observation
    goal: Any = spaces.goal
    return HindsightReplay(
        rows, zeros, zeros, none, none, none, last, space, goal, kind, ratio, horizon, minimum_reward
    )


def hindsight_bytes(spaces: Spaces, capacity: int) -> int:
    """Memory that one agent's replay takes."""
    return capacity * (4 * row_widths(spaces)[0] + 8)
