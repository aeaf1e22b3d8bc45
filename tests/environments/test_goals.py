"""Rules of goal environments, found by asking them; training episodes that end in success; the point tasks."""

import sys

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedrax
from fedrax.config import resolve
from fedrax.describe import describe
from fedrax.environments.goals import ACHIEVED, DESIRED, OBSERVATION, Goal, NoRule, found_goal
from fedrax.environments.host import make_host
from fedrax.environments.native import native_environments
from fedrax.environments.registry import describe_environment
from fedrax.environments.termination import EndHostAtGoal
from fedrax.errors import FedraxError
from fedrax.runtime.make import make_runtime

TASKS = ("PointReach-v0", "PointPush-v0", "PointSlide-v0")


class Ruled(gymnasium.Env):
    """A walk along a line of whole numbers, towards a goal 3 steps away, with any rule for rewards."""

    def __init__(self, reward=None, threshold=None, terminated=None, told=True, bonus=0.0):
        line = gymnasium.spaces.Box(-100, 100, (2,), np.float64)
        self.observation_space = gymnasium.spaces.Dict({OBSERVATION: line, ACHIEVED: line, DESIRED: line})
        self.action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        self._reward, self._told, self._bonus = reward, told, bonus
        if threshold is not None:
            self.distance_threshold = threshold
        if terminated is not None:
            self.compute_terminated = lambda achieved, desired, info: terminated(np.linalg.norm(achieved - desired))

    def compute_reward(self, achieved, desired, info):
        return self._reward(np.linalg.norm(achieved - desired, axis=-1))

    def _seen(self):
        place = np.array([float(self.place), 0.0])
        return {OBSERVATION: place, ACHIEVED: place, DESIRED: np.array([3.0, 0.0])}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = 0
        return self._seen(), {}

    def step(self, action):
        self.place += 1
        info = {"is_success": self.place == 3} if self._told else {}
        seen = self._seen()
        return seen, self.compute_reward(seen[ACHIEVED], seen[DESIRED], {}) + self._bonus, False, False, info


RULES = [
    (lambda d: -(d > 0.05).astype(np.float32), Goal("sparse", 0.05, True, 0.0, -1.0)),
    (lambda d: -(d >= 0.05).astype(np.float32), Goal("sparse", 0.05, False, 0.0, -1.0)),
    (lambda d: (d <= 0.45).astype(np.float64), Goal("sparse", 0.45, True, 1.0, 0.0)),
    (lambda d: -d, Goal("distance", 0.0)),
    (lambda d: np.exp(-d), Goal("exponential", 0.0)),
]


@pytest.mark.parametrize(("rule", "goal"), RULES)
def test_a_rule_is_found_by_asking(rule, goal):
    assert found_goal(Ruled(rule), 2) == goal


def no_rule(environment):
    """Why it has none."""
    with pytest.raises(NoRule) as reason:
        found_goal(environment, 2)
    assert "\n" not in str(reason.value)
    return str(reason.value)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (lambda d: -(d**2), "its compute_reward is neither one of two numbers"),
        (lambda d: 5.0, "its compute_reward is neither one of two numbers"),
        (lambda d: float(d < 0.1) + float(d < 0.2), "its compute_reward is neither one of two numbers"),
        (lambda d: 1 / 0, "its compute_reward raises ZeroDivisionError: division by zero"),
        (lambda d: sys.exit(7), "its compute_reward raises SystemExit: 7"),
        (lambda d: "-1.5", "its compute_reward returns '-1.5', which is not a number"),
        (lambda d: None, "its compute_reward returns None, which is not a number"),
        (lambda d: np.ones(3), "its compute_reward returns array([1., 1., 1.]), which is not a number"),
    ],
)
def test_another_reward_has_no_rule_and_is_told_why(rule, words):
    assert no_rule(Ruled(rule)).startswith(words)


def test_an_environment_without_a_reward_to_ask_for_says_so():
    class Silent(Ruled):
        compute_reward = property(lambda self: self.missing)

    assert no_rule(Silent()) == "it has no compute_reward, which says what other goals are worth"
    assert "distance_threshold is not a number" in no_rule(Ruled(RULES[0][0], threshold="near"))


def test_whether_episodes_end_at_the_goal_is_asked_too():
    rule, goal = RULES[0]
    assert found_goal(Ruled(rule, terminated=lambda d: d <= 0.05), 2) == Goal(goal.shape, 0.05, True, ends=True)
    assert found_goal(Ruled(rule, terminated=lambda d: False), 2) == goal
    near = Ruled(lambda d: -d, threshold=0.1, terminated=lambda d: d < 0.1)
    assert found_goal(near, 2) == Goal("distance", 0.1, ends=True)
    assert "need a distance_threshold" in no_rule(Ruled(lambda d: -d, terminated=lambda d: d < 0.1))
    assert "compute_terminated raises ZeroDivisionError" in no_rule(Ruled(rule, terminated=lambda d: 1 / 0))


@pytest.mark.parametrize("terminated", [lambda d: True, lambda d: d < 1.0, lambda d: d > 3.0])
def test_episodes_that_end_elsewhere_than_at_the_goal_have_no_rule(terminated):
    assert "its compute_terminated ends episodes elsewhere" in no_rule(Ruled(RULES[0][0], terminated=terminated))


def test_steps_must_be_rewarded_by_the_rule_too():
    told = no_rule(Ruled(RULES[0][0], bonus=0.5))
    assert told == "a step is rewarded with -0.5 where its compute_reward says -1"
    broken = Ruled(RULES[0][0])
    broken.step = lambda action: 1 / 0
    assert no_rule(broken) == "its reset or step raises ZeroDivisionError: division by zero"


def test_hindsight_says_why_a_reward_cannot_be_asked_for():
    gymnasium.register("Unruly-v0", lambda **kwargs: Ruled(lambda d: 1 / 0, **kwargs), max_episode_steps=5)
    try:
        with pytest.raises(FedraxError) as refused:
            make_runtime(resolve("fedtd3/pendulum", ["environment.id=Unruly-v0", "learner.hindsight=future"]))
    finally:
        del gymnasium.registry["Unruly-v0"]
    assert "(here its compute_reward raises ZeroDivisionError: division by zero); set learner.hindsight=none" in str(
        refused.value
    )


@pytest.mark.parametrize(("rule", "goal"), RULES)
def test_rewards_and_successes_are_those_of_the_rule(rule, goal):
    pairs = np.random.default_rng(1).normal(0, 0.3, (2, 50, 2))
    np.testing.assert_allclose(goal.reward(*map(jnp.asarray, pairs)), Ruled(rule).compute_reward(*pairs, {}), atol=1e-6)
    if goal.shape == "sparse":
        np.testing.assert_array_equal(goal.success(*map(jnp.asarray, pairs)), goal.reward(*pairs) == goal.reached)


@pytest.mark.parametrize("shape", ["sparse", "distance", "exponential"])
def test_no_reward_is_out_of_bounds(shape):
    goal = Goal(shape, 0.1, reached=2.0, missed=-1.0)
    rewards = goal.reward(jnp.zeros((50, 1)), jnp.linspace(0, 20, 50)[:, None])
    assert goal.bounds[0] <= rewards.min()
    assert rewards.max() <= goal.bounds[1]


gymnasium.register("Ruled-v0", lambda **kwargs: Ruled(RULES[0][0], **kwargs), max_episode_steps=5)
gymnasium.register("Ranged-v0", lambda within=0.5: Ruled(lambda d: -1.0 * (d > within)), max_episode_steps=5)


def test_a_registered_goal_environment_is_described_with_its_rule():
    assert describe_environment("Ruled-v0").spaces.goal == RULES[0][1]
    assert describe_environment("Pendulum-v1").spaces.goal is None


def test_host_episodes_end_in_success_and_the_next_step_starts_another():
    environments = EndHostAtGoal(make_host("Ruled-v0", 2))
    environments.reseed(np.array([1, 2]))
    environments.reset()
    places, ends = [], []
    for step in range(6):
        active = np.array([True, step != 1])
        observation, reward, terminated, truncated = environments.step(np.zeros((2, 1), np.float32), active)
        places.append(observation[ACHIEVED][:, 0].tolist())
        ends.append(terminated.tolist())
        assert not truncated.any()
        assert (reward[active] == np.where(np.array(places[-1])[active] % 3 == 0, 0.0, -1.0)).all()
    environments.close()
    assert [place for place, _ in places] == [1, 2, 3, 0, 1, 2]
    assert [end for end, _ in ends] == [False, False, True, False, False, False]


@pytest.mark.parametrize("id", ["PointPush-v0", "FetchReach-v4", "FetchReachDense-v4"])
def test_a_description_tells_the_reward(id):
    told = "-d, d the goals' distance" if "Dense" in id else "0 within 0.05 of the desired goal, else -1"
    assert f"  reward       {told}" in describe(id).splitlines()


class Starts(gymnasium.Env):
    """Episodes of two steps, whose every start is a success and whose steps are none."""

    observation_space = gymnasium.spaces.Box(-9, 9, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(1, np.float32), {"is_success": True}

    def step(self, action):
        self.count += 1
        return np.full(1, self.count, np.float32), 1.0, False, False, {"is_success": False}


gymnasium.register("Starts-v0", Starts, max_episode_steps=2)


def test_the_success_of_a_start_ends_no_episode():
    environments = EndHostAtGoal(make_host("Starts-v0", 1))
    environments.reseed(np.array([1]))
    environments.reset()
    rows = [environments.step(np.zeros((1, 1), np.float32)) for _ in range(6)]
    environments.close()
    assert [int(seen[0, 0]) for seen, *_ in rows] == [1, 2, 0, 1, 2, 0]
    assert [bool(terminated[0]) for _, _, terminated, _ in rows] == [False] * 6
    assert [bool(truncated[0]) for *_, truncated in rows] == [False, True, False, False, True, False]


@pytest.mark.parametrize("copies", [1, 3])
def test_every_copy_may_end_in_success_at_once(copies):
    environments = EndHostAtGoal(make_host("FetchReach-v4", copies))
    environments.reseed(np.arange(copies))
    seen = environments.reset()
    ends = []
    for _ in range(60):
        # Straight to the goal, ten times as fast as needed.
        action = np.concatenate([10 * (seen[DESIRED] - seen[ACHIEVED]), np.zeros((copies, 1))], 1)
        before = seen
        seen, reward, terminated, _ = environments.step(np.clip(action, -1, 1).astype(np.float32))
        if ends:
            started = ends[-1]
            np.testing.assert_array_equal((before[DESIRED] != seen[DESIRED]).any(1), started)
            assert (reward[started] == 0).all()
            assert not (terminated & started).any()
        ends.append(terminated)
    environments.close()
    assert np.sum(ends, 0).min() > 2


@pytest.mark.training
def test_an_environment_that_tells_no_success_cannot_end_in_it():
    environments = EndHostAtGoal(make_host("Ruled-v0", 1, kwargs={"told": False}))
    environments.reseed(np.array([1]))
    environments.reset()
    with pytest.raises(FedraxError, match=r"set environment\.terminate_on_success=false"):
        environments.step(np.zeros((1, 1), np.float32))
    environments.close()
    with pytest.raises(FedraxError, match=r"set environment\.terminate_on_success=false"):
        fedrax.train("fedtd3/pendulum", ["environment.terminate_on_success=true"], progress=False)


NO_BUDGET = ("budget.trajectories=none", "budget.steps=none", "budget.steps_per_agent=none")
SMALL = (
    *("learner=td3", "learner.num_steps=25", "learner.actor_layers=[8]", "learner.feature_layers=[8]", "seeds=1"),
    *("learner.head_layers=[8]", "learner.batch_size=16", "learner.learning_starts=16", "learner.policy_delay=5"),
    *("learner.buffer_size=1000", "strategy=fedavg", "federation.agents=2", "evaluation.episodes=4"),
    *("budget.rounds=2", "checkpoint.every=2", "environment.num_envs=2", "learner.hindsight=future", *NO_BUDGET),
)


def test_agents_whose_rewards_follow_different_rules_learn_without_hindsight():
    """A goal reached within 0.5 for one agent and 0.9 for the other was relabelled by the first's rule for both."""
    settings = [each for each in SMALL if each != "learner.hindsight=future"] + ["environment=Ranged-v0"]
    differ = "environment.heterogeneity.within=[0.5, 0.9]"
    for asked in ("learner.hindsight=future", "learner.clip_values=true"):
        with pytest.raises(
            FedraxError, match=r"by one rule in all tasks \(here agent 1's differs .*: it has within = 0.9\)"
        ) as error:
            make_runtime(resolve({}, [*settings, differ, asked]))
        assert "\n" not in str(error.value)
        alike = make_runtime(resolve({}, [*settings, "environment.heterogeneity.within=[0.9, 0.9]", asked]))
        assert alike.federation.spaces.goal.threshold == 0.9
        alike.close()
    make_runtime(resolve({}, [*settings, differ])).close()


@pytest.mark.training
@pytest.mark.parametrize("environment", ["PointReach-v0", "Ruled-v0"])
def test_only_training_episodes_end_in_success(environment, tmp_path):
    overrides = [*SMALL, f"environment={environment}", "environment.terminate_on_success=true"]
    runtime = make_runtime(resolve({}, overrides))
    assert runtime.federation.spaces.goal.ends
    runtime.close()
    run = fedrax.train({}, overrides, out=tmp_path / "run", progress=False)
    limit = 50 if environment == "PointReach-v0" else 5
    assert {row["episode_length"] for row in run.metrics() if "episode_length" in row} == {limit}
    if environment == "Ruled-v0":
        # An episode's three steps, then one that is no experience.
        assert run.metrics()[0]["agent_steps"] == 2 * 2 * (3 * 6 + 1)


@pytest.mark.training
@pytest.mark.parametrize("id", TASKS)
def test_the_point_tasks_keep_their_word(id):
    environment = native_environments[id]()
    physics = environment.physics()
    goal = environment.spaces.goal

    def episode(key):
        state, seen = environment.reset(key, physics)

        def step(carry, key):
            state, _ = carry
            action = jax.random.uniform(key, (2,), minval=-1.5, maxval=1.5)
            after = environment.step(state, action, key, physics)
            return (after.state, after.observation), (after, state)

        return seen, jax.lax.scan(step, (state, seen), jax.random.split(key, 50))[1]

    first, (after, before) = jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(0), 200))
    space = environment.spaces.observation.tree
    assert jax.tree.map(lambda x: x.shape[1:], first) == {name: part.shape for name, part in space.items()}
    seen = after.observation
    np.testing.assert_array_equal(after.reward, goal.reward(seen[ACHIEVED], seen[DESIRED]))
    np.testing.assert_array_equal(after.success, after.reward == 0)
    assert not after.terminated.any()
    assert float(jnp.abs(after.state.robot).max()) <= 1.0
    assert float(jnp.abs(after.state.puck).max()) <= 1.0
    moved = jnp.abs(after.state.robot - before.robot).max()
    assert 0.09 < float(moved) <= 0.1001
    if id != "PointReach-v0":
        apart = jnp.linalg.norm(first[OBSERVATION][:, 4:6], axis=-1)
        assert float(apart.min()) > 0.1, "no episode starts with a push"
        assert float((jnp.abs(after.state.puck - before.puck).max(-1) > 1e-3).mean()) > 0.005, "some push"
    if id == "PointSlide-v0":
        assert float(after.state.robot[..., 0].max()) <= -0.1999
        assert float(seen[DESIRED][..., 0].min()) >= 0.0
    assert environment.draw(jax.tree.map(lambda x: x[0, 0], before), physics).ndim == 3


def test_a_sliding_puck_slows_down_by_its_friction():
    environment = native_environments["PointSlide-v0"]()
    physics = environment.physics() | {"friction": 0.5}
    state, _ = environment.reset(jax.random.key(0), physics)
    state = state._replace(robot=jnp.array([-0.9, 0.9]), puck=jnp.array([-0.3, 0.0]), slide=jnp.array([0.1, 0.0]))
    places = []
    for _ in range(4):
        state = environment.step(state, jnp.zeros(2), jax.random.key(1), physics).state
        places.append(float(state.puck[0]))
    np.testing.assert_allclose(places, [-0.2, -0.15, -0.125, -0.1125], atol=1e-6)


@pytest.mark.parametrize(
    ("changed", "message"),
    [("gain=0", "gain = 0 is not allowed"), ("radius=0.5", "radius = 0.5 is not"), ("friction=2", "friction = 2 is")],
)
def test_a_table_that_makes_no_task_is_refused(changed, message):
    with pytest.raises(FedraxError, match=message):
        make_runtime(resolve({}, [*SMALL, "environment=PointPush-v0", f"environment.heterogeneity.{changed}"]))
