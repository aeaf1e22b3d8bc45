"""From a configuration to the runtime that can run it."""

from __future__ import annotations

import dataclasses

from fedrax.aggregators.base import Aggregator, PreAggregator, aggregators
from fedrax.attacks.base import Attack
from fedrax.compatibility import (
    check_clip,
    check_components,
    check_compression,
    check_critic,
    check_poisson,
    check_records,
    check_secure_sum,
)
from fedrax.compression.base import Compression
from fedrax.config import Config
from fedrax.config_tables import TD3_HER
from fedrax.environments.base import Spaces, stack_physics
from fedrax.errors import FedraxError
from fedrax.federation import Federation
from fedrax.learners.base import Learner
from fedrax.learners.critics.base import Critic
from fedrax.participation import fewest_participants, most_participants
from fedrax.privacy.guarantee import honest_participants, noise_on_updates
from fedrax.privacy.protection import Protection
from fedrax.privacy.secure_sum.terms import threshold_of
from fedrax.runtime.base import Runtime
from fedrax.runtime.compiling import enable_compilation_cache
from fedrax.runtime.draws import all_draws, describe_run, make_environment
from fedrax.runtime.library import Programs
from fedrax.runtime.videos import check_picture
from fedrax.strategies.base import Strategy


def make_runtime(config: Config, *, agents: bool = True, library: Programs | None = None) -> Runtime:
    """The runtime of a configuration: native where Fedrax has the environment in JAX, host otherwise.

    Args:
        library: where compiled programs of earlier runs are, which this one may use, and where its own are put.
        agents: False where agents act elsewhere, so that none of their environments is made here.

    Raises:
        FedraxError: a configuration that cannot run, in one line.
    """
    enable_compilation_cache()
    settings = config.environment
    described, mixture = describe_run(config)
    if config.video.every is not None:
        check_picture(config)
    spaces = described.spaces
    if settings.terminate_on_success and spaces.goal is not None:
        spaces = dataclasses.replace(spaces, goal=dataclasses.replace(spaces.goal, ends=True))
    federation = make_federation(config, spaces, described.horizon(settings.horizon))
    if config.privacy.secure_sum:
        message, _ = federation.shapes()
        check_secure_sum(
            federation.compression,
            federation.strategy,
            federation.protection,
            message,
            participants=federation.participants,
        )
    draws = all_draws(config)
    if described.native:
        from fedrax.runtime.native import NativeRuntime

        environment = make_environment(config)
        return NativeRuntime(config, federation, environment, stack_physics(draws) if draws else None, library)
    from fedrax.runtime.host import HostRuntime

    return HostRuntime(config, federation, described, draws, mixture, agents=agents)


def make_learner(config: Config) -> Learner:
    """The learner, with its critics.

    Raises:
        FedraxError: a critic that the learner has no use for, or that the federation does not fit.
    """
    learner: Learner = config.component("learner")
    critic: Critic = config.component("critic")
    strategy: Strategy = config.component("strategy")
    check_critic(learner, critic, strategy)
    return learner.judged_by(critic.bind(config.federation.agents + strategy.saved_agents))


def make_protection(config: Config, participants: float) -> Protection:
    """What is done to the updates of a round with so many participants, on average."""
    settings = config.privacy
    return Protection(
        unit=settings.unit,
        model=settings.model,
        clip=settings.clip,
        by_layer=settings.clip_by == "layer",
        quantile=settings.clip_quantile,
        rate=settings.clip_rate,
        share_noise=(settings.clip_noise or 0.0) if settings.noise else 0.0,
        noise=noise_on_updates(settings),
        expected=float(participants),
        secure_sum=settings.secure_sum,
        bits=settings.bits or 0,
        honest=honest_participants(settings, participants),
        least=threshold_of(round(participants), settings.threshold) if settings.secure_sum else 0,
    )


def make_federation(config: Config, spaces: Spaces, horizon: int) -> Federation:
    """The federation a configuration describes, whose training episodes are cut after ``horizon`` steps.

    Raises:
        FedraxError: an impossible combination, in one line.
    """
    learner = make_learner(config)
    strategy: Strategy = config.component("strategy")
    attack: Attack = config.component("attack")
    aggregator: Aggregator = config.component("aggregator")
    preaggregator: PreAggregator = config.component("preaggregator")
    compression: Compression = config.component("compression")
    agents = config.federation.agents
    sites = agents
    if strategy.needs.pooled:
        agents = 1
    share = config.federation.participation
    participants = fewest = max(1, round(share * agents))
    chance = None
    if config.federation.sampling == "poisson" and share < 1:
        check_poisson(strategy, attack)
        chance, participants = share, most_participants(agents, share)
        fewest = fewest_participants(agents, share)

    if config.evaluation.aggregation and (strategy.needs.pooled or strategy.means_of_episodes):
        why = "has one learner for all" if strategy.needs.pooled else "averages gradients, and no networks"
        raise FedraxError(
            f"evaluation.aggregation = true is not allowed: strategy {strategy.name!r} {why}; set "
            "evaluation.aggregation=false"
        )
    strategy = strategy.bind(agents, config.seed)
    if aggregator.tolerated is None:
        aggregator = dataclasses.replace(aggregator, tolerated=min(attack.agents, participants))
    protection = make_protection(config, participants if chance is None else chance * agents)
    check_components(
        learner,
        strategy,
        aggregator,
        preaggregator,
        attack,
        protection,
        agents=sites,
        participants=fewest,
        local_updates=config.federation.local_updates,
        varies=chance is not None,
    )
    check_records(learner, config.records.csv_layout)
    actions = learner.actions(spaces)
    learner.check(spaces)
    learner = learner.bind(spaces, config.environment.num_envs * (sites // agents), horizon)
    if config.video.agent >= sites:
        raise FedraxError(f"video.agent = {config.video.agent} is not allowed: there are agents 0 to {sites - 1}")
    federation = Federation(
        learner=learner,
        strategy=strategy,
        aggregator=aggregator,
        preaggregator=preaggregator,
        spread=aggregators.build("geometric-median", {}),
        attack=attack,
        compression=compression,
        spaces=spaces,
        actions=actions,
        agents=agents,
        sites=sites,
        participants=participants,
        dropout=config.federation.dropout,
        local_updates=config.federation.local_updates,
        protection=protection,
        detailed=config.records.csv_layout == TD3_HER,
        chance=chance,
        best_by=config.evaluation.best_by,
    )
    if protection.clip is not None:
        check_clip(strategy, federation.update_shapes())
    if not compression.lossless:
        check_compression(compression, strategy, protection, federation.update_shapes())
    return federation
