"""Published curves as data: digitised from figures, with source, units and read-off error."""

from __future__ import annotations

import dataclasses
import functools
import json
from importlib import resources

from fedrax.errors import unknown


@dataclasses.dataclass(frozen=True)
class Series:
    """One published curve at the points it was read off."""

    name: str
    method: str
    """The strategy's name."""
    agents: int
    byzantine: int
    attack: str | None
    axis: str
    """The x-axis as :data:`fedrax.report.curves.AXES` names it."""
    x: tuple[float, ...]
    y: tuple[float, ...]
    """Returns."""


@dataclasses.dataclass(frozen=True)
class Published:
    """One published figure."""

    name: str
    title: str
    source: str
    figure: str
    environment: str
    environment_note: str
    x_meaning: str
    y_meaning: str
    read_off_error: float
    """In the unit of y: the share of the y-axis that digitising may be off, times the range of the values."""
    caveats: tuple[str, ...]
    series: tuple[Series, ...]

    def __getitem__(self, name: str) -> Series:
        """The series by name, or a :class:`FedraxError` naming the nearest one."""
        for series in self.series:
            if series.name == name:
                return series
        raise unknown(f"series of {self.name}", name, [series.name for series in self.series])


def names() -> list[str]:
    """The published figures of learning curves."""
    found = (entry.name for entry in resources.files(__name__).iterdir() if entry.name.endswith(".json"))
    return sorted(name.removesuffix(".json") for name in found)


@functools.cache
def load(name: str) -> Published:
    """A published figure by name.

    Raises:
        FedraxError: no figure is called so.
    """
    if name not in names():
        raise unknown("published figure", name, names())
    body = json.loads((resources.files(__name__) / f"{name}.json").read_text(encoding="utf-8"))
    values = [value for series in body["series"] for value in series["y"]]
    return Published(
        name=name,
        title=body["title"],
        source=body["source"],
        figure=body["figure"],
        environment=body["environment"],
        environment_note=body["environment_note"],
        x_meaning=body["x"]["meaning"],
        y_meaning=body["y"]["meaning"],
        read_off_error=body["read_off_error"]["fraction"] * (max(values) - min(values)),
        caveats=tuple(body["caveats"]),
        series=tuple(
            Series(
                name=series["name"],
                method=series["method"],
                agents=series["agents"],
                byzantine=series["byzantine"],
                attack=series["attack"],
                axis=body["x"]["axis"],
                x=tuple(series["x"]),
                y=tuple(series["y"]),
            )
            for series in body["series"]
        ),
    )
