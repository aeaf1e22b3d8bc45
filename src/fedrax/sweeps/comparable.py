"""Whether the trials of a search can be ranked: all must be measured alike, and have the budget of their stage."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from fedrax.config import Config, resolve
from fedrax.errors import FedraxError
from fedrax.evaluation.measure import apart, measure, said
from fedrax.sweeps.plan import Plan, Setup, override
from fedrax.sweeps.space import Choices, Range, Space


def check_space(space: Space, setup: Setup) -> None:
    """Refuses a dimension that decides which quantity a return is, whatever the other dimensions are.

    Args:
        space: of the search.
        setup: of its first trial, whose other settings every value is tried with.

    Raises:
        FedraxError: names the dimension, and what would be measured.
    """
    for key, dimension in space.items():
        parts = apart((None, measured) for measured in _measures(key, dimension, setup))
        if len(parts) > 1:
            (one, _), (other, _) = parts[:2]
            raise FedraxError(
                f"search.space.{key} is not allowed: trials would be measured differently ({said(one)}, or "
                f"{said(other)}), and their results cannot be ranked; give {key} one value in [set]"
            )


def check_budget(space: Space) -> None:
    """Raises :class:`FedraxError` for a dimension that the stages of a search by halving would override."""
    for key in space:
        if key.partition(".")[0] == "budget":
            raise FedraxError(
                f"search.space.{key} is not allowed with search.method = 'halving', whose stages set the budget of "
                "every trial; take it out, or choose search.method = 'random'"
            )


def check_alike(plan: Plan, before: Mapping[str, str] | None) -> dict[str, str]:
    """What the trials of a plan measure, all alike; ``before`` is what earlier ones did, if there were any.

    Dimensions that change nothing alone may do so together.

    Raises:
        FedraxError: names a trial that is measured otherwise.
    """
    first = plan.jobs[0]
    earlier = dict(_measure_of(first.config) if before is None else before)
    for job in plan.jobs:
        parts = apart([(None, earlier), (None, _measure_of(job.config))])
        if len(parts) > 1:
            (one, _), (other, _) = parts
            raise FedraxError(
                f"{job.setup.name} would be measured with {said(other)}, and other trials with {said(one)}: their "
                "results cannot be ranked; leave what decides this out of search.space"
            )
    return earlier


def _measures(key: str, dimension: Range | Choices, setup: Setup) -> Iterator[dict[str, str]]:
    """What is measured under each value of a choice, and at both ends of a range."""
    if isinstance(dimension, Choices):
        values: tuple[Any, ...] = dimension.values
    else:
        number = int if dimension.kind == "integers" else float
        values = (number(dimension.low), number(dimension.high))
    for value in values:
        # A value that the first trial's others do not allow is refused, or not, with those that it is drawn with.
        with contextlib.suppress(FedraxError):
            yield _measure_of(resolve(setup.preset, [*setup.overrides, override(key, value), "seeds=1"]))


def _measure_of(config: Config) -> dict[str, str]:
    # A resolved configuration says where it is evaluated, whoever's the policies are.
    return measure(config.model_dump(mode="json"), personal=False)
