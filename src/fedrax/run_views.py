"""A run as a line, a table, a figure, and a pandas frame: what notebooks show of it."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedrax.config import Config
from fedrax.errors import FedraxError, unknown
from fedrax.opening import OPTIONAL, setup

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

RESOLUTION = 100
"""Dots per inch of a figure within a page."""
SHOWN = {
    "rounds": "rounds",
    "trajectories": "trajectories per agent (reference count)",
    "total_trajectories": "trajectories sampled",
    "total_steps": "steps",
    "bytes_up": "bytes sent per agent",
    "bytes_down": "bytes received per agent",
    "bytes_mesh": "bytes sent per agent in a mesh",
    "final_return": "final return",
    "best_return": "best return",
    "final_success": "final success",
    "seconds_train": "seconds of training",
}
"""What of a summary is shown, and how it is called."""


def line(config: Config, path: Path, summary: Mapping[str, Any] | None) -> str:
    """A run in one line; ``summary`` is None where it is not finished."""
    known = dict(setup(config))
    del known["budget"]
    parts = [f"{name} {text}" if name in OPTIONAL else text for name, text in known.items()]
    if summary is None:
        return f"<Run {path}: {', '.join(parts)}, not finished>"
    return f"<Run {path}: {', '.join(parts)}, final return {_values(summary['final_return'])}>"


def table(config: Config, path: Path, summary: Mapping[str, Any] | None) -> str:
    """A run as an HTML table of two columns."""
    rows = [("run", str(path)), *setup(config)]
    if summary is None:
        rows.append(("state", "not finished"))
    else:
        rows += [(name, _values(summary[key])) for key, name in SHOWN.items() if key in summary]
    cells = "".join(
        f'<tr><th style="text-align: left">{html.escape(name)}</th>'
        f'<td style="text-align: left">{html.escape(text)}</td></tr>'
        for name, text in rows
    )
    return f"<table>{cells}</table>"


def picture(figure: Figure) -> str:
    """A figure as an HTML element that needs no other file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=RESOLUTION)
    return f'<img alt="return" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def figure_of(paths: Sequence[Path], *, x: str | None, value: str, smoothing: int, title: str) -> Figure:
    """The curves of runs that were evaluated alike.

    Raises:
        FedraxError: an axis that there is not, or a column that holds no numbers in any of the runs.
    """
    from fedrax.report.curves import natural_axis
    from fedrax.report.figures import curves_figure
    from fedrax.report.runs import group_runs, load_runs

    runs = load_runs(paths)
    rows = [row for run in runs for history in run.histories for row in history.rows]
    # A run that was not evaluated yet has no return, and a figure that says so.
    columns = {"return", *(name for row in rows for name, number in row.items() if isinstance(number, (int, float)))}
    if value not in columns:
        raise unknown("value (a column of the run's metrics)", value, columns)
    groups = group_runs(runs)
    axis = natural_axis(groups) if x is None else x
    return curves_figure(groups, axis, title=title, value=value, smoothing=smoothing)


def frame_of(rows: Sequence[Mapping[str, Any]]) -> pandas.DataFrame:
    """Rows as a frame of pandas.

    Raises:
        FedraxError: it is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise FedraxError('frames need pandas: pip install "fedrax[pandas]", or take the rows of metrics()') from None
    return pandas.DataFrame(list(rows))


def _values(value: Any) -> str:
    """A number, or the mean of those of several seeds and how far they lie apart."""
    numbers = np.asarray(value, float).ravel()
    if numbers.size == 1:
        return f"{numbers[0]:,.6g}"
    return f"{numbers.mean():,.6g} ± {numbers.std(ddof=1):,.3g} ({numbers.size} seeds)"
