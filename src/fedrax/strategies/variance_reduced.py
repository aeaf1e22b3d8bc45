"""Server-side variance reduction, shared by SVRPG and FedPG-BR.

After aggregating the agents' gradients at the broadcast policy theta_0 into mu, the server takes several steps with
trajectories of its own, each along ``v = g(theta_n) - g(theta_0) + mu``, where g(theta_0) is estimated on the same
trajectories by importance weighting (Papini et al., 2018; Lei & Jordan, 2017, for SCSG).
"""

from __future__ import annotations

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from fedrax.aggregators.base import Aggregate, ServerGradient
from fedrax.environments.base import Episodes, Spaces
from fedrax.learners.base import Agent, EpisodeLearner, Learner
from fedrax.message import Message
from fedrax.registry import Number, option
from fedrax.strategies.base import Downlink, Needs, ServerWork, Tools, select
from fedrax.strategies.gradients import GradientStrategy
from fedrax.trees import ravel_rows, unravel_like

MODES: dict[str, dict[str, dict[str, Any]]] = {
    "reference": {
        "learner": {"estimator": "whitened", "baseline": "none", "normalisation": "steps", "optimizer": "adam"},
        "strategy": {
            "importance": "step",
            "ratio_band": 0.005,
            "fallback": "server",
            "output_iterate": "last",
        },
    },
    "paper": {
        "learner": {
            "estimator": "gpomdp",
            "baseline": "constant",
            "normalisation": "trajectories",
            "optimizer": "sgd",
        },
        "strategy": {
            "importance": "trajectory",
            "ratio_band": None,
            "fallback": "skip",
            "output_iterate": "uniform",
        },
    },
}
"""What the two modes stand for: the code that made the published figures, and the algorithm the theorem is about."""


class Server(eqx.Module):
    """The server in the middle of a round."""

    params: PyTree
    """theta_n."""
    optimizer: PyTree
    anchor: PyTree
    """theta_0, the policy the agents' gradients belong to."""
    direction: PyTree
    """mu, the aggregate of the agents' gradients."""
    trusted: Array
    """Whether the rule accepted anybody, so that mu means something; bool."""
    planned: Array
    """N_t, steps planned this round, int32."""
    done: Array
    """n, steps taken this round, int32."""
    ratio: Array
    """Mean importance ratio at the last step tried."""
    output: PyTree
    """The iterate to hand out."""
    rounds: Array
    """Rounds completed, int32."""


class VarianceReduced(GradientStrategy):
    """Common options and inner loop; subclasses say how many trajectories and steps a round has."""

    needs = Needs(server_environment=True, local_updates=False)

    mode: Literal["reference", "paper"] = option(
        "reference",
        "sets the defaults of the options below and of the learner's estimator, normalisation and optimizer: "
        "as the code behind the published figures has them, or as the paper writes them",
    )
    minibatch: int = option(
        4, "b, trajectories the server samples for each step of its own", unit="trajectories", minimum=1
    )
    reference_batch: int | None = option(
        None,
        "trajectories the server samples at theta_0 for rules that need a gradient of its own (fltrust, fedpg-trust, "
        "zeno); unset, as many as an agent",
        unit="trajectories",
        minimum=1,
    )
    importance: Literal["step", "trajectory"] = option(
        "step",
        "importance weights of g(theta_0): a ratio per time step (reference) or per trajectory (paper)",
    )
    ratio_band: Number | None = option(
        0.005,
        "the inner loop stops once the mean ratio leaves 1 +- this; none: it never stops early",
        minimum=0,
        argument=True,
    )
    fallback: Literal["server", "geometric-median", "skip"] = option(
        "server",
        "when the rule accepts nobody: step along the server's own gradient (reference), along the geometric "
        "median of all gradients, or not at all",
    )
    output_iterate: Literal["last", "uniform"] = option(
        "last",
        "the policy handed out: the last iterate (reference) or one drawn uniformly from all rounds (paper)",
    )

    @property
    def server_episodes(self) -> int:
        """b."""
        return self.minibatch

    @property
    def reference_episodes(self) -> int:
        """As set, or the most trajectories of an agent."""
        return self.reference_batch or self.max_episodes

    def draw_episodes(self, key: PRNGKeyArray) -> Array:
        """B_t."""
        raise NotImplementedError

    def draw_steps(self, episodes: Array, key: PRNGKeyArray) -> Array:
        """N_t, given B_t."""
        raise NotImplementedError

    def init(self, learner: Learner, spaces: Spaces, agents: Agent, key: PRNGKeyArray) -> Server:
        """Fresh parameters and optimiser."""
        agent = learner.init(key, spaces)
        zero = jnp.asarray(0)
        return Server(
            params=agent.params,
            optimizer=agent.optimizer,
            anchor=agent.params,
            direction=jax.tree.map(jnp.zeros_like, agent.params),
            trusted=jnp.asarray(False),
            planned=zero,
            done=zero,
            ratio=jnp.asarray(1.0),
            output=agent.params,
            rounds=zero,
        )

    def broadcast(self, server: Server, key: PRNGKeyArray) -> Downlink:
        """theta_0 and B_t, the same for all agents."""
        return Downlink(server.params, self.draw_episodes(key))

    def output(self, server: Server) -> PyTree:
        """The iterate handed out."""
        return server.output

    def reference_count(self, downlink: Downlink) -> Int[Array, ""]:
        """As set, or B_t."""
        return downlink.episodes if self.reference_batch is None else jnp.asarray(self.reference_batch)

    def server_gradient(self, learner: Learner, server: Server, episodes: Episodes) -> ServerGradient:
        """The gradient at theta_0, and the decrease of the importance-weighted surrogate."""
        assert isinstance(learner, EpisodeLearner)
        gradient = learner.gradient(server.params, episodes)
        taken = learner.log_prob(server.params, episodes)
        vector, here = ravel_rows(jax.tree.map(lambda *x: jnp.stack(x), gradient, server.params))

        def decrease(rows: Float[Array, "n d"]) -> Float[Array, " n"]:
            def one(row: Float[Array, " d"]) -> Float[Array, ""]:
                return learner.surrogate(unravel_like(server.params, here - row), episodes, taken)

            return learner.surrogate(server.params, episodes, taken) - jax.lax.map(one, rows)

        return ServerGradient(vector, decrease)

    def combine(
        self,
        learner: Learner,
        server: Server,
        downlink: Downlink,
        messages: Message,
        weights: Float[Array, " n"],
        tools: Tools,
    ) -> tuple[Server, Aggregate]:
        """mu, N_t, and the first inner step.

        At n = 0, theta_n is theta_0, so v = mu whatever the server samples (every ratio is 1 and the two gradients
        cancel): that step is taken here without sampling. Without a trusted mu there is nothing to cancel, and
        :meth:`refine` samples from the first step on.
        """
        vectors = ravel_rows(messages.update)
        verdict = tools.aggregate(vectors, weights, downlink.episodes)
        vector, trusted = verdict.vector, verdict.valid
        if self.fallback == "geometric-median":
            present = (weights > 0).any()
            vector = jnp.where(trusted, vector, tools.spread(vectors, weights))
            trusted = trusted | present
        direction = unravel_like(server.params, vector)
        planned = self.draw_steps(downlink.episodes, tools.key)
        if self.fallback == "skip":
            planned = jnp.where(trusted, planned, 0)
        params, optimizer = learner.apply(server.params, server.optimizer, direction)
        first = trusted & (planned > 0)
        return (
            Server(
                params=select(first, params, server.params),
                optimizer=select(first, optimizer, server.optimizer),
                anchor=downlink.params,
                direction=direction,
                trusted=trusted,
                planned=planned,
                done=first.astype(jnp.int32),
                ratio=jnp.asarray(1.0),
                output=server.output,
                rounds=server.rounds,
            ),
            verdict,
        )

    def refining(self, server: Server) -> Array:
        """Whether steps are left."""
        return server.done < server.planned

    def refine(self, learner: Learner, server: Server, episodes: Episodes) -> Server:
        """One step along v, or the end of the loop when theta_n has moved too far from theta_0."""
        assert isinstance(learner, EpisodeLearner)
        now = learner.log_prob(server.params, episodes)
        then = learner.log_prob(server.anchor, episodes)
        ratio, mean_ratio = importance_ratio(then - now, episodes, self.importance)
        own = learner.gradient(server.params, episodes)
        anchored = learner.gradient(server.anchor, episodes, ratio=ratio)
        reduced = jax.tree.map(lambda g, g0, mu: g - g0 + mu, own, anchored, server.direction)
        step = select(server.trusted, reduced, own)
        params, optimizer = learner.apply(server.params, server.optimizer, step)
        near = jnp.asarray(True)
        if self.ratio_band is not None:
            near = ~server.trusted | (jnp.abs(mean_ratio - 1.0) <= self.ratio_band)
        return Server(
            params=select(near, params, server.params),
            optimizer=select(near, optimizer, server.optimizer),
            anchor=server.anchor,
            direction=server.direction,
            trusted=server.trusted,
            planned=jnp.where(near, server.planned, server.done),
            done=server.done + near,
            ratio=mean_ratio,
            output=server.output,
            rounds=server.rounds,
        )

    def finish(self, server: Server, key: PRNGKeyArray) -> tuple[Server, ServerWork]:
        """Settles the iterate to hand out; the count includes the first step's trajectories, as in the reference."""
        rounds = server.rounds + 1
        take = jnp.asarray(True)
        if self.output_iterate == "uniform":
            # Reservoir sampling: after t rounds every iterate has been kept with probability 1/t.
            take = jax.random.uniform(key) < 1.0 / rounds
        output = select(take, server.params, server.output)
        work = ServerWork(counted=self.minibatch * server.done, gradient_steps=server.done)
        # Of a round that is undone, there are no steps: neither those that a fault has left, nor those counted now.
        settled = (output, rounds, jnp.zeros_like(server.planned), jnp.zeros_like(server.done))
        return eqx.tree_at(lambda s: (s.output, s.rounds, s.planned, s.done), server, settled), work


def importance_ratio(
    log_ratio: Float[Array, "T B"], episodes: Episodes, kind: Literal["step", "trajectory"]
) -> tuple[Float[Array, "T B"], Array]:
    """``pi_theta0 / pi_theta_n`` per time step, or its product over each trajectory, and the mean over steps.

    ``log_ratio`` must be 0 on padding.
    """
    if kind == "trajectory":
        log_ratio = jnp.where(episodes.valid, log_ratio.sum(0), 0.0)
    ratio = jnp.exp(log_ratio)
    mean = jnp.where(episodes.valid, ratio, 0.0).sum() / jnp.maximum(episodes.steps, 1)
    return jax.lax.stop_gradient(ratio), mean
