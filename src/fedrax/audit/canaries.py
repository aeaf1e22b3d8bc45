"""Whether somebody took part: canaries in half of many releases of a run's own mechanism, told apart by their score.

The attacker knows everybody else's part, which is therefore left out (zeros), and looks for a random direction of the
clip's length: the worst case that the definition of differential privacy speaks of. Of two normal distributions, the
inner product with the canary orders releases as their likelihood ratio does.
"""

from __future__ import annotations

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from fedrax.audit.base import Answers, Effort, Leak
from fedrax.audit.estimates import auc, auc_margin, least_epsilon, true_positives_at
from fedrax.audit.setting import Setting
from fedrax.audit.sight import Asked, check_finite, seen, sent
from fedrax.federation import Federation
from fedrax.learners.base import Agent
from fedrax.trees import unravel_like

MOST_NUMBERS = 1_000_000_000
"""That are drawn for the canaries of one attack."""
LEAST_REPETITIONS = 100
MOST_ROUNDS = 16
"""Releases in each of which an agent's canary lies."""
AT_ONCE = 4_000_000
"""Numbers that are held at once."""


@dataclasses.dataclass(frozen=True)
class Canary:
    """What is inserted."""

    length: float
    """Of the agent's update."""
    opposite: bool
    """Whether its absence is the opposite update in its place, as neighbours by replacement differ, or nothing."""
    releases: int


def told_apart(setting: Setting, canary: Canary, effort: Effort, key: PRNGKeyArray) -> Answers:
    """How well present canaries are told from absent ones, and the epsilon that follows at least."""
    width = setting.dimension * setting.federation.participants
    count = max(LEAST_REPETITIONS, min(effort.repetitions, MOST_NUMBERS // (width * canary.releases))) // 2
    batch = max(1, min(count, AT_ONCE // width))
    count -= count % batch
    worlds = [1.0, -1.0 if canary.opposite else 0.0]
    present, absent = (
        np.asarray(
            scores(
                setting.federation,
                setting.fresh,
                jax.random.split(jax.random.fold_in(key, place), (count, canary.releases + 1)),
                jnp.asarray(canary.length * sign),
                setting.episodes,
                setting.whole_round,
                batch,
            )
        )
        for place, sign in enumerate(worlds)
    )
    check_finite((present, absent))
    area = auc(present, absent)
    return {
        "auc": area,
        "auc_margin": auc_margin(area, count, count),
        "tpr_at_1_percent": true_positives_at(0.01, present, absent),
        "releases": canary.releases,
    } | _epsilons(setting, present, absent, canary.releases)


def _epsilons(setting: Setting, present: np.ndarray, absent: np.ndarray, releases: int) -> Answers:
    bound = setting.bound
    claimed = math.inf if bound is None else bound.epsilon(releases, sampled=False)
    guaranteed = {} if bound is None else {"releases_guaranteed": bound.releases(setting.planned)}
    return guaranteed | {
        "epsilon_at_least": least_epsilon(present, absent, 0.0 if bound is None else bound.delta),
        "epsilon_claimed": None if math.isinf(claimed) else claimed,
    }


@eqx.filter_jit
def scores(
    federation: Federation,
    agent: Agent,
    keys: Array,
    length: Array,
    episodes: int,
    round: int,
    batch: int,
) -> Float[Array, " n"]:
    """The score of each of ``n`` repetitions, in whose releases the same random direction lies, ``length`` long.

    ``keys`` are ``[n, releases + 1]``, the first of each for the direction; ``batch`` repetitions are made at once.
    """
    shapes = jax.eval_shape(lambda a: federation.strategy.emit(federation.learner, a, keys[0, 0]), agent).update
    width = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))

    def one(keys: Array) -> Array:
        direction = jax.random.normal(keys[0], (width,))
        direction /= jnp.linalg.norm(direction)
        first = jnp.zeros((federation.participants, 1)).at[0].set(length)

        def release(total: Array, key: PRNGKeyArray) -> tuple[Array, None]:
            own = jax.random.split(key, federation.participants)
            updates = unravel_like(shapes, first * direction)
            sending = federation.sending(
                Asked(jnp.asarray(episodes)), jnp.asarray(round), key, federation.protection.first_clip
            )
            messages = jax.vmap(lambda update, own: sent(federation, agent, update, sending, own))(updates, own)
            return total + seen(federation, messages, episodes, key, round)[0] @ direction, None

        return jax.lax.scan(release, jnp.asarray(0.0), keys[1:])[0]

    return jax.lax.map(one, keys, batch_size=batch)


class Trajectories(Leak):
    """A1: a canary in place of one of an agent's episodes."""

    id = "A1"
    question = "was this trajectory in the message?"
    headline = "auc"

    def inapplicable(self, setting: Setting) -> str | None:
        """Where updates are no means over episodes, or agents are what is protected."""
        strategy = setting.federation.strategy
        if setting.without_updates:
            return setting.without_updates
        if not strategy.means_of_episodes:
            return f"updates of strategy {strategy.name!r} are no means over episodes"
        if setting.config.privacy.unit == "agent":
            return "privacy.unit=agent bounds all that an agent sends (A2)"
        return None

    def answers(self, setting: Setting, effort: Effort, key: PRNGKeyArray) -> Answers:
        """Of one release: an episode enters one round."""
        clip = setting.config.privacy.clip or 1.0
        replaced = setting.config.privacy.neighbours == "replace"
        return told_apart(setting, Canary(clip / max(setting.episodes, 1), replaced, 1), effort, key)


class Participation(Leak):
    """A2: a canary in place of all that an agent sends."""

    id = "A2"
    question = "did this agent take part?"
    headline = "auc"

    def inapplicable(self, setting: Setting) -> str | None:
        """Where there is no update."""
        return setting.without_updates

    def answers(self, setting: Setting, effort: Effort, key: PRNGKeyArray) -> Answers:
        """Of as many releases as the run has rounds, up to :data:`MOST_ROUNDS`."""
        privacy = setting.config.privacy
        canary = Canary(privacy.clip or 1.0, privacy.neighbours == "replace", min(setting.planned, MOST_ROUNDS))
        answers = told_apart(setting, canary, effort, key)
        # What bounds an episode's influence promises nothing of all of an agent's.
        return answers if privacy.unit == "agent" else answers | {"epsilon_claimed": None}
