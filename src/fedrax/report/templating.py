"""HTML for reports: the templates beside this file, filled in by Jinja2, which escapes every value.

What a function here returns is :class:`markupsafe.Markup`; any other text that goes into a template is escaped there,
so that a run's name or setting cannot become markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from fedrax.report.style import inline_svg

_TEMPLATES = Environment(
    loader=PackageLoader("fedrax.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    keep_trailing_newline=True,
)


def page(**values: Any) -> str:
    """The whole document, from ``templates/page.html``."""
    return _TEMPLATES.get_template("page.html").render(**values)


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
    # matplotlib escapes the texts of a figure itself.
    return part("figure", Markup(inline_svg(figure, prefix, description)))
