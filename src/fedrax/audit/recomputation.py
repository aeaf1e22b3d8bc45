"""A6: an agent's message, computed again from the configuration alone."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray, PyTree

from fedrax.arrays import form, packed, unpacked
from fedrax.audit.base import Answers, Effort, Leak
from fedrax.audit.setting import Setting
from fedrax.audit.sight import check_finite, marked
from fedrax.config import Config
from fedrax.config_tables import PrivacyConfig
from fedrax.errors import FedraxError
from fedrax.federation import Federation, Tally
from fedrax.message import travelling
from fedrax.runtime.distributed.agent_runtime import (
    Order,
    make_agent_runtime,
    order_shapes,
    report_shapes,
    travel_period,
)
from fedrax.runtime.distributed.agent_service import AgentService
from fedrax.runtime.distributed.envelopes import JOIN, JOINED, WORK, WORKED, Envelope, Field
from fedrax.runtime.distributed.randomness import shared_randomness
from fedrax.runtime.distributed.transport import InProcessTransport
from fedrax.runtime.make import make_runtime
from fedrax.strategies.base import Strategy

AGENT = 0
NODE = 1
"""Its address."""
TOLERANCE = 1e-4
"""Of the longest number in a message, between the same program compiled twice."""


class Round(NamedTuple):
    """The first round, as an agent is told of it."""

    federation: Federation
    downlink: PyTree
    order: Order


class Recomputation(Leak):
    """A6: the first message of one agent, of the run's seed and of a node's own randomness."""

    id = "A6"
    question = "does the configuration yield the trajectories?"
    headline = "as_run"

    def inapplicable(self, setting: Setting) -> str | None:
        """Where nothing is sent that could be compared."""
        strategy = setting.federation.strategy
        if not strategy.sends:
            return f"agents of strategy {strategy.name!r} send nothing"
        if strategy.needs.pooled:
            return f"strategy {strategy.name!r} has one learner for all"
        return None

    def answers(self, setting: Setting, effort: Effort, key: PRNGKeyArray) -> Answers:
        """Whether the message is the same, as the run draws and as nodes of a federation do by default.

        A simulation draws as nodes with ``runtime.shared_seeds``. Without protection, which changes what is sent of a
        trajectory and not the trajectory.
        """
        runtime = setting.config.runtime
        shared = runtime.shared_seeds or runtime.kind == "simulation"
        config = setting.config.model_copy(update={"privacy": PrivacyConfig(), "seeds": 1})
        opened = first_round(config)
        known = recomputed(config, opened)
        check_finite(known)
        if not np.abs(known).max() > 0:
            raise FedraxError(
                "the first message holds nothing yet: lower learner.learning_starts, so that agents learn in the first "
                "round"
            )

        def yields(shared: bool) -> bool:
            drawing = runtime.model_copy(update={"shared_seeds": shared})
            return equal(known, message_of_node(config.model_copy(update={"runtime": drawing}), opened))

        own = yields(False)
        return {"as_run": yields(True) if shared else own, "on_nodes_with_secrets": own}


def first_round(config: Config) -> Round:
    """What is broadcast in the first round, and the order for one agent."""
    runtime = make_runtime(config, agents=False)
    try:
        federation, key = runtime.federation, jax.random.key(config.seed)
        zero = jnp.asarray(0)
        downlink = federation.broadcast(federation.init(key).server, key, zero)
        order = Order(jnp.asarray(False), Tally(zero, zero, zero, zero, zero), federation.protection.first_clip)
        return Round(federation, downlink, order)
    finally:
        runtime.close()


def recomputed(config: Config, opened: Round) -> Float[np.ndarray, " n"]:
    """What whoever knows the configuration takes the agent's message for, as one vector."""
    agent = make_agent_runtime(config, AGENT, shared_randomness(config.seed))
    try:
        strategy = opened.federation.strategy
        downlink = strategy.incoming(strategy.outgoing(opened.downlink, AGENT), AGENT)
        done = agent.work(agent.start(), downlink, opened.order, 0)
        return _vector(marked(done.report, _travelling(config, strategy, done.message)))
    finally:
        agent.close()


def message_of_node(config: Config, opened: Round) -> Float[np.ndarray, " n"]:
    """What a node that was given the configuration sends in the first round, as one vector.

    It draws as ``runtime.shared_seeds`` says: from the run's seed, or from a secret that it makes.

    Raises:
        FedraxError: the node refuses, with its reason.
    """
    strategy = opened.federation.strategy
    with tempfile.TemporaryDirectory(prefix="fedrax-audit-") as folder:
        service = AgentService(Path(folder), agent=AGENT, plugins=config.plugins, shared_seeds=True)
        transport = InProcessTransport({NODE: service.answer})
        try:
            _asked(transport, Envelope(JOIN, {"run": "audit", "config": config.to_toml()}), JOINED)
            outgoing = travelling(strategy.outgoing(opened.downlink, AGENT), travel_period(config, strategy), 0)
            fields: dict[str, Field] = {
                "run": "audit",
                "round": 0,
                "agent": AGENT,
                "form": form((outgoing, order_shapes(opened.federation))),
                "order": packed(opened.order).hex(),
            }
            answer = _asked(transport, Envelope(WORK, fields, packed(outgoing)), WORKED)
        finally:
            service.close()
    message, _ = opened.federation.shapes()
    report = report_shapes(opened.federation, config.environment.num_envs)
    sent, _ = unpacked((_travelling(config, strategy, message), report), answer.payload)
    return _vector(sent)


def equal(one: Float[np.ndarray, " n"], other: Float[np.ndarray, " n"]) -> bool:
    """Whether two messages are the same but for rounding."""
    return bool(np.allclose(one, other, rtol=0, atol=TOLERANCE * np.abs(other).max()))


def _travelling(config: Config, strategy: Strategy, message: PyTree) -> PyTree:
    """What of a message travels at the end of the first round."""
    return travelling(message, travel_period(config, strategy), 1)


def _asked(transport: InProcessTransport, envelope: Envelope, expected: str) -> Envelope:
    """The node's answer."""
    ((_, answer),) = transport.collect(transport.send([(NODE, envelope)], seconds=1.0))
    if not isinstance(answer, Envelope) or answer.kind != expected:
        reason = answer.fields.get("reason", answer.kind) if isinstance(answer, Envelope) else answer
        raise FedraxError(f"no node takes part in the run: {reason}")
    return answer


def _vector(message: PyTree) -> Float[np.ndarray, " n"]:
    leaves = [np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(message)]
    return np.concatenate(leaves)
