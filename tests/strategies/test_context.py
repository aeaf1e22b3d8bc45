"""What a strategy lets networks and losses look at: who reads it, that it is frozen, and that shared arrays are one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedrax.config import resolve
from fedrax.learners.base import Objective, learners
from fedrax.learners.ppo import PPO
from fedrax.runtime.make import make_runtime
from fedrax.runtime.programs import is_shared
from fedrax.strategies.base import strategies
from fedrax.strategies.fedavg import FedAvg
from fedrax.strategies.local import Local
from fedrax.trees import ravel_rows

AGENTS = 3
RUN = [
    *("federation.agents=3", "federation.local_updates=2", "budget.rounds=1", "checkpoint.every=1", "seeds=1"),
    *("budget.trajectories=none", "budget.steps=none", "budget.steps_per_agent=none"),
    *("evaluation.episodes=2", "evaluation.horizon=10", "environment.id=CartPole-v1", "environment.num_envs=2"),
    *("learner=test-watching", "learner.hidden=[4]", "learner.num_steps=4", "learner.update_epochs=1"),
    *("learner.num_minibatches=1", "learner.optimizer=sgd", "learner.learning_rate=0.5"),
    *("learner.max_gradient_norm=none", "learner.anneal_learning_rate=false"),
]
HOST = ["environment.native=false", "environment.backend=gymnasium"]
RUNTIMES = {
    "native": [],
    "native, one after the other": ["runtime.agents_per_batch=1"],
    "host": HOST,
    "host, in groups": [*HOST, "runtime.agents_per_batch=2"],
}


class Towards(Objective):
    """Replaces the gradient by the difference from a reference, so that a step goes half the way to it."""

    reference: object

    def correct(self, gradient, params, notes):
        return jax.tree.map(jnp.subtract, params, self.reference), notes


@strategies.register("test-reference")
class Reference(FedAvg):
    """Agent i is drawn to ``2 x + i``, where x are the networks that all received."""

    def context(self, agent, downlink, index):
        doubled = jax.tree.map(lambda x: 2 * x, downlink.params)
        return {"doubled": doubled, "number": index.astype(jnp.float32), "start": agent.params}

    def objective(self, learner, agent, context):
        return Towards(jax.tree.map(lambda x: x + context["number"], context["doubled"]))


@strategies.register("test-reference-begun")
class Begun(Reference):
    """The same from ``x + i``."""

    def begin(self, learner, agent, context, key):
        moved = jax.tree.map(lambda x: x + context["number"], agent.params)
        return dataclasses.replace(agent, params=moved)


@strategies.register("test-own-start")
class OwnStart(Local):
    """Agents alone, who may look at the networks that they began the round with."""

    def context(self, agent, downlink, index):
        return {"start": agent.params}


@learners.register("test-watching")
class Watching(PPO):
    """PPO that reports how far it is from where its strategy says that the round started."""

    def learn(self, agent, experience, objective, update_context):
        moved = jax.tree.map(jnp.subtract, agent.params, update_context.context["start"])
        after, report = super().learn(agent, experience, objective, update_context)
        return after, report | {"moved": (ravel_rows(jax.tree.map(lambda x: x[None], moved)) ** 2).sum()}


def one_round(*overrides):
    """The common networks before a round, ``[d]``, every agent's after it, ``[agents, d]``, and the row's ``moved``."""
    runtime = make_runtime(resolve({}, [*RUN, *overrides]))
    before = runtime.init()
    common = np.array(ravel_rows(jax.tree.map(lambda x: x[0], before.agents.params))[0])
    ((state, metrics),) = runtime.advance(before, 0)
    runtime.close()
    return common, np.array(ravel_rows(jax.tree.map(lambda x: x[0], state.agents.params))), metrics["moved"].item()


@pytest.mark.training
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("strategy", ["test-reference", "test-reference-begun"])
def test_losses_and_learners_read_what_stays_as_it_was_when_the_round_began(strategy, runtime):
    common, after, moved = one_round(f"strategy={strategy}", *RUNTIMES[runtime])
    number = np.arange(AGENTS)[:, None]
    reference = 2 * common + number
    start = common + (number if strategy == "test-reference-begun" else 0)
    # Two local updates, each of one step half the way.
    np.testing.assert_allclose(after, reference + (start - reference) / 4, rtol=1e-4, atol=1e-5)
    halfway = (start + reference) / 2
    distances = [np.broadcast_to((place - common) ** 2, after.shape).sum(1) for place in (start, halfway)]
    np.testing.assert_allclose(moved, np.mean(distances), rtol=1e-4)


@pytest.mark.training
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_agents_own_networks_of_before_outlive_its_updates(runtime):
    """What learning changes in place is not what the context holds."""
    *_, moved = one_round("strategy=test-own-start", *RUNTIMES[runtime], "federation.local_updates=1")
    assert moved == 0
    *_, moved = one_round("strategy=test-own-start", *RUNTIMES[runtime])
    assert moved > 0


def test_a_host_runtime_holds_what_agents_share_once():
    runtime = make_runtime(resolve({}, [*RUN, "strategy=test-reference", *HOST]))
    state = jax.tree.map(lambda x: x[0], runtime.init())
    opened = runtime.programs.open(state, jax.random.key(0))
    groups = runtime.programs.groups(opened.agents, opened.cohort.ids, opened.cohort.byzantine)
    (context,) = runtime.programs.contexts(groups, opened.downlink)
    runtime.close()
    assert [leaf.tolist() for leaf in jax.tree.leaves(context.own)] == [[0.0, 1.0, 2.0]]
    for name, factor in (("doubled", 2), ("start", 1)):
        jax.tree.map(
            lambda x, y, factor=factor: np.testing.assert_allclose(x, factor * y),
            context.shared[name],
            state.server.params,
        )
    own = jax.tree.map(lambda x: x[1], context.own)
    assert context.of_agent(own)["number"] == 1.0


def test_what_does_not_depend_on_the_agent_is_shared():
    inputs = (jnp.arange(3.0), jnp.ones((3, 2)))
    assert is_shared(lambda x: jnp.arange(4.0), inputs)
    assert not is_shared(lambda x: x[0], inputs)
    assert not is_shared(lambda x: jnp.arange(2.0) + x[1], inputs)


def test_a_strategy_without_a_context_gives_none():
    runtime = make_runtime(resolve({}, [*RUN, "strategy=fedavg", "learner=ppo", *HOST]))
    programs, state = runtime.programs, jax.tree.map(lambda x: x[0], runtime.init())
    opened = programs.open(state, jax.random.key(0))
    groups = programs.groups(opened.agents, opened.cohort.ids, opened.cohort.byzantine)
    contexts = programs.contexts(groups, opened.downlink)
    runtime.close()
    assert [each.of_agent(each.own) for each in contexts] == [()]
    assert runtime.federation.strategy.context(state.agents, opened.downlink, jnp.asarray(0)) == ()
