"""HTML for reports: the templates beside this file, filled in by Jinja2, which escapes every value.

What a function here returns is :class:`markupsafe.Markup`; any other text that goes into a template is escaped there,
so that a run's name or setting cannot become markup.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from fedrax.report.style import ShownFigure, inline_svg

FOLDER = Path(__file__).parent / "templates"
STYLES = ("vendor/uplot.css", "page.css")
SCRIPTS = (
    "vendor/uplot.js",
    "shared.js",
    "aggregate.js",
    "charts.js",
    "maps.js",
    "exports.js",
    "tables.js",
    "start.js",
)
"""In the order in which they need each other."""
UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
"""Characters of JSON that could end the element it stands in, and how JSON writes them otherwise."""

_TEMPLATES = Environment(
    loader=PackageLoader("fedrax.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    keep_trailing_newline=True,
)


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a page. Markup goes into the page as it is, plain text is escaped."""

    heading: str
    body: Markup


def page(**values: Any) -> str:
    """The whole document, from ``templates/page.html``."""
    # Not templates themselves: braces mean something else in them.
    style = Markup("".join(_text(name) for name in STYLES))
    licence = f"/*\n{_text('vendor/uplot.LICENSE')}*/\n"
    script = Markup(licence + '"use strict";\n' + "".join(_text(name) for name in SCRIPTS))
    return _TEMPLATES.get_template("page.html").render(**values, style=style, script=script)


@functools.cache
def _text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def json_html(value: Any) -> Markup:
    """JSON that may stand in a ``<script>``, whatever text it holds; NaN and infinities as null."""
    text = json.dumps(_finite(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # JSON has these characters in its texts only, where it may write them as numbers.
    return Markup("".join(UNSAFE.get(sign, sign) for sign in text))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def part(name: str, *values: Any) -> Markup:
    """The macro ``name`` of ``templates/parts.html`` applied to ``values``."""
    filled: Markup = getattr(_TEMPLATES.get_template("parts.html").module, name)(*values)
    return filled


def joined(parts: Iterable[Markup]) -> Markup:
    """The parts one after the other."""
    return Markup("").join(parts)


def table_html(headings: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> Markup:
    """A table of plain text; ``kind`` is its class in the style sheet."""
    return part("table", headings, rows, kind)


def figure_html(figure: Figure, prefix: str, description: str) -> Markup:
    """A figure inside the page; ``prefix`` keeps its ids apart from other figures' ids."""
    # matplotlib escapes the texts of a figure itself. Where axes lie is known once it is drawn.
    svg = Markup(inline_svg(figure, prefix, description))
    maps = [each.placed() for each in figure.maps] if isinstance(figure, ShownFigure) else []
    return part("figure", svg, json_html(maps) if maps else "")


def chart_html(chart: Mapping[str, Any], figure: Figure, prefix: str, description: str) -> Markup:
    """A chart (:mod:`fedrax.report.charts`), and the figure that stands for it on paper and without JavaScript."""
    return part("chart", Markup(inline_svg(figure, prefix, description)), json_html(chart))
