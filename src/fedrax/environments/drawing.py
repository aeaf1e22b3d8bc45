"""Pictures of native environments, drawn without a window system."""

from __future__ import annotations

import itertools
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


def draw_pendulum(theta: float, physics: Mapping[str, float]) -> np.ndarray:
    """A picture of Pendulum, ``uint8[400, 600, 3]``.

    Args:
        theta: angle from upright in rad; a positive one leans left, as in Gymnasium's pictures.
        physics: of the environment; ``l``, the rod's length, is drawn to scale up to 1.7 m.
    """
    image = Image.new("RGB", (WIDTH * SMOOTHING, HEIGHT * SMOOTHING), SKY)
    canvas = _Canvas(ImageDraw.Draw(image))
    # What is longer would leave the picture, and still is shown as the longest.
    length = min(float(physics["l"]), 1.7) * HEIGHT / 3.6
    joint = (WIDTH / 2, HEIGHT / 2)
    tip = (joint[0] - length * math.sin(theta), joint[1] - length * math.cos(theta))
    canvas.disc(joint, length, GRID)
    canvas.disc(joint, length - 1.5, SKY)
    canvas.line((joint[0], joint[1] - length - 8), (joint[0], joint[1] - length + 8), 4, LIMIT)
    canvas.line(joint, tip, 16, POLE)
    for at, radius, colour in ((joint, 8, POLE), (tip, 8, POLE), (joint, 5, CART)):
        canvas.disc(at, radius, colour)
    return np.asarray(image.resize((WIDTH, HEIGHT), Image.Resampling.BOX))


def draw_mountain_car(position: float, physics: Mapping[str, float]) -> np.ndarray:
    """A picture of MountainCar, ``uint8[400, 600, 3]``.

    Args:
        position: of the car; the hills are ``0.45 sin(3 position) + 0.55`` high, as in Gymnasium's pictures.
        physics: of the environment; ``min_position`` and ``max_position`` are the picture's edges, and the flag
            stands at ``goal_position``.
    """
    image = Image.new("RGB", (WIDTH * SMOOTHING, HEIGHT * SMOOTHING), SKY)
    canvas = _Canvas(ImageDraw.Draw(image))
    left, right = float(physics["min_position"]), float(physics["max_position"])
    unit = WIDTH / (right - left)

    def track(at: float) -> Point:
        return ((at - left) * unit, HEIGHT - (0.45 * math.sin(3 * at) + 0.55) * WIDTH / 1.8)

    ridge = [track(float(at)) for at in np.linspace(left, right, 121)]
    canvas.shape([(0, HEIGHT), *ridge, (WIDTH, HEIGHT)], GROUND)
    for start, end in itertools.pairwise(ridge):
        canvas.line(start, end, 3, RAIL)
    x, y = track(float(physics["goal_position"]))
    canvas.line((x, y), (x, y - 44), 3, CART)
    canvas.shape(((x, y - 44), (x + 22, y - 37), (x, y - 30)), LIMIT)

    x, y = track(position)
    slope = math.atan2(1.35 * math.cos(3 * position) * WIDTH / 1.8, unit)

    def on_car(along: float, above: float) -> Point:
        sine, cosine = math.sin(slope), math.cos(slope)
        return (x + along * cosine - above * sine, y - along * sine - above * cosine)

    canvas.shape([on_car(*corner) for corner in ((-20, 9), (20, 9), (20, 27), (-20, 27))], CART)
    for wheel in (-11, 11):
        canvas.disc(on_car(wheel, 8), 7, WHEEL)
        canvas.disc(on_car(wheel, 8), 2.5, RAIL)
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


def draw_point(robot: np.ndarray, puck: np.ndarray, goal: np.ndarray, radius: float, limit: float) -> np.ndarray:
    """A picture of a table from above, ``uint8[400, 400, 3]``.

    Args:
        robot: its place, as ``puck`` and ``goal``, ``[2]``.
        radius: the puck's; 0 where there is none.
        limit: the table reaches from ``-limit`` to ``limit``.
    """
    image = Image.new("RGB", (HEIGHT * SMOOTHING, HEIGHT * SMOOTHING), SKY)
    canvas = _Canvas(ImageDraw.Draw(image))
    unit = HEIGHT / (2.2 * limit)

    def at(place: np.ndarray) -> Point:
        return (HEIGHT / 2 + float(place[0]) * unit, HEIGHT / 2 - float(place[1]) * unit)

    canvas.box((0.1 / 2.2 * HEIGHT,) * 2, (2.1 / 2.2 * HEIGHT,) * 2, GROUND)
    canvas.disc(at(goal), 9, CELLS["goal"])
    if radius:
        canvas.disc(at(puck), radius * unit, POLE)
    canvas.disc(at(robot), 6, CART)
    return np.asarray(image.resize((HEIGHT, HEIGHT), Image.Resampling.BOX))


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
