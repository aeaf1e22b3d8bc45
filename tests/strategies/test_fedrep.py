"""FedRep: heads first, then the body."""

import jax
import numpy as np
import pytest

from fedrax.config import resolve
from fedrax.errors import FedraxError
from fedrax.runtime.make import make_runtime

RUN = [
    *("strategy=fedrep", "learner=ppo", "learner.num_steps=16", "learner.hidden=[8]", "federation.agents=2"),
    *("environment=CartPole-v1", "environment.num_envs=2", "environment.horizon=40", "budget.rounds=2"),
    *("evaluation.every=2", "evaluation.episodes=2"),
]
HEAD, BODY = ("actor", "critic"), ("torso",)


def states(*overrides, rounds=1, run=RUN):
    """The agents and the server before the first round and after ``rounds``."""
    runtime = make_runtime(resolve({}, [*run, f"budget.rounds={rounds}", *overrides]))
    before = jax.tree.map(np.array, runtime.init())
    for after, _ in runtime.advance(runtime.init(), 0):
        last = after
    return before, jax.tree.map(np.array, last)


def moved(before, after, parts):
    pairs = [(getattr(before, part), getattr(after, part)) for part in parts]
    return max(np.abs(x - y).max() for pair in pairs for x, y in zip(*map(jax.tree.leaves, pair), strict=True))


def largest(tree):
    return max(np.abs(x).max() for x in jax.tree.leaves(tree))


@pytest.fixture(scope="module")
def trained():
    """After a round of one update of heads and one of bodies."""
    return states("federation.local_updates=2")


@pytest.mark.training
def test_both_are_learned_in_a_round(trained):
    before, after = trained
    assert moved(before.agents.params, after.agents.params, HEAD) > 1e-4
    assert moved(before.agents.params, after.agents.params, BODY) > 1e-4
    assert moved(before.server.params, after.server.params, BODY) > 1e-4
    assert moved(before.server.params, after.server.params, HEAD) == 0


def test_an_optimiser_has_seen_gradients_of_its_own_parts_alone(trained):
    _, after = trained
    agents = after.agents
    for optimizer, learns, rests in ((agents.optimizer, HEAD, BODY), (agents.private.optimizer, BODY, HEAD)):
        moments = [
            state for state in jax.tree.leaves(optimizer, is_leaf=lambda x: hasattr(x, "mu")) if hasattr(state, "mu")
        ]
        assert moments
        for state in moments:
            assert all(largest(getattr(state.mu, part)) > 0 for part in learns)
            assert all(largest(getattr(state.mu, part)) == 0 for part in rests)


@pytest.mark.training
@pytest.mark.parametrize("learner", ["td3", "sac"])
def test_critics_features_and_heads_are_learned_in_turn(learner):
    """Learners with an optimiser for the critics and one for the actor, and with targets."""
    before, after = states(
        *("environment=Pendulum-v1", f"learner={learner}", 'strategy.average=["features"]', "learner.batch_size=4"),
        *("federation.local_updates=2", "learner.num_steps=4", "learner.buffer_size=64", "learner.learning_starts=4"),
        *("learner.actor_layers=[4]", "learner.feature_layers=[4]", "learner.head_layers=[4]"),
        run=[each for each in RUN if not each.startswith("learner")],
    )
    assert moved(before.server.params, after.server.params, ["features"]) > 1e-5
    assert moved(before.server.params, after.server.params, ["head", "actor"]) == 0
    agents = after.agents
    for optimizer, learns, rests in (
        (agents.optimizer, {"head", "actor"}, {"features"}),
        (agents.private.optimizer, {"features"}, {"head", "actor"}),
    ):
        seen = dict.fromkeys(learns | rests, 0.0)
        for state in jax.tree.leaves(optimizer, is_leaf=lambda x: hasattr(x, "mu")):
            for part in seen:
                if hasattr(state, "mu") and jax.tree.leaves(getattr(state.mu, part, ())):
                    seen[part] = max(seen[part], largest(getattr(state.mu, part)))
        assert {part for part, size in seen.items() if size > 0} == learns


@pytest.mark.training
def test_the_body_stands_still_while_the_head_is_learned():
    """Two updates of heads of three: the head is where it is after the first two; the third moves the body alone."""
    before, after = states("federation.local_updates=3", "strategy.head_updates=2")
    assert int(after.agents.private.updates[0, 0]) == 3
    received = after.agents.private.received
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y), received["torso"], before.agents.params.torso)
    assert moved(before.agents.params, after.agents.params, BODY) > 1e-4


def test_a_network_that_is_averaged_whole_by_its_parts_has_no_head():
    parts = 'strategy.average=["torso", "actor", "critic"]'
    runtime = make_runtime(resolve({}, [*RUN, "federation.local_updates=2", parts]))
    with pytest.raises(FedraxError, match="no head is left to learn"):
        runtime.init()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["federation.local_updates=1"], "needs at least 2 in a round; raise it"),
        (["federation.local_updates=2", "strategy.head_updates=2"], "needs at least 3 in a round; raise it"),
        (["federation.local_updates=2", "strategy.average=[]"], "no head is left to learn"),
    ],
)
def test_settings_that_learn_nothing_together_are_refused(overrides, words):
    with pytest.raises(FedraxError, match=words) as caught:
        make_runtime(resolve({}, [*RUN, *overrides]))
    assert "\n" not in str(caught.value)
