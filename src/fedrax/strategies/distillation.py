"""Partial network distillation (FedTD3, published as SCCD: Mai et al., 2024).

Every critic is a private representation and a shared head. The server averages the agents' heads and then distils all
of them into one, on representations, or on pseudo-representations drawn from their first two moments. In SCCD agents
distil once more: they start from the averaged heads, and the distilled ones over their own representation teach them.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from fedrax.aggregators.base import Aggregate
from fedrax.environments.base import Spaces
from fedrax.errors import FedraxError
from fedrax.learners.base import Agent, Batch, Learner, Objective
from fedrax.learners.mlp import MLP
from fedrax.learners.networks import gram_schmidt
from fedrax.learners.off_policy import Memory, Training
from fedrax.learners.twin_critic import TwinCritic
from fedrax.message import Message
from fedrax.parts import NORMALISER, put_parts, take_parts
from fedrax.registry import option
from fedrax.strategies.base import ServerWork, Tools, select, strategies
from fedrax.strategies.carried import apart
from fedrax.strategies.fedavg import FedAvg
from fedrax.strategies.sharing import Broadcast

Heads = tuple[MLP, MLP]


class Samples(NamedTuple):
    """Representations with the values an agent's heads give them, of both critics: leaves ``[B, ...]``."""

    features: tuple[Float[Array, "B f"], Float[Array, "B f"]]
    values: tuple[Float[Array, " B"], Float[Array, " B"]]


class Moments(NamedTuple):
    """Representations by their mean and a low-rank covariance plus a multiple of the identity, of each critic."""

    mean: tuple[Float[Array, " f"], Float[Array, " f"]]
    factor: tuple[Float[Array, "r f"], Float[Array, "r f"]]
    """The covariance's leading part is ``factor^T factor``."""
    rest: tuple[Float[Array, ""], Float[Array, ""]]
    """Standard deviation in every other direction."""


class DistilledServer(eqx.Module):
    """As :class:`~fedrax.strategies.sharing.Server`, with the teacher and the optimiser that distils it."""

    params: PyTree
    round: Int[Array, ""]
    returns: Float[Array, " agents"]
    teacher: Heads
    optimizer: PyTree
    carried: PyTree = ()


class DistilledBroadcast(eqx.Module):
    """The averaged parts, and the distilled heads; () where agents do not distil."""

    networks: Broadcast
    teacher: Heads | tuple[()]

    @property
    def episodes(self) -> int:
        """As in :class:`~fedrax.strategies.base.Downlink`."""
        return self.networks.episodes


@strategies.register("distillation")
class Distillation(FedAvg):
    """Federated averaging of critics' heads and actors, then distillation of the heads at the server and at agents."""

    supports_staleness: ClassVar[bool] = False
    averages: ClassVar[bool] = False

    version: Literal["representations", "gaussian", "sccd", "statistics"] = option(
        "sccd",
        "what agents send, beside their heads: real representations with their values; pseudo-representations drawn "
        "from a Gaussian; the same, and agents distil too (SCCD); or only mean and low-rank covariance, and agents "
        "distil too: no sample leaves an agent, and the server draws and values them itself",
    )
    average: tuple[str, ...] = option(
        ("head", "actor"), "parts of the networks to average (the others stay with each agent)"
    )
    actor_every: int = option(2, "rounds from one average of the part 'actor' to the next", unit="rounds", minimum=1)
    epochs: int = option(20, "passes of the server over all agents' representations in a round", minimum=1)
    distillation_rate: float = option(1e-3, "Adam's step size at the server", minimum=0)
    distillation_decay: float = option(1e-2, "weight decay at the server (added to the gradient)", minimum=0)
    local_steps: int = option(
        20, "minibatches an agent distils from the teacher in a round (sccd, statistics)", minimum=1
    )
    local_share: float = option(
        0.1, "p: an agent distils on p times the TD errors and 1 - p times the distance from the teacher", maximum=1
    )
    rank: int = option(16, "rank of the covariance that is sent (statistics)", minimum=1)

    @property
    def requires(self) -> frozenset[str]:
        """Critics whose features stay private and whose heads are shared."""
        return frozenset({"critics"})

    def check(self, learner: Any) -> None:
        """Raises :class:`FedraxError` where the heads are not averaged, or the rank exceeds what a minibatch has."""
        super().check(learner)
        if "head" not in self.average or "features" in self.average:
            raise FedraxError(
                f"strategy.average = {list(self.average)} is not allowed with distillation: "
                "average 'head' and 'actor', and leave 'features' with the agents"
            )
        most = min(learner.batch_size - 1, learner.feature_layers[-1])
        if self.version == "statistics" and self.rank > most:
            raise FedraxError(f"strategy.rank = {self.rank} is more than a minibatch's covariance has; at most {most}")

    @property
    def agents_distil(self) -> bool:
        """Whether the second distillation, at the agents, takes place."""
        return self.version in ("sccd", "statistics")

    def transformation(self) -> optax.GradientTransformation:
        """The server's optimiser, which goes on from round to round."""
        return optax.chain(optax.add_decayed_weights(self.distillation_decay), optax.adam(self.distillation_rate))

    # One agent's verbs.

    def absorb(self, agent: Agent, downlink: Any, index: Int[Array, ""]) -> Agent:
        """The averaged parts."""
        return super().absorb(agent, downlink.networks, index)

    def context(self, agent: Agent, downlink: Any, index: Int[Array, ""]) -> Heads | tuple[()]:
        """The teacher: the distilled heads; () where agents do not distil."""
        return downlink.teacher

    def begin(self, learner: Any, agent: Agent, context: Any, key: PRNGKeyArray) -> Agent:
        """The agent's critics learn from the teacher over their own representation, and from rewards a little."""
        if not self.agents_distil:
            return agent
        replay = agent.memory.replay
        sample_key, noise_key = jax.random.split(key)
        batches = replay.sample(sample_key, (self.local_steps, learner.batch_size))
        noises = learner.noise(noise_key, batches)
        target = put_parts(agent.memory.target, take_parts(agent.params, [NORMALISER]))
        before = Training(agent.params, agent.optimizer, target, ())
        teacher = dataclasses.replace(agent.params, head=context)

        def step(training: Training, inputs: tuple[Any, Array, Any]) -> tuple[Training, None]:
            batch, wanted, taught = inputs
            objective = FromTeacher(taught, 1.0 - self.local_share)
            return learner.critic_step(training, batch, wanted, objective, share=self.local_share)[0], None

        def distilled() -> Training:
            # Neither the targets nor the teacher move meanwhile: what they say of all minibatches is one product.
            wanted = learner.targets(before, batches, noises)
            taught = teacher.values(batches.observation, batches.action)
            return jax.lax.scan(step, before, (batches, wanted, taught))[0]

        after = jax.lax.cond(replay.sampled >= learner.learning_starts, distilled, lambda: before)
        return Agent(after.params, after.optimizer, Memory(replay, after.target), agent.private)

    def emit(self, learner: Any, agent: Agent, key: PRNGKeyArray) -> Message:
        """How the averaged parts changed, and what the server distils from: :class:`Samples` or :class:`Moments`."""
        message = super().emit(learner, agent, key)
        sample_key, draw_key = jax.random.split(key)
        batch = agent.memory.replay.sample(sample_key, (learner.batch_size,))
        features = agent.params.represent(batch.observation, batch.action)
        data: Samples | Moments
        if self.version == "statistics":
            keys = jax.random.split(draw_key)
            both = (moments(part, self.rank, k) for part, k in zip(features, keys, strict=True))
            data = Moments(*zip(*both, strict=True))
        else:
            if self.version != "representations":
                keys = jax.random.split(draw_key)
                first, second = (pseudo(part, k) for part, k in zip(features, keys, strict=True))
                features = (first, second)
            data = Samples(features, agent.params.judge(*features))
        return Message(message.update, message.statistics, data)

    def round_gradient_steps(self, learner: Learner) -> int:
        """The second distillation's."""
        return self.local_steps if self.agents_distil else 0

    # The server's.

    def init(self, learner: Learner, spaces: Spaces, agents: Agent, key: PRNGKeyArray) -> DistilledServer:
        """The networks that all agents start from."""
        start = super().init(learner, spaces, agents, key)
        head = start.params.head
        optimizer = self.transformation().init(head)
        return DistilledServer(start.params, start.round, start.returns, head, optimizer, start.carried)

    def broadcast(self, server: Any, key: PRNGKeyArray) -> DistilledBroadcast:
        """The averaged parts, and the teacher where agents distil."""
        return DistilledBroadcast(super().broadcast(server, key), server.teacher if self.agents_distil else ())

    def combine(
        self, learner: Any, server: Any, downlink: Any, messages: Message, weights: Array, tools: Tools
    ) -> tuple[DistilledServer, Aggregate]:
        """Averages, then distils from the agents whose messages the rule accepted."""
        after, verdict = super().combine(learner, server, downlink, messages, weights, tools)
        draw_key, order_key = jax.random.split(tools.key)
        data = messages.individual
        if isinstance(data, Moments):
            heads = jax.tree.map(jnp.add, downlink.networks.params["head"], apart(messages.update)[0]["head"])
            keys = jax.random.split(draw_key, weights.shape[0])
            data = jax.vmap(lambda one, head, key: drawn(one, head, learner.batch_size, key))(data, heads, keys)
        averaged = after.params.head
        head, optimizer = self.distilled(averaged, server.optimizer, data, verdict.accepted, order_key)
        head = select(verdict.valid, head, averaged)
        optimizer = select(verdict.valid, optimizer, server.optimizer)
        params = after.params if self.agents_distil else dataclasses.replace(after.params, head=head)
        return dataclasses.replace(after, params=params, teacher=head, optimizer=optimizer), verdict

    def distilled(
        self, head: Heads, optimizer: PyTree, data: Samples, accepted: Array, key: PRNGKeyArray
    ) -> tuple[Heads, PyTree]:
        """The heads after :attr:`epochs` passes over the accepted agents' samples, leaves ``[n, B, ...]``."""
        agents, batch = data.values[0].shape
        flat = jax.tree.map(lambda x: x.reshape(agents * batch, *x.shape[2:]), data)
        weight = jnp.repeat(accepted.astype(jnp.float32), batch)
        step = self.transformation()

        def loss(head: Heads, rows: Samples, weight: Array) -> Array:
            share = weight / jnp.maximum(weight.sum(), 1)
            errors = [
                (share * (network(features)[..., 0] - values) ** 2).sum()
                for network, features, values in zip(head, *rows, strict=True)
            ]
            return errors[0] + errors[1]

        def minibatch(carry: tuple[Heads, PyTree], index: Array) -> tuple[tuple[Heads, PyTree], None]:
            head, optimizer = carry
            rows = jax.tree.map(lambda x: x[index], flat)
            gradient = jax.grad(loss)(head, rows, weight[index])
            updates, optimizer = step.update(gradient, optimizer, head)
            return (optax.apply_updates(head, updates), optimizer), None

        orders = jax.vmap(lambda k: jax.random.permutation(k, agents * batch))(jax.random.split(key, self.epochs))
        (head, optimizer), _ = jax.lax.scan(minibatch, (head, optimizer), orders.reshape(self.epochs * agents, batch))
        return head, optimizer

    def finish(self, server: DistilledServer, key: PRNGKeyArray) -> tuple[DistilledServer, ServerWork]:
        """The server's optimiser steps."""
        return server, ServerWork(jnp.asarray(0), jnp.asarray(self.epochs * server.returns.shape[0]))


class FromTeacher(Objective):
    """The distance of both critics from the teacher's values of the same actions."""

    taught: tuple[Float[Array, " N"], Float[Array, " N"]]
    """By the teacher's two critics."""
    weight: float = eqx.field(static=True)

    def penalty(self, params: TwinCritic, batch: Batch) -> Float[Array, ""]:
        """``weight`` times the mean squared difference, over both critics."""
        own = params.values(batch.observation, batch.action)
        return self.weight * jnp.mean((jnp.stack(own) - jnp.stack(self.taught)) ** 2)


def pseudo(features: Float[Array, "B f"], key: PRNGKeyArray) -> Float[Array, "B f"]:
    """As many draws from the Gaussian with these rows' mean and covariance, negative components set to 0.

    ``mean + xi^T X / sqrt(B - 1)`` with X the centred rows and xi standard normal has exactly that distribution, and
    needs no decomposition of the covariance.
    """
    count = features.shape[0]
    mean = features.mean(0)
    xi = jax.random.normal(key, (count, count))
    return jax.nn.relu(mean + xi @ (features - mean) / jnp.sqrt(max(count - 1, 1)))


def moments(
    features: Float[Array, "B f"], rank: int, key: PRNGKeyArray
) -> tuple[Float[Array, " f"], Float[Array, "r f"], Float[Array, ""]]:
    """The mean, a factor of the covariance's best part of this rank (all but exactly), the deviation in what is left.

    By power iteration from a random start: decompositions by the library must not be mapped over agents
    (:func:`~fedrax.learners.networks.orthogonal`).
    """
    count, width = features.shape
    mean = features.mean(0)
    centred = (features - mean) / jnp.sqrt(max(count - 1, 1))
    basis = gram_schmidt(jax.random.normal(key, (count, rank)))
    for _ in range(4):
        basis = gram_schmidt(centred @ (centred.T @ basis))
    factor = basis.T @ centred
    left = jnp.maximum((centred**2).sum() - (factor**2).sum(), 0.0)
    return mean, factor, jnp.sqrt(left / max(width - rank, 1))


def drawn(data: Moments, heads: Heads, count: int, key: PRNGKeyArray) -> Samples:
    """Pseudo-representations from their moments, valued by the heads of the agent they are of."""
    features = []
    for mean, factor, rest, k in zip(*data, jax.random.split(key), strict=True):
        low, high = jax.random.split(k)
        rank, width = factor.shape
        noise = jax.random.normal(low, (count, rank)) @ factor + rest * jax.random.normal(high, (count, width))
        features.append(jax.nn.relu(mean + noise))
    first, second = features
    return Samples((first, second), (heads[0](first)[..., 0], heads[1](second)[..., 0]))
