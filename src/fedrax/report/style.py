"""How figures look, and how they leave: PNG, SVG, or SVG in a page that has a light and a dark mode."""

from __future__ import annotations

import dataclasses
import functools
import html
import io
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.rcsetup import cycler
from matplotlib.ticker import FuncFormatter

from fedrax.report.palette import PALETTE

P = ParamSpec("P")
T = TypeVar("T")

INK = "#1f2430"
MUTED = "#5c6370"
GRID = "#dfe3e8"
PAPER = "#ffffff"

THEMED = {INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper", PALETTE[0]: "series-0"}
"""Colours a page replaces by its own: hex -> name of the CSS variable."""

STYLE: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 10,
    "axes.prop_cycle": cycler(color=PALETTE),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "figure.titlesize": 13,
    "font.family": "sans-serif",
    "font.size": 10,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.solid_capstyle": "round",
    "svg.hashsalt": "fedrax",
    "text.color": INK,
    # Names are shown as they are: a `$` in one is no formula.
    "text.parse_math": False,
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 9,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 9,
}


def styled(draw: Callable[P, T]) -> Callable[P, T]:
    """Runs a drawing function under :data:`STYLE`, leaving the caller's matplotlib settings alone."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> T:
        with matplotlib.rc_context(STYLE), warnings.catch_warnings():
            # A character that no font has is drawn as a box, and needs no warning.
            warnings.filterwarnings("ignore", "Glyph ")
            return draw(*args, **kwargs)

    return drawn


@dataclasses.dataclass(frozen=True)
class HeatMap:
    """A map of a figure, as the page tells of it."""

    axes: Axes
    rows: Sequence[str]
    columns: Sequence[str]
    values: npt.NDArray[np.float64]
    """``[rows, columns]``, the first row at the top; NaN where there is none."""

    def placed(self) -> dict[str, Any]:
        """What ``templates/maps.js`` reads: the names and numbers, and where the map lies in its drawn figure.

        ``box`` holds the left, top, right and bottom edges as shares of the figure's width and height.
        """
        box = self.axes.get_position()
        return {
            "box": [round(float(edge), 4) for edge in (box.x0, 1 - box.y1, box.x1, 1 - box.y0)],
            "rows": list(self.rows),
            "columns": list(self.columns),
            "values": [[float(f"{value:.6g}") for value in row] for row in self.values],
        }


class ShownFigure(Figure):
    """A figure that a notebook shows where a cell returns it, whether or not ``pyplot`` was imported."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.maps: list[HeatMap] = []
        """Those among its axes, for the page."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=100)
        return buffer.getvalue()


def new_figure(width: float, height: float, title: str) -> ShownFigure:
    """An empty figure of ``width`` x ``height`` inches with a left-aligned title."""
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
    figure = ShownFigure(figsize=(width, height), layout=layout, facecolor=PAPER)
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure


def colour(index: int) -> str:
    """The colour of the ``index``-th series."""
    return PALETTE[index % len(PALETTE)]


def dashes(index: int) -> Literal["-"] | tuple[float, tuple[int, ...]]:
    """The line style of the ``index``-th series: solid until the palette repeats."""
    styles: tuple[Literal["-"] | tuple[float, tuple[int, ...]], ...] = ("-", (0, (7, 2)), (0, (1, 1)))
    return styles[index // len(PALETTE) % len(styles)]


def cost_axis(axes: Axes) -> None:
    """The x-axis of a cost: from 0, with large numbers as 5 k or 2 M."""

    def shortened(number: float, _position: int) -> str:
        for scale, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if abs(number) >= scale:
                return f"{number / scale:g}\N{THIN SPACE}{prefix}"
        return f"{number:g}"

    axes.xaxis.set_major_formatter(FuncFormatter(shortened))
    axes.set_xlim(left=0)


@styled
def save(figure: Figure, *paths: Path) -> None:
    """Writes the figure to each path, in the format of its suffix; equal figures give equal files."""
    for path in paths:
        dated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix)
        figure.savefig(path, dpi=160, metadata=dated)


@styled
def inline_svg(figure: Figure, prefix: str, description: str) -> str:
    """The figure as an ``<svg>`` element for an HTML page.

    Text stays text, ids begin with ``prefix`` so that several figures share a page, and the colours of
    :data:`THEMED` are CSS variables, so that the page's dark mode applies.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'href="#|url\(#', lambda found: f"{found.group()}{prefix}-", text)
    # A tenth of a point is finer than any screen. What stands between elements is what the figure says, and stays.
    text = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\.\d)\d+", r"\1", tag.group()), text)
    for hexadecimal, variable in THEMED.items():
        text = text.replace(hexadecimal, f"var(--{variable})")
    # The page's own font: matplotlib's list of fallbacks would be repeated for every label.
    text = re.sub(r"font: ((?:bold )?)([\d.]+)px [^;\"]*", r"font: \1\2px var(--font)", text)
    # Below the first width the labels are too small to read, and the page scrolls the figure instead; above the second
    # they are larger than the page's own text.
    least, most = (scale * 96 * figure.get_figwidth() for scale in (0.8, 1.3))
    size = f"min-width: {least:.0f}px; max-width: {most:.0f}px"
    opening = f'<svg role="img" aria-label="{html.escape(description)}" style="{size}"'
    return text.replace("<svg", opening, 1)
