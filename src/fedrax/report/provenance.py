"""What a run was configured to be, and with what and where it ran, as folded tables of a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from fedrax.report.runs import Run
from fedrax.report.tables import MISSING
from fedrax.report.templating import part


def settings_html(name: str, run: Run) -> Markup:
    """The settings of a run under its name, and its seeds."""
    rows = [[key, _plain(value) or ""] for key, value in run.settings.items()]
    seeds = ", ".join(map(str, run.seeds)) or MISSING
    return part("folded_table", name, ["setting", "value"], [["seeds", seeds], *rows], "settings")


def manifest_html(name: str, run: Run) -> Markup:
    """Versions, machine and times of a run under its name."""
    # The configuration is shown as settings; of the former ones, where they ended.
    shown = {key: value for key, value in run.manifest.items() if key != "config"}
    if "history" in shown:
        shown["history"] = [
            "; ".join([f"changed after round {one['rounds']}, {one['time']}", *one.get("notes", [])])
            for one in shown["history"]
        ]
    rows = [[key, _plain(value) or MISSING] for key, value in shown.items()]
    return part("folded_table", name, ["", name], rows, "settings")


def _plain(value: Any) -> str | None:
    """A value of a configuration or manifest as one line."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(str(_plain(inner)) for inner in value)
    return str(value)
