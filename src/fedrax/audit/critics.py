"""A7: which transitions a critic that was sent has learned from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from fedrax.audit.base import Answers, Effort, Leak
from fedrax.audit.estimates import auc, auc_margin
from fedrax.audit.setting import Setting
from fedrax.audit.sight import check_finite, play, seen_of
from fedrax.environments.base import Discrete
from fedrax.errors import FedraxError
from fedrax.federation import Tally
from fedrax.learners.base import Agent
from fedrax.learners.off_policy import CRITIC, OffPolicy, Training
from fedrax.learners.replay import Replay, Transitions, unpacked
from fedrax.learners.twin_critic import TwinCritic
from fedrax.seeds import derive
from fedrax.strategies.fedavg import FedAvg
from fedrax.strategies.sharing import put_shared, take_shared
from fedrax.trees import unravel_like

MOST_ROUNDS = 64
"""In which fresh agents are given to start learning."""


class Played(NamedTuple):
    """Participants after a round, leaves ``[m, ...]``."""

    agents: Agent
    running: PyTree
    """Their environments."""
    updates: PyTree
    """Before protection."""


class SentCritics(Leak):
    """A7: transitions told apart by how well the critics' values agree with each other on them."""

    id = "A7"
    question = "did the critic learn from this step?"
    headline = "auc"

    def inapplicable(self, setting: Setting) -> str | None:
        """Where no critics are averaged, or no environment can be played."""
        federation = setting.federation
        learner, strategy = federation.learner, federation.strategy
        if not isinstance(learner, OffPolicy) or isinstance(federation.spaces.action, Discrete):
            return f"learner {learner.name!r} has no critics of real actions that learn from a replay"
        if not isinstance(strategy, FedAvg) or (strategy.average and not set(CRITIC) <= set(strategy.average)):
            return f"strategy {strategy.name!r} does not average critics"
        if setting.runtime is None:
            return "the environment is not in JAX"
        if not isinstance(setting.fresh.memory.replay, Replay):
            return "replays relabel goals (learner.hindsight)"
        return None

    def answers(self, setting: Setting, effort: Effort, key: PRNGKeyArray) -> Answers:
        """How well an agent's latest steps are told from others that it would as likely have taken."""
        everyone = playing(setting)
        before = started(setting, everyone, key)
        told, other = (everyone(before, derive(key, which)) for which in ("told", "other"))
        check_finite((told.updates, other.updates))
        critic = critics_seen(setting, told.updates, key)
        members, strangers = (added(before.agents, each.agents) for each in (told, other))
        learner = setting.federation.learner
        assert isinstance(learner, OffPolicy)
        scores = [np.asarray(agreement(learner, critic, steps)) for steps in (members, strangers)]
        check_finite(scores, "critics' values")
        area = auc(*scores)
        return {"auc": area, "auc_margin": auc_margin(area, *map(len, scores)), "steps": len(scores[0])}


def started(setting: Setting, everyone: Callable[[Played, PRNGKeyArray], Played], key: PRNGKeyArray) -> Played:
    """The participants at the start of the round: the run's, or fresh ones in the first round that they learn in.

    Raises:
        FedraxError: fresh ones have learned nothing in many rounds.
    """
    m, runtime = setting.federation.participants, setting.runtime
    assert runtime is not None
    physics = jax.tree.map(lambda x: x[:m], runtime.drawn(runtime.agents_draws, 0))
    axes = None if physics is None else 0
    running = jax.vmap(runtime.collector.start, (0, axes))(jax.random.split(derive(key, "start"), m), physics)
    if jax.tree.leaves(setting.agents):
        return Played(jax.tree.map(lambda x: x[:m], setting.agents), running, ())
    agents = jax.tree.map(lambda x: jnp.broadcast_to(x, (m, *x.shape)), setting.fresh)
    before = Played(agents, running, ())
    for number in range(MOST_ROUNDS):
        after = everyone(before, derive(key, "before", number))
        if any(np.asarray(leaf).any() for leaf in jax.tree.leaves(after.updates)):
            return before
        before = after
    raise FedraxError(f"fresh agents have learned nothing in {MOST_ROUNDS} rounds: lower learner.learning_starts")


def playing(setting: Setting) -> Callable[[Played, PRNGKeyArray], Played]:
    """A compiled round of all participants, by the draws of its key."""
    runtime, federation = setting.runtime, setting.federation
    assert runtime is not None
    m = federation.participants
    physics = jax.tree.map(lambda x: x[:m], runtime.drawn(runtime.agents_draws, 0))
    zero = jnp.asarray(0)
    tally = Tally(jnp.asarray(setting.rounds), zero, zero, zero, zero)
    sending = federation.sending(setting.downlink, tally.rounds, setting.key, federation.protection.first_clip)

    def one(inputs: tuple[Any, ...], key: PRNGKeyArray) -> Played:
        agent, index, own, running = inputs
        inputs = (agent, index, jnp.asarray(False), None, own, running)
        return Played(*play(runtime, inputs, key, downlink=setting.downlink, sending=sending, tally=tally))

    @jax.jit
    def everyone(before: Played, key: PRNGKeyArray) -> Played:
        inputs = (before.agents, jnp.arange(m), physics, before.running)
        played: Played = jax.lax.map(lambda inputs: one(inputs, key), inputs)
        return played

    return everyone


def critics_seen(setting: Setting, updates: PyTree, key: PRNGKeyArray) -> TwinCritic:
    """The networks that a server takes agent 0's for: those broadcast, moved by what it sees, or by its mean."""
    federation = setting.federation
    strategy = federation.strategy
    assert isinstance(strategy, FedAvg)
    episodes = jnp.asarray(setting.episodes)
    row = seen_of(federation, setting.fresh, updates, episodes, derive(key, "send"), setting.whole_round)[0]
    if federation.protection.sums:
        row = row / federation.participants
    # Not every strategy sends the same networks to all.
    params = strategy.absorb(setting.fresh, setting.downlink, jnp.asarray(0)).params
    shared, change = take_shared(params, strategy.average), unravel_like(setting.update_shapes, row)
    # Beside the networks: what belongs to them (``strategies.carried``), or a control variate.
    while isinstance(change, dict) and "networks" in change:
        change = change["networks"]
    moved: TwinCritic = put_shared(params, jax.tree.map(jnp.add, shared, change), strategy.average)
    return moved


def added(before: Agent, after: Agent) -> Transitions:
    """What agent 0 remembers since, leaves ``[n, ...]``."""
    earlier, later = (jax.tree.map(lambda x: x[0], agents.memory.replay) for agents in (before, after))
    capacity = later.rows.shape[0]
    count = int((later.cursor - earlier.cursor) % capacity)
    place = (int(earlier.cursor) + np.arange(count)) % capacity
    return unpacked(later.space, later.rows[place], None if later.images is None else later.images[place])


def agreement(learner: OffPolicy, critic: TwinCritic, steps: Transitions) -> Float[Array, " n"]:
    """Less the absolute temporal-difference error of both critics together, by the networks as targets of themselves.

    What was learned from has a smaller one (Yeom et al., 2018, for losses in general).
    """
    noise = jax.tree.map(jnp.zeros_like, learner.noise(jax.random.key(0), steps))
    wanted = learner.targets(Training(critic, {}, critic, ()), steps, noise)
    first, second = critic.values(steps.observation, steps.action)
    return -(jnp.abs(first - wanted) + jnp.abs(second - wanted))
