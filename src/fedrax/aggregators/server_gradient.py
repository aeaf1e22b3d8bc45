"""Rules that judge agents' gradients by one that the server estimates on trajectories of its own.

Rules that see nothing but the agents' vectors can only ask which of them are alike. Where a gradient is no longer than
its noise, an honest one and its opposite are equally far from the others; a server that samples can still tell them
apart. Strategies whose server owns an environment provide that gradient.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from fedrax.aggregators.base import Aggregate, Aggregator, ServerGradient, aggregators
from fedrax.aggregators.rows import aggregate, average, draws, length, present_rows, unit_rows
from fedrax.registry import Number, option


class ServerGradientRule(Aggregator):
    """A rule that must be :meth:`informed` of the server's gradient before it is called."""

    rejects: ClassVar[bool] = True
    needs_server_gradient: ClassVar[bool] = True

    server: ServerGradient | None = None

    def informed(self, server: ServerGradient) -> Aggregator:
        """The rule with the server's gradient; where that is not finite, it accepts nobody."""
        return dataclasses.replace(self, server=server)

    @property
    def known(self) -> ServerGradient:
        """The server's gradient; raises :class:`ValueError` where nobody has told it."""
        if self.server is None:
            raise ValueError(f"aggregator {self.name!r} was called before it was informed of the server's gradient")
        return self.server


def trusted(
    vectors: Float[Array, "n d"],
    present: Bool[Array, " n"],
    eligible: Bool[Array, " n"],
    own: Float[Array, " d"],
    metrics: dict[str, Array],
) -> Aggregate:
    """FLTrust's mean of the eligible rows; ``trust_median``, of the cosines of all present, joins the metrics."""
    directions = unit_rows(vectors)
    cosines = jnp.where(present, directions @ unit_rows(own), -1.0)
    trust = jnp.where(eligible & (cosines > 0), cosines, 0.0)
    count = present.sum()
    ordered = jnp.sort(jnp.where(present, cosines, jnp.inf))
    middle = jnp.where(count > 0, ordered[jnp.maximum(count - 1, 0) // 2], 0.0)
    return aggregate(length(own) * average(directions, trust), trust > 0, metrics | {"trust_median": middle})


@aggregators.register("fltrust")
class FLTrust(ServerGradientRule):
    """FLTrust (Cao, Fang, Liu and Gong, NDSS 2021, algorithm 2): weighs agents by cosine with its gradient.

    With g_0 the server's own gradient, ``TS_k = max(0, cos(g_k, g_0))`` and

        g = |g_0| sum_k TS_k g_k / |g_k|  /  sum_k TS_k.

    Every gradient counts with the server's length, so nobody gains by sending a long one, and one that points away from
    the server's does not count. Any number of Byzantine agents is tolerated; where nobody's cosine is positive the rule
    accepts nobody.
    """

    def __call__(
        self,
        vectors: Float[Array, "n d"],
        weights: Float[Array, " n"],
        *,
        samples: float | Array = 1.0,
        key: PRNGKeyArray,
    ) -> Aggregate:
        """The trusted rows' weighted mean; metric ``trust_median``, of the cosines of all present."""
        vectors, present, _ = present_rows(vectors, weights)
        return trusted(vectors, present, present, self.known.vector, {})

    def check(self, agents: int) -> None:
        """Accepts any number: the server trusts its own gradient, not a majority."""


@aggregators.register("zeno")
class Zeno(ServerGradientRule):
    """Zeno (Xie, Koyejo and Gupta, ICML 2019): the mean of the gradients whose steps promise the greatest descent.

    The score of a gradient u is

        L(theta) - L(theta - gamma u) - rho |u|^2,

    with the loss L estimated on the server's own trajectories (for a policy gradient the importance-weighted surrogate,
    whose gradient at theta is the policy gradient). The f lowest scores are left out, f being ``tolerated``; any f
    below the number of agents can be tolerated, a majority too.
    """

    step: Number = option(
        1.0, "gamma: how far along a gradient the loss is tried", unit="gradient", minimum=1e-9, argument=True
    )
    penalty: Number = option(
        0.005, "rho over gamma: what a gradient's squared length costs it", minimum=0, argument=True
    )

    def __call__(
        self,
        vectors: Float[Array, "n d"],
        weights: Float[Array, " n"],
        *,
        samples: float | Array = 1.0,
        key: PRNGKeyArray,
    ) -> Aggregate:
        """The mean of the rows of the ``n - f`` greatest scores; metric ``score_median``, of those accepted."""
        vectors, present, count = present_rows(vectors, weights)
        scores = self.known.decrease(self.step * vectors) - self.step * self.penalty * length(vectors) ** 2
        # A trial step may be so long that its loss is not a number: the worst score there is.
        scores = jnp.where(present & jnp.isfinite(scores), scores, -jnp.inf)
        kept = jnp.maximum(count - self.f, 1)
        # Equal scores are ordered at random: agents' ids must not decide.
        order = jnp.lexsort((draws(key, present), -scores, ~present))
        rank = jnp.zeros(len(present), jnp.int32).at[order].set(jnp.arange(len(present)))
        accepted = present & (rank < kept) & (scores > -jnp.inf)
        middle = jnp.where(accepted.any(), scores[order[jnp.maximum(accepted.sum() - 1, 0) // 2]], 0.0)
        return aggregate(average(vectors, accepted.astype(vectors.dtype)), accepted, {"score_median": middle})

    def check(self, agents: int) -> None:
        """Needs one agent more than are tolerated."""
        self.demand(agents, self.f + 1, "f + 1")
