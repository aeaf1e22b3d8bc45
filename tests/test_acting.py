"""Policies of runs that act; none is trained: fresh networks lie where training puts its own."""

import functools
import json
import math

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedrax
from fedrax import acting
from fedrax.acting import known_spaces
from fedrax.config import resolve
from fedrax.environments.base import Box, Dict, Discrete, Spaces, Tokens
from fedrax.environments.spaces import of_gymnasium, read, written
from fedrax.errors import FedraxError
from fedrax.exchange.exports import export
from fedrax.records.files import write_json
from fedrax.records.manifest import read_manifest
from fedrax.runtime import draws
from fedrax.runtime.draws import describe_run
from fedrax.runtime.make import make_learner, make_runtime
from fedrax.strategies.base import strategies

from fresh_runs import made


@pytest.fixture(scope="module")
def cartpole(tmp_path_factory):
    return made(tmp_path_factory.mktemp("acting") / "cartpole", "fedpg-br/cartpole")


@pytest.fixture(scope="module")
def pendulum(tmp_path_factory):
    return made(tmp_path_factory.mktemp("acting") / "pendulum", "fedtd3/pendulum")


@pytest.fixture(scope="module")
def push(tmp_path_factory):
    return made(tmp_path_factory.mktemp("acting") / "push", "td3-her/point-push", ["strategy=local"])


@pytest.fixture(scope="module")
def crossing(tmp_path_factory):
    return made(tmp_path_factory.mktemp("acting") / "crossing", "fedppo/simple-crossing")


def test_a_policy_acts_in_gymnasium(cartpole):
    policy = cartpole.policy()
    environment = gymnasium.make("CartPole-v1")
    assert policy.action_space == environment.action_space
    assert policy.observation_space.shape == environment.observation_space.shape
    observation, _ = environment.reset(seed=0)
    for _ in range(5):
        action = policy(observation)
        assert environment.action_space.contains(action)
        observation, *_ = environment.step(action)


def test_an_observation_is_a_batch_of_one(cartpole):
    policy, batch = cartpole.policy(seed=1), np.random.default_rng(0).normal(size=(13, 4))
    actions = policy(batch)
    assert (actions.shape, actions.dtype) == ((13,), np.int64)
    assert [policy(row) for row in batch] == actions.tolist()
    assert policy(batch[:0]).shape == (0,)
    # What the networks say themselves.
    expected = make_learner(cartpole.config).act(cartpole.policies()[1], jnp.asarray(batch, jnp.float32), None)
    np.testing.assert_array_equal(actions, expected)


def test_each_policy_of_a_run_is_another(cartpole):
    batch = np.random.default_rng(0).normal(size=(200, 4))
    first, second, best = (
        cartpole.policy(**which)(batch) for which in ({"seed": 0}, {"seed": 1}, {"seed": 0, "best": True})
    )
    assert (first != second).any()
    assert (first != best).any()
    np.testing.assert_array_equal(cartpole.policy(rounds=1)(batch), first)


def test_what_is_drawn_follows_from_the_seed(cartpole):
    batch = np.zeros((64, 4))
    policy, again = (cartpole.policy(deterministic=False, random_seed=3) for _ in range(2))
    drawn = policy(batch)
    assert set(drawn.tolist()) == {0, 1}
    np.testing.assert_array_equal(drawn, again(batch))
    assert (policy(batch) != drawn).any()
    policy.reset(3)
    np.testing.assert_array_equal(policy(batch), drawn)
    assert (cartpole.policy(deterministic=False, random_seed=4)(batch) != drawn).any()
    assert len(set(policy(batch, deterministic=True).tolist())) == 1
    assert len(set(cartpole.policy()(batch, deterministic=False).tolist())) == 2


def test_a_policy_acts_as_the_run_was_evaluated(tmp_path):
    run = made(tmp_path / "run", "fedpg-br/cartpole", ["evaluation.greedy=false"])
    batch = np.zeros((64, 4))
    assert set(run.policy()(batch).tolist()) == {0, 1}
    assert len(set(run.policy(deterministic=True)(batch).tolist())) == 1
    with np.load(export(run.path, "npz")) as file:
        assert json.loads(str(file["about"]))["greedy"] is False


def test_real_actions_are_the_environments_own(pendulum):
    policy = pendulum.policy()
    actions = policy(np.random.default_rng(0).normal(0, 9, (50, 3)))
    assert (actions.shape, actions.dtype) == ((50, 1), np.float32)
    assert all(policy.action_space.contains(action) for action in actions)
    assert policy.action_space == gymnasium.make("Pendulum-v1").action_space
    noisy = policy(np.zeros((50, 3)), deterministic=False)
    assert len(np.unique(noisy)) > 1


def test_an_agents_own_policy_sees_observations_of_several_parts(push):
    first, second = (push.policy(agent=agent) for agent in (0, 1))
    seen = first.observation_space.sample()
    assert set(seen) == {"observation", "achieved_goal", "desired_goal"}
    assert not np.array_equal(first(seen), second(seen))
    batch = {name: np.stack([x, x + 1]) for name, x in seen.items()}
    np.testing.assert_allclose(first(batch)[0], first(seen), atol=1e-6)


def test_minigrid_is_seen_as_it_comes(crossing):
    policy = crossing.policy(agent=0, deterministic=True)
    view = np.random.default_rng(0).integers(0, 3, (7, 7, 3), np.uint8)
    given = {"image": view, "direction": 1, "mission": "find the opening and get to the green goal square"}
    assert policy(given) == policy(view)
    assert policy.action_space.contains(policy(view))


@pytest.mark.training
def test_a_task_of_an_agents_is_seen_as_it_is(tmp_path):
    tasks = ["environment.tasks=['PointReach-v0','PointPush-v0']", "environment.task_identity=true"]
    run = made(tmp_path / "run", "td3-her/point-push", ["strategy=fedavg", *tasks], seeds=1)
    own, alike = run.policy(agent=0), run.policy()
    reach = own.observation_space["observation"].shape
    assert reach < alike.observation_space["observation"].shape
    seen = own.observation_space.sample()
    mixed = {name: np.zeros(part.shape, part.dtype) for name, part in alike.observation_space.items()}
    for name, x in seen.items():
        mixed[name][: len(x)] = x
    mixed["observation_mask"][: reach[0]] = 1
    mixed["task_identity"][0] = 1
    np.testing.assert_array_equal(own(seen), alike(mixed))


@pytest.mark.parametrize(
    ("observation", "why"),
    [
        (np.zeros(3), r"the observation has the shape \(3,\), and the policy sees \(4,\), or \(n, 4\) for a batch"),
        (np.zeros((2, 2, 4)), r"has the shape \(2, 2, 4\)"),
        (0.0, r"has the shape \(\)"),
        ("left", "is str, and the policy sees numbers"),
        ({"x": np.zeros(4)}, "is dict, and the policy sees numbers"),
        ([[1, 2], [3]], "is list, and the policy sees numbers"),
        (np.array([0, 0, 0, np.nan]), "numbers that are not finite"),
        (np.array([0, 0, 0, 1e39]), "numbers that are not finite as float32"),
    ],
)
def test_what_is_no_observation_is_one_line(cartpole, observation, why):
    with pytest.raises(FedraxError, match=why) as error:
        cartpole.policy()(observation)
    assert "\n" not in str(error.value)


def test_a_call_is_deterministic_or_not(cartpole):
    with pytest.raises(FedraxError, match="deterministic = 'no' is not allowed: give True or False"):
        cartpole.policy()(np.zeros(4), deterministic="no")


@pytest.mark.parametrize(
    ("part", "observation", "why"),
    [
        (Box((2,), (0.0,) * 2, (255.0,) * 2, "uint8"), np.array([0, 300]), "numbers from 0 to 300, .* sees 0 to 255"),
        (Box((2,), (0.0,) * 2, (255.0,) * 2, "uint8"), np.array([-1, 3]), "numbers from -1 to 3, .* sees 0 to 255"),
        (Tokens(2, 9), np.array([1, 9]), "numbers from 1 to 9, and the policy sees 0 to 8"),
        (Tokens(2, 9), np.array([[1, 8], [2**32, 0]]), "to 4294967296, and the policy sees 0 to 8"),
    ],
)
def test_whole_numbers_keep_their_value(part, observation, why):
    array, alone = acting._array(part, np.array([1, 8]), "the observation")
    assert (array.tolist(), array.dtype, alone) == ([[1, 8]], part.seen, True)
    with pytest.raises(FedraxError, match=why):
        acting._array(part, observation, "the observation")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda seen: seen["observation"], "is ndarray float32, and the policy sees a dictionary of achieved_goal"),
        (lambda seen: {**seen, "wind": 0.0}, "has wind, and the policy sees"),
        (lambda seen: {"observation": seen["observation"]}, "has no achieved_goal, desired_goal"),
        (
            lambda seen: {**seen, "observation": seen["observation"][None]},
            "different batches: achieved_goal one, desired_goal one, observation a batch of 1",
        ),
        (lambda seen: {**seen, "observation": 1}, r"observation's observation has the shape \(\)"),
    ],
)
def test_parts_that_do_not_fit_are_one_line(push, change, why):
    policy = push.policy(agent=0)
    with pytest.raises(FedraxError, match=why):
        policy(change({name: np.asarray(x) for name, x in policy.observation_space.sample().items()}))


@pytest.mark.parametrize(
    ("which", "why"),
    [
        ({}, "every agent of .* has a policy of its own: give agent=0 to agent=1"),
        ({"agent": 2}, "agent = 2 is not allowed: the run has agents 0 to 1"),
        ({"agent": "0"}, "agent = '0' is not allowed"),
        ({"agent": True}, "agent = True is not allowed"),
        (
            {"agent": 0, "random_seed": 2**70},
            "random_seed = 1180591620717411303424 is not allowed: give a whole number",
        ),
        ({"agent": 0, "random_seed": "a"}, "random_seed = 'a' is not allowed"),
        ({"agent": 0, "seed": 2}, "seed = 2 is not allowed: the run has seeds 0 to 1"),
        ({"agent": 0, "rounds": 7}, "holds no policy after 7 rounds; kept are those after 1;"),
        ({"agent": 0, "rounds": 1, "best": True}, "are two policies; give one of them"),
    ],
)
def test_a_policy_that_is_not_there_is_one_line(push, which, why):
    with pytest.raises(FedraxError, match=why):
        push.policy(**which)


def test_a_run_without_a_policy_is_one_line(tmp_path):
    run = made(tmp_path / "run", "fedpg-br/cartpole")
    run.directory.policy.unlink()
    with pytest.raises(FedraxError, match=r"there is no policy at .*; give a run that has finished its first check"):
        run.policy()


def test_neither_acting_nor_exporting_asks_for_the_environment(cartpole, tmp_path, monkeypatch):
    def refused(*arguments, **options):
        raise AssertionError("the environment is asked")

    for module in (draws, __import__("fedrax.acting").acting):
        monkeypatch.setattr(module, "describe_run" if module is not draws else "describe_environment", refused)
    assert cartpole.policy()(np.zeros(4)) in (0, 1)
    assert export(cartpole.path, "npz", out=tmp_path / "policy.npz").is_file()


def test_a_run_that_did_not_record_its_spaces_asks_the_environment(tmp_path):
    run = made(tmp_path / "run", "fedpg-br/cartpole")
    manifest = read_manifest(run.directory)
    recorded, _ = known_spaces(run.config, run.directory)
    write_json(run.directory.manifest, {key: value for key, value in manifest.items() if key != "spaces"})
    assert known_spaces(run.config, run.directory)[0] == recorded == describe_run(run.config)[0].spaces
    for damaged in ({}, {"CartPole-v1": {}}, {"CartPole-v1": {**manifest["spaces"]["CartPole-v1"], "action": 3}}, 7):
        write_json(run.directory.manifest, {**manifest, "spaces": damaged})
        with pytest.raises(FedraxError, match=r"manifest\.json is damaged: its table spaces"):
            known_spaces(run.config, run.directory)


@pytest.mark.parametrize(
    "spaces",
    [
        Spaces(Box((2, 1), (-math.inf, 0.0), (math.inf, 1.0), "float64"), Discrete(3, start=-1)),
        Spaces(Box((4, 8, 8), (0.0,) * 256, (255.0,) * 256, "uint8"), Box((2,), (-1.0, -2.0), (1.0, 2.0))),
        Spaces(Dict.of({"words": Tokens(5, 70), "mask": Box((2,), (0.0,) * 2, (1.0,) * 2, "bool")}), Discrete(2)),
    ],
)
def test_spaces_are_recorded_whole(spaces, tmp_path):
    write_json(tmp_path / "spaces.json", written(spaces))
    again = read(fedrax.records.files.read_json(tmp_path / "spaces.json", "spaces"))
    assert again == spaces
    if isinstance(spaces.action, Discrete):
        assert again.action.start == spaces.action.start
    assert len(json.dumps(written(spaces))) < 500
    assert of_gymnasium(spaces.observation).sample() is not None


@pytest.mark.parametrize("strategy", sorted(strategies))
def test_what_every_strategy_hands_out_is_what_policies_are_read_as(strategy):
    """Shapes alone: the networks of the learner, for every seed, and for every agent where each has its own."""
    settings = ["seeds=2", "federation.agents=4", "budget.rounds=1", f"strategy={strategy}"]
    settings += {"fedformer": ["critic=fedformer"], "fedrep": ["federation.local_updates=2"]}.get(strategy, [])
    fits = 0
    for learner, environment in (("policy-gradient", "CartPole-v1"), ("ppo", "CartPole-v1"), ("td3", "PointReach-v0")):
        own = [
            f"learner={learner}",
            f"environment={environment}",
            "learner.actor_layers=[4]" if learner == "td3" else "learner.hidden=[4]",
        ]
        try:
            config = resolve({}, [*settings, *own])
            runtime = make_runtime(config)
            handed = runtime.shapes().best
        except FedraxError:  # The strategy needs another learner.
            continue
        runtime.close()
        fresh = functools.partial(make_learner(config).init_params, spaces=runtime.federation.spaces)
        one = jax.eval_shape(fresh, jax.random.key(0))
        axes = (2, 4) if config.hands_out_own() else (2,)
        assert jax.tree.map(lambda x: x.shape, handed) == jax.tree.map(lambda x, axes=axes: (*axes, *x.shape), one)
        fits += 1
    assert fits, "no learner fits"
