"""Gymnasium's BipedalWalker with obstacles of its own in every instance; importing this needs Box2D."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from Box2D import b2World
from gymnasium.envs.box2d.bipedal_walker import (
    SCALE,
    TERRAIN_GRASS,
    TERRAIN_HEIGHT,
    TERRAIN_LENGTH,
    TERRAIN_STARTPAD,
    TERRAIN_STEP,
    BipedalWalker,
)
from gymnasium.utils import EzPickle

GRASS, STUMP, STAIRS, PIT = range(4)
STAIR_WIDTH = 4
"""Of one stair, in steps of the terrain."""


class VariedBipedalWalker(BipedalWalker):
    """BipedalWalker with its own distribution of obstacles, every draw from the environment's own generator.

    With equal weights and the default sizes it is BipedalWalkerHardcore-v3, and without weights BipedalWalker-v3, both
    bit for bit: an obstacle's kind is then one bounded integer, as in Gymnasium. With unequal weights it is one
    uniform number, and all later draws differ.

    Every episode starts in a world of its own. Gymnasium's walker keeps one world for all episodes, whose solver
    depends on what happened in it before, so that there only a fresh instance repeats an episode bit for bit.

    Args:
        parameters: ``stump``, ``stairs``, ``pit``: weights of the kinds of obstacle, which their sum divides; all 0,
            there are none. ``stair_steps_low`` to ``stair_steps_high``, ``stump_size_*``, ``pit_gap_*``: whole numbers,
            the upper one exclusive: how many stairs, and how many steps of the terrain a stump is wide and high and
            a pit is wide.
        render_mode: Gymnasium's.
    """

    def __init__(self, parameters: Mapping[str, float], render_mode: str | None = None) -> None:
        weights = [parameters[name] for name in ("stump", "stairs", "pit")]
        super().__init__(render_mode=render_mode, hardcore=sum(weights) > 0)
        # Again, over the parent's: an unpickled copy is constructed from these.
        EzPickle.__init__(self, dict(parameters), render_mode)
        self.parameters = dict(parameters)
        self._equal = len(set(weights)) == 1
        self._cumulative = np.cumsum(weights)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """A fresh episode, which depends on the random stream alone."""
        self._destroy()  # type: ignore[no-untyped-call]  # Gymnasium's own, without annotations
        self.world = b2World()
        return super().reset(seed=seed, options=options)

    def _generate_terrain(self, hardcore: bool) -> None:
        """Gymnasium's terrain: grass, and with ``hardcore`` an obstacle after every stretch of it.

        Fills ``terrain_x`` and ``terrain_y`` ``[TERRAIN_LENGTH]``, the bodies ``terrain`` and the pictures' polygons.
        """
        self.terrain: list[Any] = []
        self.terrain_x: list[float] = []
        self.terrain_y: list[float] = []
        kind, fresh, left = GRASS, False, TERRAIN_STARTPAD
        velocity, y, base = 0.0, TERRAIN_HEIGHT, 0.0
        stairs, up = 0, 1
        for i in range(TERRAIN_LENGTH):
            x = i * TERRAIN_STEP
            if kind == GRASS and not fresh:
                velocity = 0.8 * velocity + 0.01 * np.sign(TERRAIN_HEIGHT - y)
                if i > TERRAIN_STARTPAD:
                    velocity += self.np_random.uniform(-1, 1) / SCALE
                y += velocity
            elif kind == STUMP and fresh:
                left = self._size("stump_size")
                self._block(x, y, left * TERRAIN_STEP, left * TERRAIN_STEP)
            elif kind == STAIRS and fresh:
                up = 1 if self.np_random.random() > 0.5 else -1
                stairs, base = self._size("stair_steps"), y
                for stair in range(stairs):
                    left_edge = x + (stair * STAIR_WIDTH) * TERRAIN_STEP
                    right_edge = x + ((1 + stair) * STAIR_WIDTH) * TERRAIN_STEP
                    top, bottom = y + (stair * up) * TERRAIN_STEP, y + (-1 + stair * up) * TERRAIN_STEP
                    self._polygon([(left_edge, top), (right_edge, top), (right_edge, bottom), (left_edge, bottom)])
                left = stairs * STAIR_WIDTH
            elif kind == STAIRS:
                y = base + (stairs * STAIR_WIDTH - left - up) / STAIR_WIDTH * up * TERRAIN_STEP
            elif kind == PIT and fresh:
                gap, base = self._size("pit_gap"), y
                self._block(x, y, TERRAIN_STEP, -4 * TERRAIN_STEP)
                self._block(x, y, TERRAIN_STEP, -4 * TERRAIN_STEP, moved=TERRAIN_STEP * gap)
                left = gap + 2
            elif kind == PIT:
                # The last point of a pit is its far edge, level with the near one.
                y = base - 4 * TERRAIN_STEP if left > 1 else base
            fresh = False
            self.terrain_y.append(y)
            self.terrain_x.append(x)
            left -= 1
            if left == 0:
                left = int(self.np_random.integers(TERRAIN_GRASS // 2, TERRAIN_GRASS))
                kind = self._kind() if kind == GRASS and hardcore else GRASS
                fresh = True
        self._lay_ground()

    def _kind(self) -> int:
        """An obstacle."""
        if self._equal:
            return int(self.np_random.integers(STUMP, PIT + 1))
        drawn = self.np_random.random() * self._cumulative[-1]
        return STUMP + int(np.searchsorted(self._cumulative, drawn, side="right"))

    def _size(self, name: str) -> int:
        """A size between the parameters ``name_low`` and ``name_high``."""
        return int(self.np_random.integers(int(self.parameters[f"{name}_low"]), int(self.parameters[f"{name}_high"])))

    def _block(self, x: float, y: float, width: float, height: float, moved: float = 0.0) -> None:
        """A box with a corner at ``(x + moved, y)``; added in this order, for that is how Gymnasium rounds."""
        corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
        self._polygon([(across + moved, along) for across, along in corners])

    def _polygon(self, corners: Sequence[tuple[float, float]]) -> None:
        """A fixed body."""
        self.fd_polygon.shape.vertices = list(corners)
        body = self.world.CreateStaticBody(fixtures=self.fd_polygon)
        body.color1, body.color2 = (255, 255, 255), (153, 153, 153)
        self.terrain.append(body)

    def _lay_ground(self) -> None:
        """The edges between neighbouring points, and the grass under them that videos show."""
        self.terrain_poly = []
        points = list(zip(self.terrain_x, self.terrain_y, strict=True))
        for i, (start, end) in enumerate(itertools.pairwise(points)):
            self.fd_edge.shape.vertices = [start, end]
            edge = self.world.CreateStaticBody(fixtures=self.fd_edge)
            edge.color1 = edge.color2 = (76, 255 if i % 2 == 0 else 204, 76)
            self.terrain.append(edge)
            self.terrain_poly.append(([start, end, (end[0], 0), (start[0], 0)], (102, 153, 76)))
        # The obstacles are drawn over the ground.
        self.terrain.reverse()
