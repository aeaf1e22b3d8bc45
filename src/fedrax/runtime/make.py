"""From a configuration to a simulation that can run it."""

from __future__ import annotations

import dataclasses

from fedrax.aggregators.base import Aggregator, PreAggregator, aggregators
from fedrax.attacks.base import Attack
from fedrax.config import Config
from fedrax.environments.base import Spaces, stack_physics
from fedrax.environments.registry import describe_environment
from fedrax.errors import FedraxError
from fedrax.federation import Federation
from fedrax.learners.base import Learner
from fedrax.runtime.base import Simulation
from fedrax.runtime.draws import all_draws, make_environment
from fedrax.runtime.videos import check_picture
from fedrax.strategies.base import Strategy, strategies


def make_simulation(config: Config, *, agents: bool = True) -> Simulation:
    """The simulation of a configuration: native where Fedrax has the environment in JAX, host otherwise.

    Args:
        agents: False where agents act elsewhere, so that none of their environments is made here.

    Raises:
        FedraxError: a configuration that cannot run, in one line.
    """
    settings = config.environment
    described = describe_environment(
        settings.id,
        native=settings.native,
        backend=settings.backend,
        mission=settings.mission,
        kwargs=settings.kwargs,
    )
    if config.video.every is not None:
        check_picture(config)
    federation = make_federation(config, described.spaces)
    draws = all_draws(config)
    if described.native:
        from fedrax.runtime.native import NativeSimulation

        environment = make_environment(config)
        return NativeSimulation(config, federation, environment, stack_physics(draws) if draws else None)
    from fedrax.runtime.host import HostSimulation

    return HostSimulation(config, federation, described, draws, agents=agents)


def make_federation(config: Config, spaces: Spaces) -> Federation:
    """The federation a configuration describes.

    Raises:
        FedraxError: an impossible combination, in one line.
    """
    learner: Learner = config.component("learner")
    strategy: Strategy = config.component("strategy")
    attack: Attack = config.component("attack")
    aggregator: Aggregator = config.component("aggregator")
    preaggregator: PreAggregator = config.component("preaggregator")
    agents = config.federation.agents
    sites = agents
    if strategy.needs.pooled:
        agents = 1
    participants = max(1, round(config.federation.participation * agents))

    strategy = strategy.settled(agents, config.seed)
    strategy.check(learner)
    learner.check_copies(config.environment.copies * (sites // agents))
    if config.federation.local_updates > 1 and not strategy.needs.local_updates:
        raise FedraxError(
            f"federation.local_updates = {config.federation.local_updates} is not allowed: strategy {strategy.name!r} "
            "sends one gradient a round; set federation.local_updates=1"
        )
    actions = learner.actions(spaces)
    learner.check(spaces)
    if attack.name != "none" and attack.agents == 0:
        raise FedraxError(
            f"attack {attack.name!r} has no agents; set attack.agents (of {agents} agents), or attack=none"
        )
    if attack.name == "none" and attack.agents > 0:
        raise FedraxError(f"attack.agents = {attack.agents} but there is no attack; set attack=NAME (fedrax list)")
    if attack.on_messages and not strategy.sends:
        raise FedraxError(
            f"attack {attack.name!r} changes messages, and agents of strategy {strategy.name!r} send none; set "
            "attack=none, or an attack on the environment (fedrax list)"
        )
    if attack.agents > agents:
        raise FedraxError(
            f"attack.agents = {attack.agents} is more than federation.agents = {agents}; "
            "lower the one or raise the other"
        )
    if config.video.agent >= sites:
        raise FedraxError(f"video.agent = {config.video.agent} is not allowed: there are agents 0 to {sites - 1}")
    if aggregator.tolerated is None:
        aggregator = dataclasses.replace(aggregator, tolerated=min(attack.agents, participants))
    if strategy.sends:
        aggregator.check(preaggregator.rows(participants))
    if strategy.weighs and aggregator.name == "mean":
        raise FedraxError(
            f"strategy {strategy.name!r} weighs agents (strategy.return_temperature), and aggregator 'mean' heeds no "
            "weights; set aggregator=weighted-mean"
        )
    if aggregator.needs_server_gradient and strategy.reference_episodes == 0:
        able = ", ".join(name for name in strategies if strategies[name].needs.server_environment)
        raise FedraxError(
            f"aggregator {aggregator.name!r} compares agents with a gradient that the server samples itself, and the "
            f"server of strategy {strategy.name!r} samples nothing; set another aggregator, or a strategy of {able}"
        )
    if strategy.needs.messages == "sum" and aggregator.name not in ("mean", "weighted-mean"):
        raise FedraxError(
            f"strategy {strategy.name!r} reveals only the sum of the messages, which aggregator {aggregator.name!r} "
            "cannot use; set aggregator=mean"
        )
    return Federation(
        learner=learner,
        strategy=strategy,
        aggregator=aggregator,
        preaggregator=preaggregator,
        spread=aggregators.build("geometric-median", {}),
        attack=attack,
        spaces=spaces,
        actions=actions,
        agents=agents,
        sites=sites,
        participants=participants,
        dropout=config.federation.dropout,
        local_updates=config.federation.local_updates,
    )
