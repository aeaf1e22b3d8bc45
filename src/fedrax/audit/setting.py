"""A federation as an attacker finds it, at one broadcast."""

from __future__ import annotations

import dataclasses
import math
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from fedrax.attacks.base import attacks
from fedrax.config import Config
from fedrax.federation import Federation, State
from fedrax.learners.base import Agent
from fedrax.message import Message, periods
from fedrax.privacy.guarantee import Guarantee, guarantee
from fedrax.records.checkpoint import load_checkpoint
from fedrax.records.rundir import RunDirectory
from fedrax.runtime.continuation import accepting
from fedrax.runtime.draws import describe_run, runs_native
from fedrax.runtime.make import make_federation, make_runtime
from fedrax.runtime.native import NativeRuntime


@dataclasses.dataclass(frozen=True)
class Setting:
    """A run's federation at one broadcast, without simulated attacks, and under the protection of ``config``."""

    config: Config
    federation: Federation
    server: PyTree
    """The server before the round."""
    agents: PyTree
    """The agents before it, leaves ``[agents, ...]``; () where they are not at hand."""
    rounds: int
    """Done before it."""
    planned: int
    """Of the whole training, as far as known."""
    runtime: NativeRuntime | None
    """For one agent at a time; None where the environment is not in JAX."""
    bound: Guarantee | None

    @property
    def key(self) -> PRNGKeyArray:
        """The run's."""
        return jax.random.key(self.config.seed)

    @cached_property
    def downlink(self) -> Any:
        """What is broadcast."""
        return self.federation.broadcast(self.server, self.key, jnp.asarray(self.whole_round + 1))

    @cached_property
    def episodes(self) -> int:
        """Trajectories that each agent is asked for; 0 where it counts steps."""
        return int(self.downlink.episodes)

    @cached_property
    def fresh(self) -> Agent:
        """An agent before its first round."""
        return self.federation.fresh(self.key, jnp.asarray(0))

    @cached_property
    def update_shapes(self) -> PyTree:
        """One agent's update before protection, as bare shapes."""
        federation = self.federation
        return jax.eval_shape(
            lambda agent: federation.strategy.emit(federation.learner, agent, self.key), self.fresh
        ).update

    @cached_property
    def whole_round(self) -> int:
        """The number of a round at whose end every array of a message travels."""
        each = periods(Message(self.update_shapes), self.federation.strategy.period)
        return math.lcm(*jax.tree.leaves(each), 1) - 1

    @property
    def without_updates(self) -> str | None:
        """Why there is no update to attack, in one line; None where there is one."""
        name = self.federation.strategy.name
        if not self.federation.strategy.sends:
            return f"agents of strategy {name!r} send nothing"
        if not self.dimension:
            return f"messages of strategy {name!r} hold no updates: the server has each agent's own, or relays it"
        return None

    @property
    def dimension(self) -> int:
        """Numbers in an update."""
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(self.update_shapes))


def made_setting(config: Config, state: State | None = None) -> Setting:
    """The setting of a configuration, at this state of a run of the same networks; None: before its first round.

    Raises:
        FedraxError: a configuration that cannot run, in one line.
    """
    runtime = None
    if runs_native(config):
        alone = config.runtime.model_copy(update={"agents_per_batch": 1})
        made = make_runtime(config.model_copy(update={"runtime": alone, "seeds": 1}))
        assert isinstance(made, NativeRuntime)
        runtime, federation = made, made.federation
    else:
        described, _ = describe_run(config)
        federation = make_federation(config, described.spaces, described.horizon(config.environment.horizon))
    federation = dataclasses.replace(federation, attack=attacks.build("none", {}))
    rounds = 0 if state is None else int(state.tally.rounds)
    return Setting(
        config=config,
        federation=federation,
        server=federation.init(jax.random.key(config.seed)).server if state is None else state.server,
        agents=() if state is None else state.agents,
        rounds=rounds,
        planned=config.budget.rounds or max(rounds, 1),
        runtime=runtime,
        bound=guarantee(config.privacy, config.federation),
    )


def last_state(config: Config, directory: RunDirectory) -> State | None:
    """The first seed's state in a run's last checkpoint; None where there is no checkpoint.

    Raises:
        FedraxError: the checkpoint is another run's.
    """
    runtime = make_runtime(config, agents=False)
    try:
        template = runtime.shapes()
        if config.runtime.kind == "flower":
            best = () if runtime.federation.personal else template.best
            template = dataclasses.replace(template, agents=(), environments=(), best=best)
        restored = load_checkpoint(directory.checkpoints, template, accepting(config))
    finally:
        runtime.close()
    return None if restored is None else jax.tree.map(lambda x: x[0], restored[0])
