"""FedPer: one body, and every agent's own head and policy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedrax
from fedrax.config import resolve
from fedrax.errors import FedraxError
from fedrax.runtime.make import make_runtime
from fedrax.trees import tree_bytes

RUN = [
    *("strategy=fedper", "learner=ppo", "learner.num_steps=16", "learner.hidden=[8]", "federation.agents=3"),
    *("environment=CartPole-v1", "environment.num_envs=2", "environment.horizon=40", "budget.rounds=2"),
    *("checkpoint.every=2", "evaluation.every=2", "evaluation.episodes=3"),
]


@pytest.fixture(scope="module")
def trained():
    """The runtime, and the states before and after two rounds."""
    runtime = make_runtime(resolve({}, RUN))
    before = jax.tree.map(np.array, runtime.init())
    ((after, metrics),) = runtime.advance(runtime.init(), 0)
    return runtime, before, jax.tree.map(np.array, after), metrics


def largest(tree):
    return max(np.abs(leaf).max() for leaf in jax.tree.leaves(tree))


def test_the_body_is_averaged_and_heads_stay(trained):
    runtime, before, after, _ = trained
    server, agents = after.server.params, after.agents.params
    # All take part, by whole steps of equal weight: the average of the agents' bodies is the server's.
    mean = jax.tree.map(lambda x: x.mean(1), agents.torso)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), server.torso, mean)
    assert largest(jax.tree.map(np.subtract, server.torso, before.server.params.torso)) > 1e-4
    for part in ("actor", "critic"):
        heads = getattr(agents, part)
        assert largest(jax.tree.map(lambda x: x[:, 0] - x[:, 1], heads)) > 1e-4, "agents' heads are not each their own"
        jax.tree.map(np.testing.assert_array_equal, getattr(server, part), getattr(before.server.params, part))
    message, _ = runtime.message_bytes(0)
    assert message == tree_bytes(jax.tree.map(lambda x: x[0], server.torso))


def test_every_agents_policy_is_evaluated_and_kept(trained, tmp_path):
    runtime, _, after, metrics = trained
    assert metrics["agent_returns"].shape == (1, 2, 3)
    jax.tree.map(np.testing.assert_array_equal, runtime.outputs(after), after.agents.params)
    run = fedrax.train({}, RUN, out=tmp_path / "run", progress=False)
    assert run.evaluate(episodes=2)[0].returns.shape == (3, 2)
    assert jax.tree.leaves(run.policies()[0])[0].shape[0] == 3


def test_whether_there_is_a_shared_policy_follows_from_the_parts():
    def personal(*overrides):
        return resolve({}, [*RUN, *overrides]).hands_out_own()

    assert personal()
    assert not personal("strategy.average=[]")
    assert not personal('strategy.average=["torso", "actor"]')
    assert personal("strategy=fedavg", 'strategy.average=["actor", "critic"]')
    assert not personal("strategy=fedavg")


def test_a_body_that_the_networks_do_not_have_is_one_line():
    with pytest.raises(FedraxError, match=r"averages PPO's torso .* set strategy\.average='\[\"features\"\]'"):
        make_runtime(resolve("fedtd3/pendulum", ["strategy=fedper", "learner.buffer_size=1000"]))
    settings = ["strategy=fedper", 'strategy.average=["torso", "actor"]', "learner.buffer_size=1000"]
    runtime = make_runtime(resolve("fedtd3/pendulum", settings))
    with pytest.raises(FedraxError, match=r"unknown strategy\.average 'torso'.*allowed: actor, features, head"):
        runtime.init()


SAC = [
    *("strategy=fedavg", "learner=sac", "environment=Pendulum-v1", "federation.agents=3", "environment.num_envs=2"),
    *("environment.horizon=8", "budget.rounds=1", "checkpoint.every=1", "evaluation.every=1", "evaluation.episodes=3"),
    *("learner.actor_layers=[4]", "learner.feature_layers=[4]", "learner.head_layers=[4]", "learner.num_steps=8"),
    *("learner.batch_size=8", "learner.buffer_size=64", "learner.learning_starts=8", "evaluation.environments=own"),
]


@pytest.mark.training
@pytest.mark.parametrize("parts", [("features", "head"), ("actor",), ("actor", "features", "head")])
def test_averaged_parts_are_copied_and_agents_move_apart_again(parts):
    names = ", ".join(f'"{part}"' for part in parts)
    runtime = make_runtime(resolve({}, [*SAC, f"strategy.average=[{names}]"]))
    ((state, _),) = runtime.advance(runtime.init(), 0)
    first = jax.tree.map(lambda x: np.array(x[0]), state)
    federation = runtime.federation
    downlink = federation.broadcast(jax.tree.map(lambda x: x[0], state.server), jax.random.key(0), jnp.asarray(1))
    for part in ("actor", "features", "head"):
        own = getattr(first.agents.params, part)
        # Each agent has learned networks of its own, also from those that all had alike.
        assert min(np.abs(leaf[0] - leaf[1]).max() for leaf in jax.tree.leaves(own)) > 0
        for index in range(3):
            agent = jax.tree.map(lambda x, i=index: x[0, i], state.agents)
            absorbed = getattr(federation.strategy.absorb(agent, downlink, jnp.asarray(index)).params, part)
            wanted = (
                jax.tree.map(lambda x: x.mean(0), own) if part in parts else jax.tree.map(lambda x, i=index: x[i], own)
            )
            jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), absorbed, wanted)
