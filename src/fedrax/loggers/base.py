"""The interface of live loggers.

A logger is given every row of ``metrics.jsonl`` as soon as it is written. Each seed of a run is a stream of its own, so
that names of values are the same for one seed and for many, and a program that compares runs compares seeds too.
"""

from __future__ import annotations

import abc
import importlib.util
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import equinox as eqx

from fedrax.errors import FedraxError
from fedrax.registry import Registry, option

DEFAULT: Mapping[str, Mapping[str, Any]] = {"tensorboard": {}}
"""The loggers of a run that names none, and their options."""
AXES = {"rounds": "round", "steps": "total_steps", "trajectories": "trajectories"}
"""What each choice of an axis is called in a row."""
PER_AGENT = "agent_"
"""How the names of lists with a value for each agent begin."""


class LoggedRun(NamedTuple):
    """One seed of a run, as a logger is told of it."""

    name: str
    """The run's."""
    folder: Path
    """The run's directory."""
    seed: int
    config: Mapping[str, Any]
    """The tables of its ``config.toml``."""
    id: str | None
    """What :attr:`Stream.id` was when it was last logged; None the first time."""


class Point(NamedTuple):
    """One row of one seed."""

    x: int
    """Rounds (from 0), steps or trajectories, as the logger's axis says."""
    time: float
    """Seconds since 1970 at which it was logged."""
    values: dict[str, float]
    """Finite numbers by name."""


class Stream(abc.ABC):
    """What one seed is logged to. Whatever is raised ends the logging, and not the run."""

    id: str = ""
    """What finds it again when the run is resumed; empty where nothing does."""

    @abc.abstractmethod
    def log(self, points: Sequence[Point]) -> None:
        """Logs these, in the order of their rows."""

    def flush(self) -> None:
        """Makes what was logged visible to others."""
        return

    @abc.abstractmethod
    def close(self, *, finished: bool) -> None:
        """Ends it; ``finished`` says whether the run's budget is used."""


class Logger(eqx.Module):
    """Where rows go while a run trains. Its options are those of ``records.loggers.NAME``."""

    name: ClassVar[str]
    remote: ClassVar[bool] = True
    """It keeps what it was given, and may wait for another machine: after a resume it is given only rows that it has
    not had, by a thread of its own. One that is not is opened anew, and given all rows once more."""
    package: ClassVar[str] = ""
    """The module that must be installed, which comes with the extra of the logger's name."""

    axis: Literal["rounds", "steps", "trajectories"] = option(
        "rounds", "what x is: rounds, environment steps of all agents and the server, or trajectories per agent"
    )
    agents: bool = option(False, "also values of each agent, such as agent_returns/agent_3")

    def check(self) -> None:
        """Raises :class:`FedraxError` where it cannot log on this machine; called before anything is trained."""
        if self.package and importlib.util.find_spec(self.package) is None:
            raise FedraxError(
                f"records.loggers.{self.name} needs {self.package}, which is not installed; "
                f"pip install 'fedrax[{self.name}]', or leave it out of records.loggers"
            )

    @abc.abstractmethod
    def open(self, run: LoggedRun) -> Stream:
        """The stream of one seed, new or that of ``run.id``."""

    def point(self, row: Mapping[str, Any], time: float) -> Point:
        """What of a row is logged."""
        return Point(int(row.get(AXES[self.axis], row["round"])), time, values_of(row, agents=self.agents))


loggers: Registry[Logger] = Registry("logger", "fedrax.loggers")


def values_of(row: Mapping[str, Any], *, agents: bool) -> dict[str, float]:
    """The finite numbers of a row by name, and with ``agents`` those of each agent: ``agent_returns/agent_3``.

    Of an agent with several numbers, such as the returns of its episodes, it is their mean.
    """
    values: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, list):
            if agents and name.startswith(PER_AGENT):
                each = {f"{name}/{PER_AGENT}{index}": _mean(item) for index, item in enumerate(value)}
                values |= {key: number for key, number in each.items() if number is not None}
        elif name not in ("seed", "round") and _is_finite(value):
            values[name] = float(value)
    return values


def _mean(value: Any) -> float | None:
    numbers = [float(one) for one in (value if isinstance(value, list) else [value]) if _is_finite(one)]
    return sum(numbers) / len(numbers) if numbers else None


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def by_name(value: Any) -> Any:
    """``records.loggers`` as a table of options by name: a name or a list of names stands for their defaults.

    What is none of them stays as it is, for the configuration's model to refuse.
    """
    if value == "none":
        return {}
    names = [value] if isinstance(value, str) else value
    if isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names):
        return {name: {} for name in names}
    return value


def built(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Logger]:
    """The loggers of ``records.loggers``, each with its options checked.

    Raises:
        FedraxError: a logger, or an option, that does not exist, or a value that is not allowed.
    """
    made = {}
    for name, options in settings.items():
        made[name] = loggers.build(name, options, table=f"records.loggers.{name}")
        if not isinstance(made[name], Logger):
            raise FedraxError(f"logger {name!r} is no logger: derive it from fedrax.loggers.base.Logger")
    return made
