"""MiniGrid's crossings in JAX: rivers of lava or walls across a room, and one gap in each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from fedrax.environments.base import Box, Discrete, NativeEnvironment, Physics, Spaces, Transition
from fedrax.environments.drawing import draw_grid
from fedrax.environments.native import native_environments
from fedrax.environments.native.egocentric import (
    AHEAD,
    BESIDE,
    VIEW_SIZE,
    Bitboard,
    Pose,
    contains,
    forward,
    pack,
    rows_ahead,
    unpack,
    view_mask,
    visible,
)
from fedrax.errors import FedraxError

LEFT, RIGHT, FORWARD = 0, 1, 2
CELLS = VIEW_SIZE * VIEW_SIZE

# As MiniGrid numbers objects and their colours; lava is red, which is 0.
UNSEEN, EMPTY, WALL, GOAL, LAVA = 0, 1, 2, 8, 9
GREEN, GREY = 1, 5

OWN_CELL = np.zeros((VIEW_SIZE, VIEW_SIZE), bool)
OWN_CELL[BESIDE, AHEAD] = True


class CrossingState(NamedTuple):
    """A maze, the agent in it, and the steps of the episode so far, which the reward of the goal depends on."""

    rivers: Bitboard
    """Cells of the rivers that are no gap, whatever they are made of; the walls around the room are not among them."""
    goal_x: Int[Array, ""]
    goal_y: Int[Array, ""]
    agent: Pose
    steps: Int[Array, ""]


class Crossing(NativeEnvironment):
    """What the crossings have in common: everything but the size, the number of rivers and what these are made of.

    Mazes have the distribution of MiniGrid's generator: ``crossings`` of the lines 2, 4, ... of either orientation
    become rivers, all subsets being equally likely. They part the room into smaller ones. A path from room to room,
    right or down in every step and in uniformly random order, crosses each river once, and there is its gap, uniform
    over the cells between the two rooms. The agent starts in a corner, heads east, and is to reach the goal in another
    corner.

    Actions are turn left, turn right and forward; the four others (pick up, drop, toggle, done) pass the time, since
    there is nothing to pick up or to toggle. The reward is ``1 - 0.9 * steps / time_limit`` at the goal and 0
    elsewhere; ``time_limit`` is the registered one, also where a run truncates episodes earlier. Lava ends the
    episode.

    The observation is MiniGrid's ``image``, float32: object (0 unseen, 1 empty, 2 wall, 8 goal, 9 lava), colour
    (0 red, 1 green, 5 grey; 0 where there is no object) and state (always 0) of 7 x 7 cells, indexed from the agent's
    left to its right, then from the farthest row to its own. Nothing is seen behind a wall.
    """

    spaces: ClassVar[Spaces] = Spaces(
        Box((VIEW_SIZE, VIEW_SIZE, 3), (0.0,) * (3 * CELLS), (255.0,) * (3 * CELLS)), Discrete(7)
    )
    time_limit: ClassVar[int] = 324
    frames_per_second: ClassVar[int] = 5
    size: ClassVar[int] = 9
    """Cells along each side of the room, its walls included; odd."""
    crossings: ClassVar[int]
    """Rivers in the room."""
    lava: ClassVar[bool] = False
    """Whether the rivers are lava, which is seen across and deadly, rather than walls."""

    def physics(self) -> dict[str, float]:
        """Which rivers there may be and where the agent goes; whole numbers all, so no scaling makes sense of them.

        ``orientation``: 0 rivers of either orientation, as registered; 1 vertical ones only; 2 horizontal ones only,
        and then as many as there are lines, if ``crossings`` are more. ``start_corner`` and ``goal_corner``: 0 top
        left, 1 top right, 2 bottom right, 3 bottom left.

        Every maze can be solved between every two corners. Between opposite corners the distribution is the registered
        one, mirrored so that the path of gaps begins at the start. Between neighbouring corners, the rivers to be
        crossed have their gaps in the rooms along that side, and the others keep the registered distribution. Start and
        goal must not be the same corner: the agent would begin on its goal, and be rewarded only for leaving it and
            coming back.
        """
        return {"orientation": 0.0, "start_corner": 0.0, "goal_corner": 2.0}

    def check(self, physics: Mapping[str, float]) -> None:
        """Raises :class:`FedraxError` for numbers that name no orientation or corner, or a start on the goal."""
        for name, most in (("orientation", 2), ("start_corner", 3), ("goal_corner", 3)):
            if physics[name] not in range(most + 1):
                raise FedraxError(
                    f"environment.heterogeneity.{name} = {physics[name]:g} is not allowed: "
                    f"give a whole number, 0 to {most}"
                )
        if physics["start_corner"] == physics["goal_corner"]:
            raise FedraxError(
                f"start_corner and goal_corner are both {physics['start_corner']:g}: choose two corners of the maze"
            )

    def draw(self, state: CrossingState, physics: Mapping[str, float]) -> np.ndarray:
        """The maze from above."""
        bits = np.asarray(state.rivers.columns)[:, None] >> np.arange(self.size)
        rivers = bits & 1 == 1
        kinds = np.where(rivers, "lava" if self.lava else "wall", "floor").astype(object)
        kinds[[0, -1]] = kinds[:, [0, -1]] = "wall"
        kinds[int(state.goal_x), int(state.goal_y)] = "goal"
        agent = state.agent
        return draw_grid(kinds.tolist(), (int(agent.x), int(agent.y)), int(agent.heading))

    def reset(self, key: PRNGKeyArray, physics: Physics) -> tuple[CrossingState, Float[Array, "7 7 3"]]:
        """A new maze, with the agent in its corner and heading east."""
        start_right, start_down = _corner(physics["start_corner"])
        goal_right, goal_down = _corner(physics["goal_corner"])
        cells = self._rivers(key, physics["orientation"], start_right != goal_right, start_down != goal_down)
        cells = jnp.where(start_right, cells[::-1], cells)
        cells = jnp.where(start_down, cells[:, ::-1], cells)
        zero = jnp.asarray(0, jnp.int32)
        x, y, goal_x, goal_y = (
            jnp.where(far, self.size - 2, 1).astype(jnp.int32)
            for far in (start_right, start_down, goal_right, goal_down)
        )
        state = CrossingState(pack(cells), goal_x, goal_y, Pose(x, y, zero), zero)
        return state, self._observe(state)

    def step(self, state: CrossingState, action: Array, key: PRNGKeyArray, physics: Physics) -> Transition:
        """Turns or moves the agent, which a wall holds up; ends at the goal and in lava."""
        x, y, heading = state.agent
        step_x, step_y = forward(heading)
        ahead_x, ahead_y = x + step_x, y + step_y
        moves = (action == FORWARD) & contains(self._transparent(state.rivers), ahead_x, ahead_y)
        turn = jnp.where(action == LEFT, 3, jnp.where(action == RIGHT, 1, 0))
        agent = Pose(jnp.where(moves, ahead_x, x), jnp.where(moves, ahead_y, y), (heading + turn) % 4)
        after = state._replace(agent=agent, steps=state.steps + 1)

        arrived = moves & (ahead_x == state.goal_x) & (ahead_y == state.goal_y)
        reward = jnp.where(arrived, 1.0 - 0.9 * (after.steps / self.time_limit), 0.0)
        terminated = arrived
        if self.lava:
            terminated |= moves & contains(state.rivers, ahead_x, ahead_y)
        return Transition(after, self._observe(after), reward, terminated, success=terminated & (reward > 0))

    def _transparent(self, rivers: Bitboard) -> Bitboard:
        """The cells that are no wall: the agent sees through them, and may enter them."""
        inside = jnp.arange(self.size)
        room = jnp.where((inside > 0) & (inside < self.size - 1), (1 << (self.size - 1)) - 2, 0)
        if self.lava:
            return Bitboard(room, room)
        return Bitboard(room & ~rivers.rows, room & ~rivers.columns)

    def _observe(self, state: CrossingState) -> Float[Array, "7 7 3"]:
        agent = state.agent
        transparent = rows_ahead(self._transparent(state.rivers), agent)
        thing = jnp.where(view_mask(agent, state.goal_x, state.goal_y), GOAL, EMPTY)
        if self.lava:
            thing = jnp.where(unpack(rows_ahead(state.rivers, agent), agent.heading), LAVA, thing)
        # MiniGrid shows what the agent carries in place of the cell it stands on: here nothing, even on goal or lava.
        thing = jnp.where(OWN_CELL, EMPTY, thing)
        thing = jnp.where(unpack(transparent, agent.heading), thing, WALL)
        thing = jnp.where(unpack(visible(transparent), agent.heading), thing, UNSEEN)
        colour = jnp.where(thing == WALL, GREY, jnp.where(thing == GOAL, GREEN, 0))
        return jnp.stack((thing, colour, jnp.zeros_like(thing)), -1).astype(jnp.float32)

    def _rivers(
        self, key: PRNGKeyArray, orientation: Float[Array, ""] | float, goes_right: Array, goes_down: Array
    ) -> Bool[Array, "size size"]:
        """The cells (x, y) of the rivers between the top left corner and the one to the right, below, or both."""
        lines = jnp.arange(2, self.size - 2, 2)
        count = lines.shape[0]
        shuffle, places = jax.random.uniform(key, (2, 2 * count))
        allowed = jnp.repeat(jnp.stack([jnp.not_equal(orientation, 2), jnp.not_equal(orientation, 1)]), count)
        rank = _rank(jnp.where(allowed, shuffle, 2.0))
        chosen = allowed & (rank < self.crossings)
        vertical, horizontal = chosen[:count], chosen[count:]

        # The order in which rivers were drawn is uniformly random given which they are, so it is also that of the path.
        times = jnp.arange(self.crossings)
        crosses_vertical = ((rank[:count, None] == times) & vertical[:, None]).any(0)
        crosses_horizontal = ((rank[count:, None] == times) & horizontal[:, None]).any(0)
        # An agent that goes along one side of the room stays in the rooms there, and so do the gaps on its way.
        row = jnp.where(goes_down, _rooms_passed(vertical, crosses_vertical, crosses_horizontal), 0)
        column = jnp.where(goes_right, _rooms_passed(horizontal, crosses_horizontal, crosses_vertical), 0)
        gap_y = _gaps(row, _rooms(horizontal, lines, self.size), places[:count])
        gap_x = _gaps(column, _rooms(vertical, lines, self.size), places[count:])

        coordinates = jnp.arange(self.size)
        inside = (coordinates > 0) & (coordinates < self.size - 1)
        upright = vertical[:, None] & (coordinates != gap_y[:, None]) & inside
        level = horizontal[:, None] & (coordinates != gap_x[:, None]) & inside
        at_line = coordinates == lines[:, None]
        return (at_line[:, :, None] & upright[:, None, :]).any(0) | (at_line[:, None, :] & level[:, :, None]).any(0)


def _corner(number: Array | float) -> tuple[Bool[Array, ""], Bool[Array, ""]]:
    """Whether the corner is on the right, and whether it is at the bottom."""
    return jnp.equal(number, 1) | jnp.equal(number, 2), jnp.greater_equal(number, 2)


def _rank(scores: Float[Array, " n"]) -> Int[Array, " n"]:
    """Each score's place in ascending order; of equal ones the first comes first, so that no place is taken twice."""
    place = jnp.arange(scores.shape[0])
    before = (scores < scores[:, None]) | ((scores == scores[:, None]) & (place < place[:, None]))
    return before.sum(1)


def _rooms_passed(
    rivers: Bool[Array, " n"], crossed: Bool[Array, " t"], others_crossed: Bool[Array, " t"]
) -> Int[Array, " n"]:
    """How many rivers of the other orientation the path has crossed when it comes to each of these."""
    order = jnp.cumsum(rivers) - 1
    own = jnp.cumsum(crossed) - 1
    others = jnp.cumsum(others_crossed)
    return jnp.where(crossed & (own == order[:, None]), others, 0).sum(1)


def _rooms(rivers: Bool[Array, " n"], lines: Int[Array, " n"], size: int) -> Int[Array, " size"]:
    """For each coordinate, between how many of the rivers and the near wall it lies; -1 on rivers and walls."""
    coordinates = jnp.arange(size)
    passed = (rivers[:, None] & (lines[:, None] < coordinates)).sum(0)
    on_river = (rivers[:, None] & (lines[:, None] == coordinates)).any(0)
    return jnp.where(on_river | (coordinates == 0) | (coordinates == size - 1), -1, passed)


def _gaps(room: Int[Array, " n"], rooms: Int[Array, " size"], place: Float[Array, " n"]) -> Int[Array, " n"]:
    """A coordinate in each of these rooms, ``place`` of the way through it."""
    within = rooms == room[:, None]
    return jnp.argmax(within, 1) + jnp.floor(place * within.sum(1)).astype(jnp.int32)


@native_environments.register("MiniGrid-SimpleCrossingS9N1-v0")
class SimpleCrossingS9N1(Crossing):
    """One wall across a room of 9 x 9 cells."""

    crossings: ClassVar[int] = 1


@native_environments.register("MiniGrid-SimpleCrossingS9N2-v0")
class SimpleCrossingS9N2(Crossing):
    """Two walls across a room of 9 x 9 cells."""

    crossings: ClassVar[int] = 2


@native_environments.register("MiniGrid-SimpleCrossingS9N3-v0")
class SimpleCrossingS9N3(Crossing):
    """Three walls across a room of 9 x 9 cells."""

    crossings: ClassVar[int] = 3


@native_environments.register("MiniGrid-SimpleCrossingS11N5-v0")
class SimpleCrossingS11N5(Crossing):
    """Five walls across a room of 11 x 11 cells."""

    size: ClassVar[int] = 11
    crossings: ClassVar[int] = 5
    time_limit: ClassVar[int] = 484


@native_environments.register("MiniGrid-LavaCrossingS9N1-v0")
class LavaCrossingS9N1(SimpleCrossingS9N1):
    """One river of lava across a room of 9 x 9 cells."""

    lava: ClassVar[bool] = True


@native_environments.register("MiniGrid-LavaCrossingS9N2-v0")
class LavaCrossingS9N2(SimpleCrossingS9N2):
    """Two rivers of lava across a room of 9 x 9 cells."""

    lava: ClassVar[bool] = True


@native_environments.register("MiniGrid-LavaCrossingS9N3-v0")
class LavaCrossingS9N3(SimpleCrossingS9N3):
    """Three rivers of lava across a room of 9 x 9 cells."""

    lava: ClassVar[bool] = True


@native_environments.register("MiniGrid-LavaCrossingS11N5-v0")
class LavaCrossingS11N5(SimpleCrossingS11N5):
    """Five rivers of lava across a room of 11 x 11 cells."""

    lava: ClassVar[bool] = True
