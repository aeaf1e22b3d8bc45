"""Networks that a run starts from: an earlier run's policy, or an imported one (``learner.initial``)."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from fedrax.config import Config
from fedrax.errors import FedraxError
from fedrax.federation import Federation, State
from fedrax.parts import NORMALISER, put_parts
from fedrax.records.checkpoint import load_networks
from fedrax.records.rundir import RunDirectory
from fedrax.runtime.base import Runtime
from fedrax.strategies.statistics import normaliser_of


def initial_files(config: Config) -> list[Path]:
    """The file of the networks that a run starts from; none for fresh ones.

    Raises:
        FedraxError: ``learner.initial`` is a directory that holds no run.
    """
    given = config.learner["initial"]
    if given is None:
        return []
    path = Path(given)
    return [path if path.is_file() else RunDirectory.open(path).policy]


def initial_networks(config: Config, federation: Federation) -> PyTree:
    """The networks of ``learner.initial`` for every agent of every seed, leaves ``[seeds, agents, ...]``.

    One policy serves all; a policy of every seed, or of every agent, is that of the seed or agent in the same place.

    Raises:
        FedraxError: there is no policy, it is another network's, or it is of other seeds or agents than this run's.
    """
    (path,) = initial_files(config)
    network = jax.eval_shape(lambda: federation.learner.init_params(jax.random.key(0), federation.spaces))
    params, axes = load_networks(path, network)
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params)):
        raise FedraxError(f"learner.initial: {path} holds numbers that are not finite; give another policy")
    seeds, agents = (*axes, 1, 1)[:2]
    if seeds not in (1, config.seeds):
        raise FedraxError(
            f"learner.initial: {path} holds policies of {seeds} seeds, and this run has {config.seeds}; set "
            f"seeds={seeds}, or give a run of one seed"
        )
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
    first = len(axes)

    def placed(x: np.ndarray) -> Array:
        alone = x.reshape(seeds, agents, *x.shape[first:])
        return jnp.broadcast_to(alone, (config.seeds, federation.agents, *x.shape[first:]))

    params = jax.tree.map(placed, params)
    normaliser = normaliser_of(params)
    return params if normaliser is None else put_parts(params, {NORMALISER: normaliser.settled()})


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
