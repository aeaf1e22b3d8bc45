"""Heat maps: a table of numbers as colours, written in where they are few, and read under the pointer in a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from fedrax.report.style import MUTED, PAPER, HeatMap, ShownFigure
from fedrax.report.tables import MISSING

WRITTEN = 12
"""Most rows or columns of a map whose numbers are written in."""


def draw_map(
    figure: ShownFigure,
    axes: Axes,
    values: npt.NDArray[np.float64],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    written: Callable[[float], str] | None,
    bounds: tuple[float, float],
    bar: str = "",
) -> None:
    """Draws ``values[rows, columns]`` from the top, each number as ``written`` says.

    ``rows`` and ``columns`` are what the page calls them. ``bounds`` are the values of the darkest and the lightest
    colour; ``bar`` is what the colour bar says, which is left out without it.
    """
    low, high = bounds
    image = axes.pcolormesh(
        values,
        cmap=matplotlib.colormaps["cividis"],
        vmin=low,
        vmax=max(high, low + 1e-9),
        edgecolors=PAPER,
        linewidth=2 if written else 0.5,
    )
    if written is not None:
        for (row, column), value in np.ndenumerate(values):
            position = 0.0 if high <= low else (value - low) / (high - low)
            # Not the themed ink and paper: the cell under the number keeps its colour in dark mode.
            ink = MUTED if np.isnan(value) else "#111111" if position > 0.55 else "#fefefe"
            text = MISSING if np.isnan(value) else written(float(value))
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", color=ink, fontsize=9)
    axes.invert_yaxis()
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if bar:
        scale = figure.colorbar(image, ax=axes, pad=0.02)
        scale.set_label(bar)
        scale.outline.set_visible(False)
    figure.maps.append(HeatMap(axes, rows, columns, values))
