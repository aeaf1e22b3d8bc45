"""Pictures of native environments, drawn without a window system."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

WIDTH, HEIGHT = 600, 400
METRES = 5.6
"""Shown width: by default the track's limits are 2.4 m from its middle."""
SMOOTHING = 3
"""Drawn this much larger, then shrunk, because the rasteriser has hard edges."""

SKY, GROUND, RAIL, LIMIT = "#f6f7f9", "#e6e9ee", "#8a94a3", "#d0576b"
CART, WHEEL, POLE, HUB = "#2d3b50", "#161e2a", "#e09f3e", "#fbe3b9"

GRID = "#c9cfd8"
CELLS = {"floor": "#f6f7f9", "wall": "#5d6878", "lava": "#f0813a", "goal": "#5fb47c"}
CELL = 32
"""Pixels of a grid's cell."""

Point = tuple[float, float]


def draw_cartpole(state: np.ndarray, physics: Mapping[str, float]) -> np.ndarray:
    """A picture of CartPole, ``uint8[400, 600, 3]``.

    Args:
        state: position in m, velocity in m/s, angle in rad (positive leans right), angular velocity; ``[4]``.
        physics: of the environment; ``length`` is half the pole's length and ``x_threshold`` where the
            track ends, in m.
    """
    image = Image.new("RGB", (WIDTH * SMOOTHING, HEIGHT * SMOOTHING), SKY)
    canvas = _Canvas(ImageDraw.Draw(image))
    x, angle = float(state[0]), float(state[2])
    metre = WIDTH / METRES
    middle = WIDTH / 2 + x * metre
    rail, deck, axle = 318.0, 268.0, 276.0

    canvas.box((0, rail), (WIDTH, HEIGHT), GROUND)
    canvas.line((0, rail), (WIDTH, rail), 3, RAIL)
    for tick in range(-2, 3):
        at = WIDTH / 2 + tick * metre
        canvas.line((at, rail + 8), (at, rail + (20 if tick == 0 else 14)), 2, RAIL)
    for side in (-1, 1):
        at = WIDTH / 2 + side * float(physics.get("x_threshold", 2.4)) * metre
        canvas.line((at, rail - 26), (at, rail + 14), 4, LIMIT)

    canvas.box((middle - 42, deck), (middle + 42, deck + 36), CART, radius=7)
    for wheel in (-24, 24):
        canvas.disc((middle + wheel, rail - 11), 11, WHEEL)
        canvas.disc((middle + wheel, rail - 11), 4, RAIL)
    length = 2 * float(physics["length"]) * metre
    tip = (middle + length * math.sin(angle), axle - length * math.cos(angle))
    canvas.line((middle, axle), tip, 11, POLE)
    canvas.disc((middle, axle), 5.5, POLE)
    canvas.disc(tip, 5.5, POLE)
    canvas.disc((middle, axle), 3, HUB)
    return np.asarray(image.resize((WIDTH, HEIGHT), Image.Resampling.BOX))


def draw_acrobot(theta1: float, theta2: float, physics: Mapping[str, float]) -> np.ndarray:
    """A picture of Acrobot, ``uint8[400, 600, 3]``.

    Args:
        theta1: angle of the first link from hanging, in rad.
        theta2: angle of the second link from the first.
        physics: of the environment; ``link_length_1`` is drawn to scale, the second link is 1 m long.
    """
    image = Image.new("RGB", (WIDTH * SMOOTHING, HEIGHT * SMOOTHING), SKY)
    canvas = _Canvas(ImageDraw.Draw(image))
    metre, joint = HEIGHT / 4.6, (WIDTH / 2, HEIGHT / 2)
    canvas.line((0, joint[1] - metre), (WIDTH, joint[1] - metre), 2, LIMIT)

    def end(start: Point, angle: float, length: float) -> Point:
        return (start[0] + length * metre * math.sin(angle), start[1] + length * metre * math.cos(angle))

    elbow = end(joint, theta1, float(physics["link_length_1"]))
    tip = end(elbow, theta1 + theta2, 1.0)
    canvas.line(joint, elbow, 14, CART)
    canvas.line(elbow, tip, 11, POLE)
    for at, radius, colour in ((joint, 9, WHEEL), (elbow, 7, HUB), (tip, 5.5, POLE)):
        canvas.disc(at, radius, colour)
    return np.asarray(image.resize((WIDTH, HEIGHT), Image.Resampling.BOX))


def draw_grid(kinds: Sequence[Sequence[str]], agent: tuple[int, int], heading: int) -> np.ndarray:
    """A picture of a grid from above, ``uint8[32 height, 32 width, 3]``.

    Args:
        kinds: ``floor``, ``wall``, ``lava`` or ``goal`` of the cell in column x and row y, ``[x][y]``.
        agent: its column and row.
        heading: 0 east, 1 south, 2 west, 3 north.
    """
    width, height = len(kinds) * CELL, len(kinds[0]) * CELL
    image = Image.new("RGB", (width * SMOOTHING, height * SMOOTHING), GRID)
    canvas = _Canvas(ImageDraw.Draw(image))
    for x, column in enumerate(kinds):
        for y, kind in enumerate(column):
            canvas.box((x * CELL + 1, y * CELL + 1), ((x + 1) * CELL - 1, (y + 1) * CELL - 1), CELLS[kind])
    middle = ((agent[0] + 0.5) * CELL, (agent[1] + 0.5) * CELL)
    turn = heading * math.pi / 2

    def corner(angle: float, distance: float) -> Point:
        return (
            middle[0] + distance * CELL * math.cos(turn + angle),
            middle[1] + distance * CELL * math.sin(turn + angle),
        )

    canvas.shape((corner(0, 0.38), corner(2.4, 0.38), corner(-2.4, 0.38)), LIMIT)
    return np.asarray(image.resize((width, height), Image.Resampling.BOX))


class _Canvas:
    """Shapes in the picture's own pixels, y downwards."""

    def __init__(self, draw: ImageDraw.ImageDraw) -> None:
        self._draw = draw

    def line(self, start: Point, end: Point, width: float, colour: str) -> None:
        self._draw.line(_scaled(start, end), fill=colour, width=round(width * SMOOTHING))

    def box(self, corner: Point, opposite: Point, colour: str, radius: float = 0) -> None:
        self._draw.rounded_rectangle(_scaled(corner, opposite), radius=radius * SMOOTHING, fill=colour)

    def shape(self, corners: Sequence[Point], colour: str) -> None:
        self._draw.polygon(_scaled(*corners), fill=colour)

    def disc(self, centre: Point, radius: float, colour: str) -> None:
        (x, y), r = centre, radius
        self._draw.ellipse(_scaled((x - r, y - r), (x + r, y + r)), fill=colour)


def _scaled(*points: Point) -> Sequence[float]:
    return [value * SMOOTHING for point in points for value in point]
