"""From what learners emit to what environments are given."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import fedrax
from fedrax.config import resolve
from fedrax.environments.actions import Actions
from fedrax.environments.base import Box, Discrete
from fedrax.environments.host import make_host
from fedrax.environments.registry import describe_environment
from fedrax.errors import FedraxError
from fedrax.render import render
from fedrax.runtime.make import make_runtime

from acted import MATRIX, VALVE, WHOLE

INF = float("inf")
KINDS = Box((5,), (0.0, 2.0, -INF, -INF, -4.0), (100.0, INF, 7.0, INF, -4.0))
"""Both bounds, the lower, the upper, none, and two that are equal."""


def both(actions, emitted):
    """What is made of it on either side, the same up to rounding."""
    emitted = np.asarray(emitted, np.float32)
    native, host = np.asarray(actions.native(jnp.asarray(emitted))), actions.host(emitted)
    assert native.shape == host.shape
    np.testing.assert_allclose(native, host, rtol=2e-6, atol=1e-5)
    return host


def test_clipped_actions_are_shares_of_the_range():
    given = [[0.0] * 5, [-1.0] * 5, [1.0] * 5, [0.6] * 5, [3.0] * 5, [-3.0] * 5]
    wanted = [
        [50, 3, 6, 0, -4],
        [0, 2, 5, -1, -4],
        [100, 4, 7, 1, -4],
        [80, 3.6, 6.6, 0.6, -4],
        [100, 6, 7, 3, -4],
        [0, 2, 3, -3, -4],
    ]
    np.testing.assert_allclose(both(Actions(KINDS, "clip"), given), wanted, rtol=1e-6)


def test_squashed_actions_pass_through_tanh_between_two_bounds_alone():
    given = [[0.0] * 5, [np.arctanh(0.6)] * 5, [-50.0] * 5]
    half = np.arctanh(0.6)
    wanted = [[50, 3, 6, 0, -4], [80, 3 + half, 6 + half, half, -4], [0, 2, -44, -50, -4]]
    np.testing.assert_allclose(both(Actions(KINDS, "squash"), given), wanted, rtol=1e-5, atol=1e-5)


def test_actions_in_the_environments_units_are_clipped_or_handed_over():
    emitted = np.array([[250.0, 1.0, 9.0, 3.0, 0.0]], np.float32)
    np.testing.assert_array_equal(both(Actions(KINDS, normalised=False), emitted), [[100, 2, 7, 3, -4]])
    np.testing.assert_array_equal(both(Actions(KINDS, "none"), emitted), emitted)


def test_whole_numbers_are_the_nearest_and_never_beyond_the_bounds():
    actions = Actions(Box((4,), (0, -3, 0, 0), (10, 3, 255, 255), "uint8"))
    with pytest.raises(FedraxError, match="action_bounds = 'none' is not allowed"):
        Actions(actions.space, "none")
    actions = Actions(Box((3,), (0, -3, 0), (10, 3, 127), "int8"))
    executed = both(actions, [[0.24, 0.5, 5.0], [-1.0, -0.49, -5.0]])
    assert executed.dtype == np.int8
    np.testing.assert_array_equal(executed, [[6, 2, 127], [0, -1, 0]])
    longest = Actions(Box((2,), (-(2**63), 0), (2**63 - 1, 2**53 + 1), "int64"))
    np.testing.assert_array_equal(
        longest.host(np.array([[1.0, 1.0], [-1.0, -1.0], [0.0, 7.0]], np.float32)),
        [[2**63 - 1, 2**53 + 1], [-(2**63), 0], [0, 2**53 + 1]],
    )


@st.composite
def boxes(draw):
    """Gymnasium's Boxes of any shape, type and bounds, and vectors that a policy might emit."""
    shape = draw(st.sampled_from([(), (1,), (3,), (2, 2), (1, 3, 2)]))
    dtype = np.dtype(
        draw(st.sampled_from(["float16", "float32", "float64", "int8", "int64", "uint8", "uint32", "bool"]))
    )
    if dtype.kind == "f":
        widest = float(np.finfo(dtype).max)
        numbers = st.floats(-widest, widest, width=8 * dtype.itemsize)
        bounds = arrays.arrays(dtype, (2, *shape), elements=numbers)
    else:
        bounds = arrays.arrays(dtype, (2, *shape))
    low, high = np.sort(draw(bounds), 0)
    low, high = np.asarray(low, dtype), np.asarray(high, dtype)
    if dtype.kind == "f":
        low = np.where(draw(arrays.arrays(bool, shape)), -np.inf, low).astype(dtype)
        high = np.where(draw(arrays.arrays(bool, shape)), np.inf, high).astype(dtype)
    size = int(np.prod(shape))
    emitted = draw(arrays.arrays(np.float32, (3, size), elements=st.floats(-1e4, 1e4, width=32)))
    return gymnasium.spaces.Box(low, high, shape, dtype), emitted


@settings(max_examples=300)
@given(boxes(), st.sampled_from(["clip", "squash"]), st.booleans())
def test_the_environment_gets_what_its_space_holds(case, bounds, normalised):
    space, emitted = case
    actions = Actions(registered(space), bounds, normalised)
    for executed in actions.host(emitted):
        assert space.contains(np.asarray(executed)), (executed, space)


def registered(space):
    """A space as the registry reads it."""
    from fedrax.environments.registry import _box

    return _box(space)


@settings(max_examples=50)
@given(st.lists(st.floats(-2, 2, width=32), min_size=5, max_size=5), st.sampled_from(["clip", "squash", "none"]))
def test_emitted_is_the_inverse_of_in_units(emitted, bounds):
    actions = Actions(KINDS, bounds)
    meant = actions.in_units(jnp.asarray(emitted, jnp.float32)[None])
    np.testing.assert_allclose(actions.in_units(actions.emitted(meant)), meant, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("space", "reason"),
    [
        (Box((0,), (), ()), "no component"),
        (Box((2,), (0.0, float("nan")), (1.0, 1.0)), "not a number"),
        (Box((1,), (2.0,), (1.0,)), "a lower bound above the upper one"),
        (Box((1,), (0,), (INF,), "int64"), r"whole numbers \(int64\) without bounds"),
    ],
)
def test_a_box_that_cannot_be_honoured_is_refused(space, reason):
    with pytest.raises(FedraxError, match=reason):
        Actions(space)


def register(id, space):
    gymnasium.register(id, gymnasium.registry[VALVE].entry_point, max_episode_steps=20)
    gymnasium.registry[id].entry_point = type(
        "Variant", (gymnasium.registry[VALVE].entry_point,), {"action_space": space}
    )


def test_gymnasiums_missing_bounds_of_whole_numbers_are_noticed():
    register("FedraxBoundless-v0", gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.int64))
    for learner in ("ppo", "td3", "policy-gradient"):
        strategy = "strategy=gpomdp" if learner == "policy-gradient" else "strategy=fedavg"
        chosen = ["budget.rounds=1", "environment=FedraxBoundless-v0", f"learner={learner}", strategy]
        with pytest.raises(FedraxError, match=r"whole numbers .* without bounds"):
            make_runtime(resolve({}, chosen))


def test_td3_refuses_a_range_that_overflows():
    wide = float(np.finfo(np.float32).max)
    register("FedraxWide-v0", gymnasium.spaces.Box(-wide, wide, (1,), np.float32))
    with pytest.raises(FedraxError, match="td3' needs bounded actions"):
        make_runtime(resolve({}, ["budget.rounds=1", "environment=FedraxWide-v0", "learner=td3", "strategy=fedavg"]))


SMALL = [
    "strategy=fedavg",
    "federation.agents=2",
    "environment.num_envs=2",
    "budget.rounds=2",
    "checkpoint.every=2",
    "evaluation.every=2",
    "evaluation.episodes=2",
]
LEARNERS = {
    "ppo": ["learner.num_steps=8", "learner.update_epochs=1", "learner.hidden=[8]"],
    "policy-gradient": ["strategy.batch=2", "learner.hidden=[8]"],
    "td3": ["learner.learning_starts=8", "learner.batch_size=8", "learner.actor_layers=[8]", "learner.buffer_size=64"],
}


@pytest.mark.training
@pytest.mark.parametrize("id", [VALVE, MATRIX, WHOLE])
@pytest.mark.parametrize("learner", LEARNERS)
def test_every_learner_gives_every_environment_what_its_space_holds(id, learner, tmp_path):
    """The environments assert it: in training, evaluation, and videos."""
    strategy = ["strategy=gpomdp"] if learner == "policy-gradient" else []
    chosen = [*SMALL, f"environment={id}", f"learner={learner}", *strategy, *LEARNERS[learner]]
    run = fedrax.train({}, [*chosen, "evaluation.greedy=false"], out=tmp_path / "run", progress=False)
    assert np.isfinite(run.metrics()[-1]["return"])
    assert render(run.path, formats=("gif",), out=tmp_path / "video")


@pytest.mark.parametrize("bounds", ["squash", "none"])
def test_other_bounds_can_be_chosen(bounds, tmp_path):
    chosen = [*SMALL, f"environment={VALVE}", "learner=ppo", *LEARNERS["ppo"], f"learner.action_bounds={bounds}"]
    runtime = make_runtime(resolve({}, chosen))
    try:
        assert runtime.federation.actions == Actions(describe_environment(VALVE).spaces.action, bounds)
    finally:
        runtime.close()


@pytest.mark.parametrize("backend", ["gymnasium", "envpool"])
def test_host_environments_are_given_units(backend):
    """Half of Pendulum's range of 2 N m is a torque of 1 N m."""
    if backend == "envpool":
        pytest.importorskip("envpool")
    chosen = [
        "budget.rounds=1",
        "environment=Pendulum-v1",
        "environment.native=false",
        f"environment.backend={backend}",
        "learner=ppo",
    ]
    runtime = make_runtime(resolve({}, [*chosen, "federation.agents=1", "strategy=fedavg"]))
    ours = runtime._make(3, 200)
    plain = make_host("Pendulum-v1", 3, backend=backend)
    try:
        for environments in (ours, plain):
            environments.reseed(np.arange(3))
        np.testing.assert_array_equal(ours.reset(), plain.reset())
        for emitted, torque in ((0.5, 1.0), (-7.0, -2.0)):
            rows = ours.step(np.full((3, 1), emitted, np.float32)), plain.step(np.full((3, 1), torque, np.float32))
            for one, other in zip(*rows, strict=True):
                np.testing.assert_array_equal(one, other)
    finally:
        ours.close()
        plain.close()
        runtime.close()


def test_native_environments_are_given_units():
    settings = ["budget.rounds=1", "environment=Pendulum-v1", "strategy=fedavg"]
    made = {name: make_runtime(resolve({}, [*settings, f"learner={name}"])) for name in ("ppo", "td3")}
    environment = made["ppo"].environment
    physics, key = environment.physics(), jax.random.key(0)
    state, _ = environment.reset(key, physics)
    # td3 emits torques, ppo shares of their range.
    for ppo, td3 in ((0.5, 1.0), (-7.0, -2.0)):
        one = made["ppo"].environment.step(state, jnp.array([ppo]), key, physics)
        other = made["td3"].environment.step(state, jnp.array([td3]), key, physics)
        np.testing.assert_array_equal(one.observation, other.observation)
        np.testing.assert_array_equal(one.reward, other.reward)


def test_discrete_actions_are_the_same_on_both_sides():
    actions = Actions(Discrete(3))
    assert actions.same
    assert actions.host(np.array([0, 2])).tolist() == [0, 2]


@pytest.mark.parametrize("bounds", ["clip", "squash"])
def test_attackers_act_in_the_environments_units(bounds):
    settings = ["budget.rounds=1", f"environment={VALVE}", "learner=ppo", f"learner.action_bounds={bounds}"]
    settings += ["strategy=fedavg", "federation.agents=2"]

    def done(attack):
        runtime = make_runtime(resolve({}, [*settings, f"attack={attack}", "attack.agents=1"]))
        federation = runtime.federation
        params = federation.learner.init_params(jax.random.key(0), federation.spaces)
        action, _ = federation.decide(params, jnp.zeros((500, 2)), jax.random.key(1), jnp.asarray(True))
        assert np.isfinite(action).all()
        runtime.close()
        return federation.actions.host(np.asarray(action)).ravel()

    np.testing.assert_allclose(done("random-action"), 0.0, atol=1e-3)
    share, _ = np.histogram(done("true-random-action"), np.linspace(0, 100, 6))
    assert abs(share - 100).max() < 5 * np.sqrt(80)


@pytest.mark.slow
@pytest.mark.parametrize("learner", ["ppo", "td3"])
def test_a_valve_is_learned_with_the_default_settings(learner, tmp_path):
    run = fedrax.train(
        {},
        [f"environment={VALVE}", f"learner={learner}", "strategy=fedavg", "budget.rounds=60"],
        out=tmp_path / "run",
        progress=False,
    )
    assert run.metrics()[-1]["return"] > -4


@pytest.mark.training
def test_ppo_learns_the_valve(tmp_path):
    """Two agents in thirty rounds: -15.7 by actions from -1 to 1, -6 by the middle of the range."""
    settings = [f"environment={VALVE}", "learner=ppo", "strategy=fedavg", "federation.agents=2", "budget.rounds=30"]
    run = fedrax.train({}, [*settings, "evaluation.every=30"], out=tmp_path / "run", progress=False)
    assert run.metrics()[-1]["return"] > -4
