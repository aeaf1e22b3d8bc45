"""The gradient filter of FedPG-BR (Fan et al., NeurIPS 2021, algorithm 1.1), and its older form."""

from __future__ import annotations

import abc
import math
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from fedrax.aggregators.base import Aggregate, Aggregator, aggregators
from fedrax.aggregators.distances import Pairs, pairs, within
from fedrax.aggregators.rows import aggregate, average, difference, length, lower_quantile, present_rows, shorten
from fedrax.registry import Number, option
from fedrax.seeds import derive


class Choice(NamedTuple):
    """Whom a filter accepts."""

    present: Bool[Array, " n"]
    accepted: Bool[Array, " n"]
    metrics: dict[str, Array]
    """Scalars for the log, so far."""


class NearMajority(Aggregator):
    """Accepts the gradients near the "mean of medians", with two radii; subclasses say what the accepted make.

    :class:`FedPGFilter` has the formulas.
    """

    rejects = True

    sigma: Number = option(
        0.06, "bound on one trajectory's gradient noise", unit="gradient norm", minimum=0, argument=True
    )
    delta: float = option(
        0.6, "chance that the first rule rejects an honest agent", unit="probability", minimum=1e-9, maximum=1
    )
    alpha: float = option(
        0.4, "share of agents that the first rule may reject before the second is used", minimum=0, maximum=1
    )
    radius: Literal["fixed", "calibrated"] = option(
        "fixed", "whether the radii come from `sigma` or from an estimate of it from the distances seen"
    )

    reach: ClassVar[float] = 1.0
    """The radius of acceptance over that of S."""

    def __call__(
        self,
        vectors: Float[Array, "n d"],
        weights: Float[Array, " n"],
        *,
        samples: float | Array = 1.0,
        key: PRNGKeyArray,
    ) -> Aggregate:
        """What the accepted rows make.

        Metrics: ``filter_rule`` (which rule's choice was taken, 0 if neither accepted anybody),
        ``filter_threshold`` (its radius of acceptance; the second rule's if nobody was), ``filter_sigma``,
        and ``distance_median`` (of all pairs present, or of those among 1,024 agents drawn at random).
        """
        vectors, present, count = present_rows(vectors, weights)
        distances = pairs(vectors, present, derive(key, "pairs"))
        sigma = self.noise(distances, samples).astype(vectors.dtype)
        radii = self.radii(sigma, count, samples)
        majorities = (2 * within(vectors, present, radii) > count) & present[:, None]
        first = self._accept(vectors, present, majorities[:, 0], radii[0], derive(key, "first rule"))
        second = self._accept(vectors, present, majorities[:, 1], radii[1], derive(key, "second rule"))

        # Whole numbers are found on the host: 0.6 * 5 in float32 is not 3.
        enough = np.ceil((1 - self.alpha) * np.arange(len(present) + 1) - 1e-9).clip(1).astype(np.int32)
        retry = first.sum() < jnp.asarray(enough)[count]
        accepted = jnp.where(retry, second, first)
        metrics = {
            "filter_rule": jnp.where(accepted.any(), jnp.where(retry, 2, 1), 0),
            "filter_threshold": self.reach * radii[jnp.where(retry, 1, 0)],
            "filter_sigma": sigma,
            "distance_median": distances.median,
        }
        return self.combined(vectors, Choice(present, accepted, metrics))

    @abc.abstractmethod
    def combined(self, vectors: Float[Array, "n d"], choice: Choice) -> Aggregate:
        """The result of the accepted rows."""

    def noise(self, distances: Pairs, samples: float | Array) -> Float[Array, ""]:
        """The bound sigma on a trajectory's noise, as set or as estimated."""
        if self.radius == "fixed":
            return jnp.asarray(self.sigma)
        half = distances.rows // 2 + 1
        estimate = distances.smallest(half * (half - 1) // 2) * jnp.sqrt(jnp.maximum(samples, 1.0) / 2)
        # Short of the largest float, where distances saturate, so that the radii are too.
        return jnp.minimum(estimate, 1e-6 * jnp.finfo(estimate.dtype).max)

    def radii(self, sigma: float | Array, count: int | Int[Array, ""], samples: float | Array) -> Float[Array, " r"]:
        """The two rules' radii for ``count`` agents and means of ``samples`` trajectories."""
        deviation = 2 * (jnp.log(2.0 * jnp.maximum(count, 1)) - math.log(self.delta))
        return jnp.stack([2 * sigma * jnp.sqrt(deviation / jnp.maximum(samples, 1.0)), 2 * jnp.asarray(sigma)])

    def _accept(
        self,
        vectors: Float[Array, "n d"],
        present: Bool[Array, " n"],
        majority: Bool[Array, " n"],
        radius: Float[Array, ""],
        key: PRNGKeyArray,
    ) -> Bool[Array, " n"]:
        """Who lies within reach of the point chosen from S; nobody if S (``majority``) is empty."""
        point = vectors[self.choose(vectors, majority, key)]
        return present & majority.any() & (length(difference(vectors, point)) <= self.reach * radius)

    def choose(self, vectors: Float[Array, "n d"], majority: Bool[Array, " n"], key: PRNGKeyArray) -> Int[Array, ""]:
        """The member of S nearest to its mean."""
        mean = average(vectors, majority.astype(vectors.dtype))
        return jnp.argmin(jnp.where(majority, length(difference(vectors, mean)), jnp.inf))

    def check(self, agents: int) -> None:
        """Needs ``2f + 1`` agents."""
        self.demand(agents, 2 * self.f + 1, "2f + 1")


@aggregators.register("fedpg-filter")
class FedPGFilter(NearMajority):
    """FedPG-Aggregate: the mean of the gradients near the "mean of medians", found with two radii.

    A rule of radius r takes the set S of agents with more than half of the K present ones (themselves
    included) within r, the member of S nearest to the mean of S, and accepts everyone within r of that
    member. The first rule's radius is ``2 sigma sqrt(V / B)`` with ``V = 2 ln(2K / delta)``, for means of B
    trajectories. Where it accepts fewer than ``(1 - alpha) K``, the second rule, of radius ``2 sigma``, is
    applied to all instead.

    ``sigma`` bounds one trajectory's gradient noise. ``radius = "calibrated"`` estimates it, from Q, the
    pairwise distance of rank ``h (h - 1) / 2`` for ``h = K // 2 + 1`` (the order statistic of Rousseeuw and
    Croux's Q_n, JASA 1993, with distances in place of absolute differences):

    - With f < K / 2 at least h agents are honest, so at least that many pairs are, and Q is at most the
      largest honest distance whatever the others send.
    - Means of B trajectories, each with noise of second moment sigma^2, differ by ``2 sigma^2 / B`` in mean
      square, and distances in many dimensions concentrate there: ``sigma = Q sqrt(B / 2)``. The radii become
      ``Q sqrt(2 V)`` and ``Q sqrt(2 B)``.
    - Every member of S has an honest agent within r, hence everyone accepted has one within 2r.

    Among more than 1,024 agents Q comes from so many drawn at random, which is safe up to about 40 %
    Byzantine. Where half or more of those present are Byzantine nothing is promised but a finite result.
    """

    clip: Literal["none", "median"] = option(
        "none",
        "median: an accepted gradient longer than the median length of all counts with that length. Near an optimum a "
        "short gradient's opposite, and multiples, lie within the radius: then nobody counts for more than "
        "the others. none: as the reference",
    )

    def combined(self, vectors: Float[Array, "n d"], choice: Choice) -> Aggregate:
        """The mean of the accepted."""
        if self.clip == "median":
            lengths = length(vectors)
            vectors = shorten(vectors, lower_quantile(lengths, choice.present, 0.5))
        return aggregate(average(vectors, choice.accepted.astype(vectors.dtype)), choice.accepted, choice.metrics)


@aggregators.register("fedpg-filter-v0")
class FedPGFilterV0(FedPGFilter):
    """The filter's older form, inherited from Byzantine SGD (Alistarh et al., NeurIPS 2018).

    Its point is a random member of S, so it accepts within twice the radius: every honest gradient is
    within one radius of the true one, which is within one radius of the point.
    """

    reach: ClassVar[float] = 2.0

    def choose(self, vectors: Float[Array, "n d"], majority: Bool[Array, " n"], key: PRNGKeyArray) -> Int[Array, ""]:
        """A member of S, each equally likely."""
        drawn = jax.random.randint(key, (), 0, jnp.maximum(majority.sum(), 1))
        return jnp.argmax(majority & (jnp.cumsum(majority) == drawn + 1))
