"""Networks that a run starts from: an earlier run's policy, or an imported one (``learner.initial``).

Or parts of an earlier run's networks, which its strategy gives its agents beside their own (``strategy.saved``).
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from fedrax.config import Config, resolve
from fedrax.errors import FedraxError
from fedrax.federation import Federation, State
from fedrax.parts import NORMALISER, only, put_parts
from fedrax.records.checkpoint import load_networks
from fedrax.records.rundir import RunDirectory
from fedrax.runtime.base import Runtime
from fedrax.strategies.base import Strategy
from fedrax.strategies.statistics import normaliser_of

USED = ("activation", "normalise", "scale_actions")
"""What says how a learner's networks are used, and is not seen of their shapes."""
SAVED = "saved"
"""The strategies' option for the path of what :meth:`fedrax.strategies.base.Strategy.given` takes."""


def initial_files(config: Config) -> list[Path]:
    """The files of the networks that a run starts from; none for fresh ones.

    Raises:
        FedraxError: an option that names them is a directory that holds no run.
    """
    given = [config.learner["initial"], saved_path(config)]
    return [_policy_at(path) for path in given if path is not None]


def saved_path(config: Config) -> str | None:
    """Where the parts lie that the strategy is given, where it takes some: another's option may be called so too."""
    strategy: Strategy = config.component("strategy")
    path: str | None = config.strategy.get(SAVED) if strategy.saved_part else None
    return path


def _policy_at(given: str) -> Path:
    path = Path(given)
    return path if path.is_file() else RunDirectory.open(path).policy


def initial_networks(config: Config, federation: Federation) -> PyTree:
    """The networks of ``learner.initial`` for every agent of every seed, leaves ``[seeds, agents, ...]``.

    One policy serves all; a policy of every seed, or of every agent, is that of the seed or agent in the same place.

    Raises:
        FedraxError: there is no policy, it is another network's, or it is of other seeds or agents than this run's.
    """
    path = _policy_at(config.learner["initial"])
    network = jax.eval_shape(lambda: federation.learner.init_params(jax.random.key(0), federation.spaces))
    params, axes = load_networks(path, network)
    _check("learner.initial", path, params, axes, config)
    agents = (*axes, 1, 1)[1]
    own = federation.strategy.personal_with(federation.learner) and not federation.strategy.common_start
    if agents > 1 and not (own and agents == federation.agents):
        raise FedraxError(
            f"learner.initial: {path} holds policies of {agents} agents, and "
            + (
                f"this run has {federation.agents} that learn"
                if own
                else f"agents of strategy {federation.strategy.name!r} start alike"
            )
            + "; give a run with one policy"
        )
    params = _placed(params, axes, config.seeds, federation.agents)
    normaliser = normaliser_of(params)
    return params if normaliser is None else put_parts(params, {NORMALISER: normaliser.settled()})


def saved_parts(config: Config, federation: Federation) -> PyTree:
    """The part of ``strategy.saved``'s networks that the strategy is given, leaves ``[seeds, saved_agents, ...]``.

    Raises:
        FedraxError: as for :func:`initial_networks`; or it is of another number of agents than the strategy expects.
    """
    strategy = federation.strategy
    _check_alike(config)
    path = _policy_at(config.strategy[SAVED])
    network = jax.eval_shape(lambda: federation.learner.init_params(jax.random.key(0), federation.spaces))
    part = only(network, [strategy.saved_part])
    params, axes = load_networks(path, part, partly=True)
    _check("strategy.saved", path, params, axes, config)
    agents = (*axes, 1, 1)[1]
    if agents != strategy.saved_agents:
        raise FedraxError(
            f"strategy.saved_peers = {strategy.saved_agents} is not allowed: {path} holds networks of {agents} agents; "
            f"set strategy.saved_peers={agents}"
        )
    return getattr(_placed(params, axes, config.seeds, agents), strategy.saved_part)


def _check_alike(config: Config) -> None:
    """Raises :class:`FedraxError` where the networks of a saved run were trained to be used otherwise than here; a
    policy's file alone does not say."""
    given = Path(config.strategy[SAVED])
    if given.is_file():
        return
    saved = resolve(RunDirectory.open(given).config)
    for table, name in (("critic", "kind"), *(("learner", name) for name in USED)):
        theirs, ours = (getattr(each, table)[name] for each in (saved, config))
        if theirs != ours:
            raise FedraxError(
                f"strategy.saved: {given} was trained with {table}.{name} = {json.dumps(theirs)}, and this run has "
                f"{json.dumps(ours)}, so that its networks would mean nothing here; give another run, or set it alike"
            )


def _check(option: str, path: Path, params: PyTree, axes: tuple[int, ...], config: Config) -> None:
    """Raises :class:`FedraxError` for numbers that are not finite, and for networks of other seeds than the run's."""
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params)):
        raise FedraxError(f"{option}: {path} holds numbers that are not finite; give another policy")
    seeds = (*axes, 1)[0]
    if seeds not in (1, config.seeds):
        raise FedraxError(
            f"{option}: {path} holds policies of {seeds} seeds, and this run has {config.seeds}; set seeds={seeds}, or "
            "give a run of one seed"
        )


def _placed(params: PyTree, axes: tuple[int, ...], seeds: int, agents: int) -> PyTree:
    """Leaves ``[*axes, ...]`` as ``[seeds, agents, ...]``: what there is one of, for all."""
    first, found = len(axes), (*axes, 1, 1)[:2]

    def placed(x: np.ndarray) -> Array:
        return jnp.broadcast_to(x.reshape(*found, *x.shape[first:]), (seeds, agents, *x.shape[first:]))

    return jax.tree.map(placed, params)


def with_saved(state: State, federation: Federation, parts: PyTree) -> State:
    """The states before the first round with what the strategy is given, leaves ``[seeds, saved_agents, ...]``."""
    return dataclasses.replace(state, server=jax.vmap(federation.strategy.given)(state.server, parts))


def start_from(runtime: Runtime, initial: PyTree) -> State:
    """The states before the first round, of agents that start from these networks.

    Raises:
        FedraxError: the learner or the strategy, a plugin's, draws other networks of its own.
    """
    state = runtime.init(initial)
    federation = runtime.federation
    expected = initial if federation.personal else jax.tree.map(lambda x: x[:, 0], initial)
    pairs = zip(jax.tree.leaves(runtime.outputs(state)), jax.tree.leaves(expected), strict=True)
    if not all(np.array_equal(np.asarray(ours), np.asarray(theirs)) for ours, theirs in pairs):
        raise FedraxError(
            f"learner.initial is not allowed with learner {federation.learner.name!r} and strategy "
            f"{federation.strategy.name!r}: one of them draws networks of its own (Learner.init takes first_params); "
            "set learner.initial=none"
        )
    return state
