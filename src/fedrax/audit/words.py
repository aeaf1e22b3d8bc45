"""A5: the words that an agent read, from the rows of its embedding that its update changes."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray
from scipy.special import gammaincinv

from fedrax.audit.base import Answers, Effort, Leak
from fedrax.audit.setting import Setting
from fedrax.audit.sight import check_finite, seen_of
from fedrax.environments.base import Box, Dict, Discrete, Episodes, Tokens
from fedrax.learners.base import EpisodeLearner
from fedrax.learners.encoders import Words
from fedrax.seeds import derive
from fedrax.trees import unravel_like

TRIALS = 8
STEPS = 6
LIKELY = 0.99
"""The share of rows without a word that noise alone shall not make longer than the threshold."""


class EmbeddingRows(Leak):
    """A5: rows of embeddings that are longer than noise makes them."""

    id = "A5"
    question = "which words were read?"
    headline = "recall"

    def inapplicable(self, setting: Setting) -> str | None:
        """Where no part of an observation is words, or updates are no gradients of episodes."""
        strategy, space = setting.federation.strategy, setting.federation.spaces.observation
        if not isinstance(space, Dict) or not any(isinstance(part, Tokens) for _, part in space.parts):
            return "observations hold no words"
        if not strategy.sends or not strategy.means_of_episodes:
            return f"updates of strategy {strategy.name!r} are no gradients of episodes"
        return None

    def answers(self, setting: Setting, effort: Effort, key: PRNGKeyArray) -> Answers:
        """Precision and recall of the words at each place of random sentences, each said through an episode.

        Which rows a gradient changes depends on the words alone, so that no environment is played.
        """
        hits = said = there = 0
        for trial in range(TRIALS):
            own = derive(key, "trial", trial)
            true, found = self._trial(setting, own)
            hits, said, there = hits + int((true & found).sum()), said + int(found.sum()), there + int(true.sum())
        return {"precision": hits / said if said else None, "recall": hits / there, "words": there}

    @staticmethod
    def _trial(setting: Setting, key: PRNGKeyArray) -> tuple[np.ndarray, np.ndarray]:
        """Words at places, flat and as bools: those that agent 0 read, and those that the server finds."""
        federation, m = setting.federation, setting.federation.participants
        learner = federation.learner.clipping_episodes(federation.protection.clips_episodes)
        assert isinstance(learner, EpisodeLearner)
        params, episodes = setting.downlink.params, max(setting.episodes, 1)
        everyone = jax.vmap(lambda own: read(setting, own, episodes))(jax.random.split(key, m))
        updates = jax.vmap(lambda each: learner.gradient(params, each))(everyone)
        check_finite(updates)
        sent = seen_of(federation, setting.fresh, updates, jnp.asarray(episodes), key, setting.whole_round)
        deviation = noise_of(setting, episodes)
        true, found = [], []
        for table, tokens in zip(
            tables(unravel_like(setting.update_shapes, sent[0])), sentences(setting, everyone), strict=True
        ):
            found.append(np.asarray(touched(table, deviation)).ravel())
            true.append(np.asarray(words_at(tokens[0], table.shape[1])).ravel())
        return np.concatenate(true), np.concatenate(found)


def read(setting: Setting, key: PRNGKeyArray, episodes: int) -> Episodes:
    """Episodes in each of which a random sentence of a random length is said, and all else is random."""
    spaces = setting.federation.spaces
    space = spaces.observation
    assert isinstance(space, Dict)
    shape = (STEPS, episodes)

    def part(name: str, each: Box | Tokens, key: PRNGKeyArray) -> Array:
        if isinstance(each, Box):
            numbers = jax.random.uniform(key, (*shape, *each.shape))
            return (numbers * 8).astype(each.seen)
        word, length = jax.random.split(key)
        said = jax.random.randint(word, (1, episodes, each.length), 1, each.vocabulary)
        spoken = jnp.arange(each.length) < jax.random.randint(length, (1, episodes, 1), 1, each.length + 1)
        return jnp.broadcast_to(jnp.where(spoken, said, 0), (*shape, each.length)).astype(each.seen)

    observation = {name: part(name, each, derive(key, name)) for name, each in space.parts}
    if isinstance(spaces.action, Discrete):
        action = jax.random.randint(derive(key, "action"), shape, 0, spaces.action.n)
    else:
        action = jax.random.normal(derive(key, "action"), (*shape, *spaces.action.shape))
    reward = jax.random.normal(derive(key, "reward"), shape)
    return Episodes(observation, action, reward, jnp.ones(shape, bool), jnp.ones(episodes, bool))


def tables(network: Any) -> list[Float[Array, "words vocabulary f"]]:
    """The embeddings of a network, or of its gradient."""
    found = jax.tree.leaves(network, is_leaf=lambda part: isinstance(part, Words))
    return [part.table for part in found if isinstance(part, Words)]


def sentences(setting: Setting, episodes: Episodes) -> list[Int[Array, ...]]:
    """The parts of observations that are words, in the order of :func:`tables`."""
    space, observation = setting.federation.spaces.observation, episodes.observation
    assert isinstance(space, Dict)
    assert isinstance(observation, dict)
    return [observation[name] for name, part in space.parts if isinstance(part, Tokens)]


@eqx.filter_jit
def words_at(tokens: Int[Array, "*steps words"], vocabulary: int) -> Bool[Array, "words vocabulary"]:
    """Which words occur at which place; padding (0) is none."""
    said = jax.nn.one_hot(tokens.reshape(-1, tokens.shape[-1]), vocabulary, dtype=bool).any(0)
    return said.at[:, 0].set(False)


def touched(table: Float[Array, "words vocabulary f"], deviation: float) -> Bool[Array, "words vocabulary"]:
    """Rows longer than noise of this deviation in each number leaves 99 % of those that nothing changed."""
    width = table.shape[-1]
    threshold = deviation * float(np.sqrt(2 * gammaincinv(width / 2, LIKELY)))
    return jnp.linalg.norm(table, axis=-1) > threshold


def noise_of(setting: Setting, episodes: int) -> float:
    """The deviation of the noise on what the server sees, which the configuration tells."""
    protection = setting.federation.protection
    if protection.clip is None:
        return 0.0
    return protection.noise * protection.clip / (episodes if protection.unit == "trajectory" else 1)
