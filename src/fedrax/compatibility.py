"""Which components work together, decided before anything is computed; why others do not, in one line.

A learner says what it ``provides``, a strategy what it ``requires`` of one and whether its agents' messages hold
anything, a rule whether it uses weights or a gradient of the server's own, an attack what it acts on. What concerns one
component alone, or the environment, is its own ``check``.
"""

from __future__ import annotations

import math

import jax
from jaxtyping import PyTree

from fedrax.aggregators.base import Aggregator, PreAggregator, aggregators
from fedrax.attacks.base import Attack, attacks
from fedrax.compression.base import Compression, compressions
from fedrax.config_tables import TD3_HER
from fedrax.errors import FedraxError
from fedrax.learners.base import Learner, learners
from fedrax.learners.critics.base import Critic, critics
from fedrax.message import Message, is_real, periods
from fedrax.privacy.guarantee import summed_noise
from fedrax.privacy.protection import Protection
from fedrax.privacy.secure_sum.terms import LEAST, most_bits
from fedrax.strategies.base import Strategy, strategies

LEAST_WIDTH = 32
"""The deviation, in integers, from which on the noise of a secure sum is as good as a Gaussian: its Renyi divergence is
larger by a share of at most ``(1 + 3 / a) / 32^2`` at order a (:func:`fedrax.privacy.noise.skellam`)."""
SINGLE = "krum"
"""The rule that accepts one message a round."""
CAPABILITIES = {
    "gradient": "a gradient at any given policy",
    "distribution": "a stochastic policy",
    "representations": "representations to compare",
    "targets": "target networks",
    "critics": "critics of features and head that learn from a replay",
    "peers": "twin critics that may attend over peers",
}
"""What learners may provide, in words."""


def check_components(
    learner: Learner,
    strategy: Strategy,
    aggregator: Aggregator,
    preaggregator: PreAggregator,
    attack: Attack,
    protection: Protection,
    *,
    agents: int,
    participants: int,
    local_updates: int,
    varies: bool = False,
) -> None:
    """Raises :class:`FedraxError` for components that do not work together.

    ``agents`` are those configured, and ``participants`` the fewest that take part in a round, where that ``varies``; a
    round without any has no messages, and there the bound is that of one message.
    """
    check_strategy(learner, strategy, local_updates=local_updates)
    check_protection(learner, strategy, aggregator, preaggregator, protection)
    check_attack(learner, strategy, attack, agents=agents)
    if strategy.sends:
        check_rule(strategy, aggregator)
        if strategy.shows_peers:
            check_exchange(strategy, aggregator, preaggregator, attack)
        check_bound(aggregator, preaggregator, max(1, participants), varies=varies)


def check_strategy(learner: Learner, strategy: Strategy, *, local_updates: int) -> None:
    """Raises :class:`FedraxError` for a learner that does not provide what the strategy requires."""
    missing = strategy.requires - learner.provides
    if missing:
        able = ", ".join(name for name in learners if strategy.requires <= learners[name].provides)
        wanted = " and ".join(CAPABILITIES[one] for one in sorted(missing))
        raise FedraxError(
            f"strategy {strategy.name!r} needs a learner with {wanted}, which {learner.name!r} has not; set learner to "
            f"one of: {able}"
        )
    strategy.check(learner)
    if learner.normalises and strategy.readers is not None:
        raise FedraxError(
            f"learner.normalise = true is not allowed with strategy {strategy.name!r}: agents would use one "
            "another's networks, each of which sees observations by the moments of its own agent; set "
            "learner.normalise=false, or a strategy that merges the moments, as fedavg does"
        )
    if local_updates > 1 and not strategy.needs.local_updates:
        raise FedraxError(
            f"federation.local_updates = {local_updates} is not allowed: strategy {strategy.name!r} "
            "sends one gradient a round; set federation.local_updates=1"
        )
    if local_updates < strategy.least_local_updates:
        raise FedraxError(
            f"federation.local_updates = {local_updates} is not allowed: strategy {strategy.name!r} needs at least "
            f"{strategy.least_local_updates} in a round; raise it"
        )


def check_critic(learner: Learner, critic: Critic, strategy: Strategy) -> None:
    """Raises :class:`FedraxError` for a critic that the learner has no use for, or that a strategy has no use of."""
    if strategy.shows_peers and not critic.attends:
        able = ", ".join(name for name in critics if critics[name].attends)
        raise FedraxError(
            f"strategy {strategy.name!r} exchanges encoders for critics that attend over them, which critic "
            f"{critic.name!r} does not; set critic to one of: {able}"
        )
    if critic.name != "mlp" and "peers" not in learner.provides:
        able = ", ".join(name for name in learners if "peers" in learners[name].provides)
        raise FedraxError(
            f"critic {critic.name!r} is for off-policy learners, and learner {learner.name!r} is none; set learner to "
            f"one of: {able}, or critic=mlp"
        )


def check_attack(learner: Learner, strategy: Strategy, attack: Attack, *, agents: int) -> None:
    """Raises :class:`FedraxError` for an attack by nobody or by too many, or on what is never sent."""
    if attack.name != "none" and attack.agents == 0:
        raise FedraxError(
            f"attack {attack.name!r} has no agents; set attack.agents (of {agents} agents), or attack=none"
        )
    if attack.name == "none" and attack.agents > 0:
        raise FedraxError(f"attack.agents = {attack.agents} but there is no attack; set attack=NAME (fedrax list)")
    if attack.agents > agents:
        raise FedraxError(
            f"attack.agents = {attack.agents} is more than federation.agents = {agents}; "
            "lower the one or raise the other"
        )
    if attack.on_messages and not strategy.sends:
        raise FedraxError(
            f"attack {attack.name!r} changes messages, and agents of strategy {strategy.name!r} send none; set "
            "attack=none, or an attack on the environment (fedrax list)"
        )
    if type(attack).poison is not Attack.poison and learner.needs_goal_rule:
        raise FedraxError(
            f"attack {attack.name!r} changes the rewards that an agent gets, and its learner knows the environment's "
            "own rule: it would put most of them right; set learner.hindsight=none and learner.clip_values=false, or "
            "an attack on messages (fedrax list)"
        )
    if attack.on_statistics and not (strategy.reports or (strategy.sends and learner.normalises)):
        raise FedraxError(
            f"attack {attack.name!r} changes statistics, and agents of strategy {strategy.name!r} report none; set "
            "another attack, or weight agents by return (strategy=fedavg strategy.return_temperature=1), or let them "
            "send moments of observations (learner.normalise=true)"
        )


def check_poisson(strategy: Strategy, attack: Attack) -> None:
    """Raises :class:`FedraxError` for what cannot be where each agent takes part by a chance of its own."""
    if strategy.needs.pooled:
        raise FedraxError(
            f"federation.sampling = 'poisson' is not allowed with strategy {strategy.name!r}, whose one learner has "
            "all agents' environments and always takes part; set federation.sampling=uniform"
        )
    if type(attack).corrupt is not Attack.corrupt and not attack.ignores_honest:
        able = ", ".join(name for name in attacks if attacks[name].ignores_honest)
        raise FedraxError(
            f"federation.sampling = 'poisson' is not allowed with attack {attack.name!r}, which reckons with the "
            "honest messages of a round, whose number then varies; set federation.sampling=uniform, or attack to one "
            f"of: {able}"
        )


def check_bound(aggregator: Aggregator, preaggregator: PreAggregator, participants: int, *, varies: bool) -> None:
    """Raises :class:`FedraxError` where a round may have too few ``participants`` for what the rule must tolerate."""
    try:
        aggregator.check(preaggregator.rows(participants))
    except FedraxError as error:
        if not varies:
            raise
        raise FedraxError(
            f"federation.sampling = 'poisson' may leave {participants} of the agents in a round: {error}, raise "
            "federation.participation, or set federation.sampling=uniform"
        ) from None


def check_rule(strategy: Strategy, aggregator: Aggregator) -> None:
    """Raises :class:`FedraxError` for a rule that cannot do what the strategy asks, or asks what it cannot give."""
    if aggregator.needs_server_gradient and strategy.reference_episodes == 0:
        able = ", ".join(name for name in strategies if strategies[name].needs.server_environment)
        raise FedraxError(
            f"aggregator {aggregator.name!r} compares agents with a gradient that the server samples itself, and the "
            f"server of strategy {strategy.name!r} samples nothing; set another aggregator, or a strategy of {able}"
        )
    if strategy.weighs and not aggregator.uses_weights:
        able = ", ".join(name for name in aggregators if aggregators[name].uses_weights)
        raise FedraxError(
            f"strategy {strategy.name!r} weighs agents, and aggregator {aggregator.name!r} heeds no weights; set "
            f"aggregator to one of {able}, or let agents count alike (strategy=fedavg, without "
            "strategy.return_temperature)"
        )
    if strategy.shows_peers and not (aggregator.rejects or aggregator.name == "mean"):
        sampled = strategy.reference_episodes > 0
        able = ", ".join(
            name
            for name in aggregators
            if aggregators[name].rejects and name != SINGLE and (sampled or not aggregators[name].needs_server_gradient)
        )
        raise FedraxError(
            f"strategy {strategy.name!r} averages nothing, so aggregator {aggregator.name!r} would change nothing; "
            f"set aggregator=mean, one that rejects messages ({able}), or strategy.clip"
        )


def check_exchange(strategy: Strategy, aggregator: Aggregator, preaggregator: PreAggregator, attack: Attack) -> None:
    """Raises :class:`FedraxError` for what would change nothing of what agents show one another, or silence them."""
    if aggregator.name == SINGLE:
        raise FedraxError(
            f"aggregator {SINGLE!r} accepts one message a round, so that agents of strategy {strategy.name!r} would "
            "see the first encoders of all others; set aggregator=multi-krum"
        )
    if preaggregator.name != "none":
        raise FedraxError(
            f"preaggregator {preaggregator.name!r} mixes updates, and strategy {strategy.name!r} averages none; set "
            "preaggregator=none"
        )
    if strategy.readers == 0:
        idle = attack if attack.on_messages else aggregator if aggregator.name != "mean" else None
        if idle is not None:
            raise FedraxError(
                f"{'attack' if idle is attack else 'aggregator'} {idle.name!r} would change nothing: no agent of this "
                f"run sees what another sends; set it to {'none' if idle is attack else 'mean'}, or "
                "strategy.exchange=peers with two agents or more"
            )


def check_protection(
    learner: Learner, strategy: Strategy, aggregator: Aggregator, preaggregator: PreAggregator, protection: Protection
) -> None:
    """Raises :class:`FedraxError` where what is to be protected is sent past the chain, or needed one by one."""
    if protection.unit is None and protection.clip is None:
        return
    if strategy.sends_moments:
        raise FedraxError(
            "strategy.moments = 'average' sends an optimiser's moments, which noise and clipping make useless: second "
            "moments are small, and steps are divided by their roots; set strategy.moments=reset or keep, or leave "
            "privacy. out"
        )
    key = "privacy.secure_sum" if protection.secure_sum else "privacy.unit" if protection.unit else "privacy.clip"
    if not strategy.sends:
        raise FedraxError(
            f"{key} protects what agents send, and agents of strategy {strategy.name!r} send nothing; leave it out"
        )
    able = ", ".join(name for name in strategies if strategies[name].averages)
    if protection.unit is None and not protection.sums:
        return
    if not strategy.averages:
        raise FedraxError(
            f"strategy {strategy.name!r} lets its server, or other agents, see more of an agent than its part in a "
            f"mean, which {key} does not cover; set strategy to one of: {able}"
        )
    _check_nothing_beside(learner, strategy, key)
    if protection.sums:
        _check_only_the_mean(aggregator, preaggregator, key)
    if protection.unit == "trajectory":
        _check_episodes(learner, strategy)


def _check_nothing_beside(learner: Learner, strategy: Strategy, key: str) -> None:
    """Raises where messages hold statistics, which nothing clips."""
    if strategy.weighs:
        raise FedraxError(
            f"strategy {strategy.name!r} weighs agents by their returns, which {key} does not cover; leave "
            "strategy.return_temperature out"
        )
    if learner.normalises:
        raise FedraxError(
            f"learner.normalise sends the moments of what agents observe, which {key} does not cover; set "
            "learner.normalise=false"
        )


def _check_only_the_mean(aggregator: Aggregator, preaggregator: PreAggregator, key: str) -> None:
    """Raises where a rule must see updates one by one."""
    if aggregator.name != "mean":
        raise FedraxError(
            f"aggregator {aggregator.name!r} takes agents' updates one by one, of which the server may know the sum "
            f"alone ({key}); set aggregator=mean, or noise that each agent adds itself (privacy.model=local)"
        )
    if preaggregator.name != "none":
        raise FedraxError(
            f"preaggregator {preaggregator.name!r} mixes agents' updates, of which the server may know the sum alone "
            f"({key}); set preaggregator=none"
        )


def _check_episodes(learner: Learner, strategy: Strategy) -> None:
    """Raises where an update is no mean over episodes, each of which can be clipped."""
    if not strategy.means_of_episodes:
        able = ", ".join(name for name in strategies if strategies[name].means_of_episodes)
        raise FedraxError(
            f"privacy.unit=trajectory needs gradients of single episodes, and agents of strategy {strategy.name!r} "
            f"send what several steps came to; set strategy to one of: {able}, or privacy.unit=agent"
        )
    if learner.coupling is not None:
        raise FedraxError(f"privacy.unit=trajectory needs gradients of single episodes, and {learner.coupling}")


def check_clip(strategy: Strategy, update: PyTree) -> None:
    """Raises :class:`FedraxError` for a bound on updates where messages hold none; ``update`` as bare shapes."""
    if not any(is_real(leaf) for leaf in jax.tree.leaves(update)):
        raise FedraxError(
            f"privacy.clip shortens agents' updates, and messages of strategy {strategy.name!r} hold no updates; leave "
            "it out"
        )


def check_compression(compression: Compression, strategy: Strategy, protection: Protection, update: PyTree) -> None:
    """Raises :class:`FedraxError` for a compression of nothing, or one that cannot leave out what does not travel.

    Args:
        update: an agent's as bare shapes.
    """
    if not strategy.sends or not any(is_real(leaf) for leaf in jax.tree.leaves(update)):
        sent = "hold no updates" if strategy.sends else "do not exist"
        raise FedraxError(
            f"compression {compression.name!r} encodes agents' updates, and messages of strategy {strategy.name!r} "
            f"{sent}; set compression=none"
        )
    if strategy.sends_moments:
        raise FedraxError(
            f"compression {compression.name!r} encodes changes, and strategy.moments = 'average' sends an optimiser's "
            "moments with them, of which the smallest are what steps are divided by; set strategy.moments=reset or "
            "keep, or compression=none"
        )
    if protection.quantile is not None:
        raise FedraxError(
            f"compression {compression.name!r} changes the lengths of updates, by which privacy.clip_quantile sees "
            "which were shortened: set compression=none, or leave privacy.clip_quantile out"
        )
    longest = max(jax.tree.leaves(periods(Message(update), strategy.period)))
    if longest > 1 and not compression.by_array:
        able = ", ".join(name for name in compressions if compressions[name].by_array)
        raise FedraxError(
            f"compression {compression.name!r} makes one array of an update, of which strategy {strategy.name!r} sends "
            f"parts only once in {longest} rounds; set compression to one of: {able}, or let all parts travel in every "
            "round, as with strategy.actor_every=1"
        )


def check_secure_sum(
    compression: Compression, strategy: Strategy, protection: Protection, message: Message, *, participants: int
) -> None:
    """Raises :class:`FedraxError` for updates that cannot be summed as integers, or sums that would show one.

    ``message`` is one as bare shapes.
    """
    if not compression.lossless:
        raise FedraxError(
            f"privacy.secure_sum sums numbers of privacy.bits bits each, and not what compression {compression.name!r} "
            "makes of them; set compression=none"
        )
    if any(turns != 1 for turns in jax.tree.leaves(periods(message, strategy.period))):
        raise FedraxError(
            "privacy.secure_sum sums whole updates, of every round; set strategy.actor_every=1 and what else makes "
            "arrays travel now and then"
        )
    if not all(is_real(leaf) for leaf in jax.tree.leaves(message.update)):
        raise FedraxError(
            f"privacy.secure_sum sums real numbers, and updates of strategy {strategy.name!r} hold others; set another "
            "strategy, or privacy.secure_sum=false"
        )
    if participants < LEAST:
        raise FedraxError(
            f"privacy.secure_sum of {participants} agents would show their updates to each other; raise "
            f"federation.agents or federation.participation, so that {LEAST} take part"
        )
    _check_integers(strategy, protection, message)
    most = most_bits(participants, summed_noise(protection.noise, participants, protection.honest))
    if protection.bits > most:
        raise FedraxError(
            f"privacy.bits = {protection.bits} is not allowed: the sum over {participants} agents does not fit 32 "
            f"bits; set privacy.bits to {most} or less"
        )


def _check_integers(strategy: Strategy, protection: Protection, message: Message) -> None:
    """Raises where integers are too coarse for the noise, or rounding to them as long as the updates."""
    if not protection.noise:
        return
    dimension = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(message.update))
    # Rounded, a vector is longer by at most a step in every coordinate.
    needed = 2 + math.ceil(math.log2(math.sqrt(dimension)))
    if protection.bits < needed:
        raise FedraxError(
            f"privacy.bits = {protection.bits} is not allowed with noise: rounding {dimension} numbers to so few steps "
            f"may make an update twice as long; set privacy.bits to {needed} or more"
        )
    wide = protection.share_of_noise(strategy.max_episodes) * math.sqrt(protection.honest)
    if wide < LEAST_WIDTH:
        more = protection.bits + math.ceil(math.log2(LEAST_WIDTH / wide))
        raise FedraxError(
            f"privacy.bits = {protection.bits} is not allowed: the deviation of the noise on the sum would be "
            f"{float(wide):.2g} integers, which is no Gaussian, as the account of privacy has it, below {LEAST_WIDTH}; "
            f"set privacy.bits to {more} or more, or raise privacy.noise"
        )


def check_records(learner: Learner, csv_layout: str) -> None:
    """Raises :class:`FedraxError` for a layout of records whose columns the learner has nothing for."""
    if csv_layout == TD3_HER and "critics" not in learner.provides:
        able = ", ".join(name for name in learners if "critics" in learners[name].provides)
        raise FedraxError(
            f"records.csv_layout = {csv_layout!r} has columns for losses and values of twin critics, which learner "
            f"{learner.name!r} has not; set learner to one of: {able}, or records.csv_layout=fedrax"
        )
