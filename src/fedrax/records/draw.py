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


class _Canvas:
    """Shapes in the picture's own pixels, y downwards."""

    def __init__(self, draw: ImageDraw.ImageDraw) -> None:
        self._draw = draw

    def line(self, start: Point, end: Point, width: float, colour: str) -> None:
        self._draw.line(_scaled(start, end), fill=colour, width=round(width * SMOOTHING))

    def box(self, corner: Point, opposite: Point, colour: str, radius: float = 0) -> None:
        self._draw.rounded_rectangle(_scaled(corner, opposite), radius=radius * SMOOTHING, fill=colour)

    def disc(self, centre: Point, radius: float, colour: str) -> None:
        (x, y), r = centre, radius
        self._draw.ellipse(_scaled((x - r, y - r), (x + r, y + r)), fill=colour)


def _scaled(*points: Point) -> Sequence[float]:
    return [value * SMOOTHING for point in points for value in point]
