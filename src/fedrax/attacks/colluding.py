"""Attackers that agree on what to send, from each other's messages or from everybody's."""

from __future__ import annotations

import statistics
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from fedrax.attacks.base import Attack, Knowledge, attacks, replace_rows
from fedrax.attacks.gradients import per_tensor
from fedrax.registry import Number, option
from fedrax.trees import ravel_rows, unravel_like

Sees = Literal["byzantine", "honest"]


def mean_and_deviation(leaf: Float[Array, "n ..."], mask: Bool[Array, " n"]) -> tuple[Array, Array]:
    """Coordinate-wise mean and unbiased deviation of the rows in ``mask``; the deviation of one row is 0."""
    rows = mask.reshape(mask.shape + (1,) * (leaf.ndim - 1))
    count = mask.sum()
    mean = jnp.where(rows, leaf, 0.0).sum(0) / jnp.maximum(count, 1)
    squares = jnp.where(rows, (leaf - mean) ** 2, 0.0).sum(0)
    return mean, jnp.sqrt(squares / jnp.maximum(count - 1, 1))


def diameter(leaf: Float[Array, "n ..."], mask: Bool[Array, " n"], most: int) -> Array:
    """Largest Euclidean distance among the rows in ``mask``, of which there are at most ``most``."""
    rows = leaf.reshape(leaf.shape[0], -1)
    index = jnp.nonzero(mask, size=most, fill_value=0)[0]
    chosen, real = rows[index], mask[index]

    def farthest(row: Array) -> Array:
        return jnp.where(real, jnp.linalg.norm(chosen - row, axis=1), 0.0).max()

    return jnp.where(real, jax.lax.map(farthest, chosen), 0.0).max()


@attacks.register("fedscspg")
class FedScsPG(Attack):
    """All send ``m + strength * D * u``: their mean, their diameter, one random direction, per tensor.

    The FedPG-BR reference's collusion, three standard deviations off the mean. Its repository once had it as
    filtering-attack-4, -5 and -7 too: strength 2.0, 2.5 and 3.5. A single attacker has diameter 0 and is honest.
    """

    ignores_honest = True

    strength: Number = option(1.5, "offset in multiples of the attackers' diameter", minimum=0, argument=True)

    def corrupt(
        self, messages: PyTree, byzantine: Bool[Array, " n"], key: PRNGKeyArray, knowledge: Knowledge
    ) -> PyTree:
        """One message for all attackers."""

        def forge(leaf: Array, leaf_key: PRNGKeyArray) -> Array:
            mean, _ = mean_and_deviation(leaf, byzantine)
            direction = jax.random.uniform(leaf_key, mean.shape, leaf.dtype, -1, 1)
            direction /= jnp.linalg.norm(direction.ravel())
            offset = self.strength * diameter(leaf, byzantine, most=max(self.agents, 1)) * direction
            return jnp.broadcast_to(mean + offset, leaf.shape)

        return replace_rows(messages, byzantine, per_tensor(forge, messages, key))


@attacks.register("alie")
class ALittleIsEnough(Attack):
    """All send ``mean - z * deviation`` per coordinate (Baruch et al., NeurIPS 2019); once "variance-attack".

    Without z it is the paper's, for the attackers among the round's agents (:func:`alie_z`), and never negative: the
    attack would help where it means to harm. That is the case for a single attacker among an even number of agents,
    for whom the paper's formula is below zero, and who sends the mean.
    """

    z: Number | None = option(
        None,
        "deviations off the mean; unset, the paper's: the largest that enough honest agents exceed",
        argument=True,
    )
    sees: Sees = option(
        "byzantine", "whose mean and deviation: the attackers' own messages (reference) or the honest ones"
    )

    def corrupt(
        self, messages: PyTree, byzantine: Bool[Array, " n"], key: PRNGKeyArray, knowledge: Knowledge
    ) -> PyTree:
        """One message for all attackers."""
        n = byzantine.shape[0]
        # Who attacks may differ from round to round.
        paper = [max(alie_z(n, attackers), 0.0) for attackers in range(n + 1)] if self.z is None else []
        z = jnp.asarray(paper, jnp.float32)[byzantine.sum()] if self.z is None else self.z
        seen = byzantine if self.sees == "byzantine" else ~byzantine

        def forge(leaf: Array) -> Array:
            mean, deviation = mean_and_deviation(leaf, seen)
            return jnp.broadcast_to(mean - z * deviation, leaf.shape)

        return replace_rows(messages, byzantine, jax.tree.map(forge, messages))


def alie_z(agents: int, byzantine: int) -> float:
    """The paper's z: ``Phi^-1((n - m - s) / (n - m))`` of m attackers among n agents (Baruch et al., 2019).

    ``s = floor(n / 2 + 1) - m`` are the supporters that the attackers need for a majority. Negative for m = 1 and even
    n; unbounded for a majority, who need none: then it is that of a share of ``1 - 1e-6``, 4.75.
    """
    honest = agents - byzantine
    if honest == 0:
        return 0.0
    supporters = agents // 2 + 1 - byzantine
    share = (honest - supporters) / honest
    return statistics.NormalDist().inv_cdf(min(max(share, 1e-6), 1 - 1e-6))


@attacks.register("inner-product")
class InnerProduct(Attack):
    """All send ``-epsilon`` times the honest mean (Xie et al., UAI 2020)."""

    epsilon: Number = option(1.0, "factor on the flipped honest mean", minimum=0, argument=True)

    def corrupt(
        self, messages: PyTree, byzantine: Bool[Array, " n"], key: PRNGKeyArray, knowledge: Knowledge
    ) -> PyTree:
        """One message for all attackers."""

        def forge(leaf: Array) -> Array:
            return jnp.broadcast_to(-self.epsilon * mean_and_deviation(leaf, ~byzantine)[0], leaf.shape)

        return replace_rows(messages, byzantine, jax.tree.map(forge, messages))


@attacks.register("average-to-zero")
class AverageToZero(Attack):
    """All send ``-(sum of the honest) / B``, so that the plain mean is zero (DecByzPG)."""

    def corrupt(
        self, messages: PyTree, byzantine: Bool[Array, " n"], key: PRNGKeyArray, knowledge: Knowledge
    ) -> PyTree:
        """One message for all attackers."""
        attackers = jnp.maximum(byzantine.sum(), 1)

        def forge(leaf: Array) -> Array:
            honest = mean_and_deviation(leaf, ~byzantine)[0] * (~byzantine).sum()
            return jnp.broadcast_to(-honest / attackers, leaf.shape)

        return replace_rows(messages, byzantine, jax.tree.map(forge, messages))


@attacks.register("normalised")
class Normalised(Attack):
    """Turns the aggregate as far from the honest one as the rule allows (after Fang et al., WWW 2025).

    Stage I looks for the direction ``v = AR / |AR| + lambda * Delta`` with AR the rule's aggregate of the honest
    messages and ``Delta = -sign(mean of the honest)``: the lambda whose message, at the honest messages' mean length,
    makes the largest angle between AR and the rule's new aggregate. Stage II looks for the length ``zeta`` (in
    multiples of that mean length) along v that moves the aggregate farthest from AR. Both searches step up while it
    helps and back otherwise, with the step cut to a third each time.

    The two stages, the direction and the step sizes follow the published description; measuring stage II by the
    distance the aggregate moves, and Delta normalised to length 1, are our reading of it. Start values found useful
    elsewhere: lambda .83, zeta .03 on CartPole; 1.0 and .02 on LunarLander.
    """

    direction_start: Number = option(1.0, "lambda at which the search of stage I starts", minimum=0, argument=True)
    length_start: Number = option(
        1.0,
        "zeta at which the search of stage II starts",
        unit="mean honest lengths",
        minimum=0,
        argument=True,
    )
    iterations: int = option(5, "steps of each search", minimum=1)

    def corrupt(
        self, messages: PyTree, byzantine: Bool[Array, " n"], key: PRNGKeyArray, knowledge: Knowledge
    ) -> PyTree:
        """One message for all attackers."""
        vectors = ravel_rows(messages)
        honest, _ = mean_and_deviation(vectors, ~byzantine)
        mean_length = mean_and_deviation(jnp.linalg.norm(vectors, axis=1)[:, None], ~byzantine)[0][0]

        def aggregate(forged: Array) -> Array:
            return knowledge.aggregate(jnp.where(byzantine[:, None], forged, vectors))

        before = aggregate(honest)
        away = -jnp.sign(honest) / jnp.maximum(jnp.linalg.norm(jnp.sign(honest)), 1.0)

        def direction(weight: Array) -> Array:
            return _unit(_unit(before) + weight * away)

        def angle(weight: Array) -> Array:
            after = aggregate(mean_length * direction(weight))
            return -(_unit(after) * _unit(before)).sum()

        chosen = direction(self._search(angle, self.direction_start))

        def displacement(length: Array) -> Array:
            return jnp.linalg.norm(aggregate(length * mean_length * chosen) - before)

        length = self._search(displacement, self.length_start)
        example = jax.tree.map(lambda leaf: leaf[0], messages)
        forged = jnp.broadcast_to(length * mean_length * chosen, vectors.shape)
        return replace_rows(messages, byzantine, unravel_like(example, forged))

    def _search(self, score: object, start: Number) -> Array:
        """The value with the best score met on the way."""
        assert callable(score)

        def step(carry: tuple[Array, Array, Array], _: None) -> tuple[tuple[Array, Array, Array], None]:
            best, best_score, stride = carry
            candidates = jnp.stack([best + stride, jnp.maximum(best - stride, 0.0)])
            scores = jax.lax.map(score, candidates)
            index = jnp.argmax(scores)
            better = scores[index] > best_score
            best = jnp.where(better, candidates[index], best)
            return (best, jnp.where(better, scores[index], best_score), stride / 3), None

        first = jnp.asarray(start)
        stride = jnp.maximum(first, 1.0) / 3
        (best, _, _), _ = jax.lax.scan(step, (first, score(first), stride), None, length=self.iterations)
        return best


def _unit(vector: Array) -> Array:
    length = jnp.linalg.norm(vector)
    return vector / jnp.where(length > 0, length, 1.0)
