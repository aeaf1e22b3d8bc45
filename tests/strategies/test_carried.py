"""What becomes of targets and of an optimiser's moments when averaged networks arrive."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedrax.config import resolve
from fedrax.errors import FedraxError
from fedrax.federation import Cohort
from fedrax.runtime.make import make_runtime

AGENTS = 3
COMMON = ["environment=Pendulum-v1", "budget.rounds=1", f"federation.agents={AGENTS}", "strategy=fedavg"]
TD3 = [
    *(*COMMON, "learner=td3", "learner.num_steps=2", "learner.batch_size=4", "learner.buffer_size=16"),
    "learner.learning_starts=16",
    *("learner.actor_layers=[3]", "learner.feature_layers=[3]", "learner.head_layers=[3]"),
]


def federation(*overrides):
    return make_runtime(resolve({}, [*TD3, *overrides])).federation


@eqx.filter_jit
def moved(tree, by):
    """Agents, leaves ``[agents, ...]``, each of whose real numbers moved by its agent's number."""
    return jax.tree.map(
        lambda x: (
            x + by * jnp.arange(AGENTS, dtype=x.dtype).reshape(-1, *[1] * (x.ndim - 1))
            if jnp.issubdtype(x.dtype, jnp.floating)
            else x + 1
        ),
        tree,
    )


def learned(state):
    """As after a round of learning: networks, targets and moments of every agent somewhere else."""
    agents = state.agents
    memory = dataclasses.replace(agents.memory, target=moved(agents.memory.target, 4.0))
    return dataclasses.replace(
        agents, params=moved(agents.params, 1.0), optimizer=moved(agents.optimizer, 0.5), memory=memory
    )


@eqx.filter_jit
def exchanged(federation, server, agents, answers):
    """The server and the agents after messages and the next broadcast."""
    key, ids, first = jax.random.key(0), jnp.arange(AGENTS), jnp.asarray(0)
    downlink = federation.broadcast(server, key, first)
    messages = jax.vmap(lambda agent: federation.strategy.emit(federation.learner, agent, key))(agents)
    cohort = Cohort(ids, jnp.zeros(AGENTS, bool), answers)
    server, _ = federation.exchange(server, downlink, cohort, messages, key, first)
    downlink = federation.broadcast(server, key, first + 1)
    return server, jax.vmap(lambda agent, index: federation.strategy.absorb(agent, downlink, index))(agents, ids)


def one_round(*overrides, answers=(True,) * AGENTS):
    together = federation(*overrides)
    state = together.init(jax.random.key(0))
    before = learned(state)
    _, after = exchanged(together, state.server, before, jnp.asarray(answers))
    return state, before, after


def same(x, y):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), x, y)


def real(tree):
    return eqx.filter(tree, lambda x: jnp.issubdtype(x.dtype, jnp.floating))


def everywhere(tree, add):
    """The common start with so much added, of every agent."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x[0], x.shape) + add, tree)


def test_by_default_both_stay_with_the_agent():
    state, before, after = one_round()
    same(after.params, everywhere(state.agents.params, 1.0))
    same(after.memory.target, before.memory.target)
    same(after.optimizer, before.optimizer)


@pytest.mark.training
@pytest.mark.parametrize("strategy", ["fedavg", "scaffold", "moon"])
def test_targets_are_averaged_as_networks_are(strategy):
    state, _, after = one_round(f"strategy={strategy}", "strategy.average_targets=true")
    same(after.params, everywhere(state.agents.params, 1.0))
    same(after.memory.target, everywhere(state.agents.params, 4.0))


def test_whoever_does_not_answer_is_not_averaged():
    """Agents 0 and 2 alone: numbers moved by 0 and 8."""
    state, _, after = one_round(
        "strategy.average_targets=true", "strategy.moments=average", answers=(True, False, True)
    )
    same(after.memory.target, everywhere(state.agents.params, 4.0))
    same(real(after.optimizer), everywhere(real(state.agents.optimizer), 0.5))
    state, _, after = one_round("strategy.average_targets=true", answers=(True, True, False))
    same(after.memory.target, everywhere(state.agents.params, 2.0))


def test_targets_become_the_networks_or_move_a_step():
    state, before, after = one_round("strategy.target_step=1.0")
    same(after.memory.target, everywhere(state.agents.params, 1.0))
    _, before, after = one_round("strategy.target_step=0.005")
    same(after.memory.target, jax.tree.map(lambda x, y: x + 0.005 * (y - x), before.memory.target, after.params))


def test_parts_that_are_not_averaged_keep_their_targets():
    state, before, after = one_round("strategy.average_targets=true", 'strategy.average=["features"]')
    same(after.memory.target.features, everywhere(state.agents.params.features, 4.0))
    same(after.memory.target.actor, before.memory.target.actor)
    same(after.params.actor, before.params.actor)


def test_moments_are_averaged_or_reset():
    state, _, after = one_round("strategy.moments=average")
    same(real(after.optimizer), everywhere(real(state.agents.optimizer), 0.5))
    counts = [x for x in jax.tree.leaves(after.optimizer) if not jnp.issubdtype(x.dtype, jnp.floating)]
    assert all(x.tolist() == [1] * AGENTS for x in counts)
    _, _, after = one_round("strategy.moments=reset")
    assert all(not x.any() for x in jax.tree.leaves(after.optimizer))


def test_second_moments_that_were_attacked_leave_no_root_of_a_negative():
    together = federation("strategy.moments=average")
    state = together.init(jax.random.key(0))
    agents = learned(state)
    negative = eqx.tree_at(lambda a: a.optimizer, agents, jax.tree.map(lambda x: -jnp.abs(x) - 1, agents.optimizer))
    _, after = exchanged(together, state.server, negative, jnp.ones(AGENTS, bool))
    for path, x in jax.tree_util.tree_leaves_with_path(after.optimizer):
        if "nu" in jax.tree_util.keystr(path):
            assert (x >= 0).all()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["learner=ppo", "strategy.average_targets=true"], "needs a learner with target networks, not 'ppo'"),
        (["learner=ppo", "strategy.target_step=0.5"], "needs a learner with target networks, not 'ppo'"),
        (["strategy.target_step=1", "strategy.average_targets=true"], "set strategy.target_step=0"),
        (["strategy.moments=average", 'strategy.average=["actor"]'], "needs networks that are averaged whole"),
        (["strategy.average_targets=true", "strategy.actor_every=2"], "set strategy.actor_every=1"),
        (["strategy.moments=average", "compression=top-k"], "encodes changes, and strategy.moments = 'average' sends"),
        (
            ["strategy.moments=average", "compression=float16"],
            "encodes changes, and strategy.moments = 'average' sends",
        ),
        (["strategy.moments=average", "privacy.clip=1"], "which noise and clipping make useless"),
    ],
)
def test_options_that_do_not_fit_are_refused(overrides, words):
    common = COMMON if "learner=ppo" in overrides else TD3
    with pytest.raises(FedraxError, match=words) as caught:
        make_runtime(resolve({}, [*common, *overrides]))
    assert "\n" not in str(caught.value)
