"""What a node must have in common with the federation, so that its answers can be used: looked at before it joins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from fedrax.arrays import form
from fedrax.config import Config
from fedrax.errors import FedraxError
from fedrax.runtime.base import Runtime
from fedrax.runtime.distributed.agent_runtime import order_shapes, report_shapes
from fedrax.runtime.distributed.checks import possible_counts
from fedrax.runtime.distributed.envelopes import Field
from fedrax.runtime.make import make_runtime


class Terms(NamedTuple):
    """Part of a request to join."""

    form: str
    """Of all arrays that travel (:func:`.form`)."""
    fewest: int
    """Environment steps of an agent's round, at least."""
    most: int
    """The same, at most."""


def terms_of(config: Config, runtime: Runtime) -> Terms:
    """Those of a configuration, whose runtime this is."""
    federation, copies = runtime.federation, config.environment.num_envs
    arrays = (*federation.shapes(), order_shapes(federation), report_shapes(federation, copies))
    steps = possible_counts(federation, copies, runtime.training_horizon, None).steps
    return Terms(form(arrays), *steps)


def check_terms(config: Config, asked: Mapping[str, Field], *, changed: bool) -> None:
    """Makes a node's environment once, and compares it with what the server asks for.

    Args:
        config: the run's, with what differs at this site.
        asked: the fields of the request to join.
        changed: whether anything differs at this site.

    Raises:
        FedraxError: the environment cannot be made, or no answer from it could be used.
    """
    if "form" not in asked:
        return
    runtime = make_runtime(config, agents=False)
    try:
        own = terms_of(config, runtime) if changed else None
    finally:
        runtime.close()
    if own is None:
        return
    if own.form != asked["form"]:
        raise FedraxError(
            "the server's arrays have other shapes than this node's: its environment's spaces must be the server's; "
            f"this node has {config.environment.id} (fedrax node --environment)"
        )
    fewest, most = int(asked["fewest"]), int(asked["most"])
    if own.fewest < fewest or own.most > most:
        raise FedraxError(
            f"a round of this node has {own.fewest} to {own.most} environment steps, and the server takes {fewest} to "
            f"{most}: environment.horizon may not be longer than the server's, and environment.num_envs must be equal"
        )
