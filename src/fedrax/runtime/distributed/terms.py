"""What a node must have in common with the federation, so that its answers can be used: looked at before it joins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from fedrax.arrays import form
from fedrax.config import Config
from fedrax.environments.spaces import in_words
from fedrax.errors import FedraxError
from fedrax.runtime.base import Runtime
from fedrax.runtime.distributed.agent_runtime import order_shapes, report_shapes
from fedrax.runtime.distributed.checks import possible_counts
from fedrax.runtime.distributed.envelopes import Field
from fedrax.runtime.make import make_runtime

LONGEST = 150
"""Characters of an environment in words: both sides' are in one answer."""
UNTOLD = "which it does not tell"
"""In place of the environment of a server of an earlier version."""


class Terms(NamedTuple):
    """Part of a request to join."""

    form: str
    """Of all arrays that travel (:func:`.form`)."""
    fewest: int
    """Environment steps of an agent's round, at least."""
    most: int
    """The same, at most."""
    environment: str
    """The environment's name and spaces in words, for who has another."""


def terms_of(config: Config, runtime: Runtime) -> Terms:
    """Those of a configuration, whose runtime this is."""
    federation, copies = runtime.federation, config.environment.num_envs
    arrays = (*federation.shapes(), order_shapes(federation), report_shapes(federation, copies))
    steps = possible_counts(federation, copies, runtime.training_horizon, None).steps
    name = ", ".join(config.environment.tasks) or config.environment.id
    words = f"{name} ({in_words(federation.spaces)})"
    return Terms(form(arrays), *steps, words if len(words) <= LONGEST else f"{words[:LONGEST]}...")


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
        wanted = asked.get("environment", UNTOLD)
        raise FedraxError(
            f"the node's environment, {own.environment}, does not fit the server's, {wanted}: observations and actions "
            "must be of the same shapes and types; whoever runs the node gives it such an environment (fedrax node "
            "--environment)"
        )
    fewest, most = int(asked["fewest"]), int(asked["most"])
    if own.fewest < fewest or own.most > most:
        raise FedraxError(
            f"a round of the node has {own.fewest} to {own.most} environment steps, and the server takes {fewest} to "
            f"{most}: environment.horizon may not be longer than the server's, and environment.num_envs must be equal"
        )
