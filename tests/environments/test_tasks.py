"""Agents on different tasks: observations of one form, and each agent's own steps."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedrax.config import resolve
from fedrax.environments.base import Box, Dict, Discrete, Spaces
from fedrax.environments.crash import EnvironmentCrash
from fedrax.environments.goals import ACHIEVED, DESIRED, OBSERVATION, Goal
from fedrax.environments.host import make_host
from fedrax.environments.host_tasks import MixedEnvironments
from fedrax.environments.native import native_environments
from fedrax.environments.native.point import PointPush
from fedrax.environments.native_tasks import MixedTasks
from fedrax.environments.registry import describe_environment
from fedrax.environments.tasks import mix
from fedrax.errors import FedraxError
from fedrax.evaluation.measure import measure
from fedrax.learners.moments import Normaliser
from fedrax.runtime.draws import make_environment, physics_draws, unseen_draws
from fedrax.runtime.make import make_runtime

POINTS = ("PointReach-v0", "PointPush-v0", "PointSlide-v0")
TASKS = f"environment.tasks={list(POINTS)}".replace("'", '"')
ACTION = Box((1,), (-1.0,), (1.0,))


def vector(size, bound=1.0):
    return Box((size,), (-bound,) * size, (bound,) * size)


GOAL = Goal("sparse", 0.05)


def goal_spaces(size, goal=GOAL):
    return Spaces(Dict.of({OBSERVATION: vector(size), ACHIEVED: vector(2), DESIRED: vector(2)}), ACTION, goal)


def test_shorter_observations_are_padded_and_masked():
    mixture = mix(["A", "B"], [goal_spaces(2), goal_spaces(3)], identity=True)
    parts = {name: part.shape for name, part in mixture.spaces.observation.parts}
    assert parts == {
        OBSERVATION: (3,),
        OBSERVATION + "_mask": (3,),
        ACHIEVED: (2,),
        DESIRED: (2,),
        "task_identity": (2,),
    }
    own = {OBSERVATION: np.ones((5, 2), np.float32), ACHIEVED: np.ones((5, 2)), DESIRED: np.zeros((5, 2))}
    seen = mixture.seen(0, own)
    assert seen[OBSERVATION].tolist() == [[1, 1, 0]] * 5
    assert seen[OBSERVATION + "_mask"].tolist() == [[1, 1, 0]] * 5
    assert seen["task_identity"].tolist() == [[1, 0]] * 5
    longer = {OBSERVATION: jnp.ones(3), ACHIEVED: jnp.ones(2), DESIRED: jnp.zeros(2)}
    seen = jax.jit(lambda x: mixture.seen(1, x))(longer)
    assert seen[OBSERVATION + "_mask"].tolist() == [1, 1, 1]
    assert seen["task_identity"].tolist() == [0, 1]


def test_bounds_hold_for_every_task():
    mixture = mix(
        ["A", "B"], [Spaces(vector(1, 4.0), ACTION), Spaces(Box((2,), (1.0, 1.0), (2.0, 2.0)), ACTION)], identity=False
    )
    box = mixture.spaces.observation.tree[OBSERVATION]
    assert (box.low, box.high) == ((-4.0, 0.0), (4.0, 2.0))


def test_equal_observations_stay_as_they_are():
    box = Spaces(vector(3), ACTION)
    assert mix(["A", "B"], [box, box], identity=False).spaces == box
    named = mix(["A", "B"], [box, box], identity=True).spaces.observation
    assert [name for name, _ in named.parts] == [OBSERVATION, "task_identity"]


def test_a_goals_rule_is_that_of_all_tasks_or_none():
    assert mix(["A", "B"], [goal_spaces(2), goal_spaces(3)], identity=False).spaces.goal == Goal("sparse", 0.05)
    other = goal_spaces(3, Goal("sparse", 0.1))
    assert mix(["A", "B"], [goal_spaces(2), other], identity=False).spaces.goal is None


def taken(size):
    return Spaces(Dict.of({OBSERVATION: vector(size), OBSERVATION + "_mask": vector(2)}), ACTION)


IMAGE = Box((8, 8, 3), (0.0,) * 192, (255.0,) * 192, "uint8")


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        ([Spaces(vector(2), ACTION), Spaces(vector(2), Discrete(3))], "actions of 'B' are others than those of 'A'"),
        ([goal_spaces(2), Spaces(vector(2), ACTION)], "all tasks need the same"),
        ([taken(2), taken(3)], "have a part 'observation_mask', which is the name of what Fedrax adds; rename it"),
        ([Spaces(IMAGE, ACTION), Spaces(vector(2), ACTION)], "only vectors of real numbers are padded"),
    ],
)
def test_what_cannot_be_made_alike_is_refused(tasks, words):
    with pytest.raises(FedraxError, match=words) as caught:
        mix(["A", "B"], tasks, identity=False)
    assert "\n" not in str(caught.value)


def test_padding_counts_in_no_moment_and_stays_zero():
    mixture = mix(["A", "B"], [goal_spaces(1), goal_spaces(2)], identity=True)

    def of(task, value):
        size = 1 + task
        own = {OBSERVATION: jnp.full((4, size), value), ACHIEVED: jnp.zeros((4, 2)), DESIRED: jnp.zeros((4, 2))}
        return mixture.seen(task, own)

    normaliser = Normaliser.fresh(mixture.spaces.observation)
    for task, value in [(0, 1.0), (1, 5.0), (1, 9.0)]:
        normaliser = normaliser.observe(of(task, value), jnp.ones(4, bool))
    moments = normaliser.own[OBSERVATION]
    assert moments.count.tolist() == [12, 8]
    np.testing.assert_allclose(moments.mean, [5.0, 7.0])
    seen = normaliser(of(0, 1.0))
    assert seen[OBSERVATION][:, 1].tolist() == [0.0] * 4
    np.testing.assert_array_equal(seen["task_identity"], of(0, 1.0)["task_identity"])


def native():
    made = tuple(native_environments[id]() for id in POINTS)
    return MixedTasks(made, mix(POINTS, [each.spaces for each in made], identity=True))


@pytest.mark.training
def test_every_agent_steps_its_own_task():
    """As that task alone would from the same key, whoever is beside it."""
    together = native()
    numbers = np.array([2, 0, 1, 2])
    keys = jax.random.split(jax.random.key(0), len(numbers))
    physics = {name: jnp.full(len(numbers), x) for name, x in together.physics().items()}
    physics["task"] = jnp.asarray(numbers, jnp.float32)
    actions = jax.random.uniform(jax.random.key(1), (6, len(numbers), 2), minval=-1, maxval=1)
    state, observation = jax.vmap(together.reset)(keys, physics)
    step = jax.jit(jax.vmap(together.step))
    alone = [together.each[number] for number in numbers]
    own = [task.reset(key, task.physics()) for task, key in zip(alone, keys, strict=True)]
    for action in actions:
        after = step(state, action, keys, physics)
        for index, task in enumerate(alone):
            expected = task.step(own[index][0], action[index], keys[index], task.physics())
            own[index] = expected.state, expected.observation
            wanted = together.mixture.seen(int(numbers[index]), expected.observation)
            jax.tree.map(
                lambda x, y, index=index: np.testing.assert_allclose(x[index], y, atol=1e-6), after.observation, wanted
            )
            assert float(after.reward[index]) == float(expected.reward)
            assert bool(after.success[index]) == bool(expected.success)
        state, observation = after.state, after.observation
    assert np.asarray(observation["task_identity"]).argmax(1).tolist() == numbers.tolist()


class Counter(gymnasium.Env):
    """Observes its steps and its seed's first draw, ``size`` times; crashes at a step when told."""

    def __init__(self, size=1, crash=99):
        self.observation_space = gymnasium.spaces.Box(-1e6, 1e6, (size,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.size, self.crash = size, crash

    def _seen(self):
        return np.full(self.size, self.first + self.steps, np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.first = 0, float(self.np_random.integers(0, 900)) * 1000
        return self._seen(), {}

    def step(self, action):
        self.steps += 1
        if self.steps == self.crash:
            raise RuntimeError("broken")
        return self._seen(), float(self.size), False, False, {"is_success": self.steps == 3}


for name, settings in {"One": {"size": 1}, "Three": {"size": 3}, "Broken": {"size": 3, "crash": 2}}.items():
    gymnasium.register(f"Counter{name}-v0", Counter, max_episode_steps=4, kwargs=settings)


def host(second="CounterThree-v0"):
    ids = ["CounterOne-v0", second]
    mixture = mix(ids, [describe_environment(id).spaces for id in ids], identity=False)
    return MixedEnvironments(mixture, [1, 0, 1], lambda task, places: make_host(ids[task], len(places)))


def test_host_copies_of_several_tasks_step_together():
    together = host()
    seeds = np.array([5, 6, 7])
    together.reseed(seeds)
    observation = together.reset()
    ones, threes = make_host("CounterOne-v0", 1), make_host("CounterThree-v0", 2)
    ones.reseed(seeds[[1]])
    threes.reseed(seeds[[0, 2]])
    first = {0: threes.reset()[0], 1: ones.reset()[0], 2: threes.reset()[1]}
    assert observation[OBSERVATION][1].tolist() == [first[1][0], 0, 0]
    for step in range(1, 5):
        observation, reward, terminated, truncated = together.step(np.zeros((3, 1), np.float32))
        assert reward.tolist() == [3, 1, 3]
        assert observation[OBSERVATION][0].tolist() == (first[0] + step).tolist() or step == 4
        assert observation[OBSERVATION + "_mask"].tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 1]]
        assert together.success.tolist() == [step == 3] * 3
        assert truncated.tolist() == [step == 4] * 3
        assert not terminated.any()
    for each in (together, ones, threes):
        each.close()


def test_a_task_whose_copies_are_not_wanted_stands_still():
    together = host()
    together.reseed(np.array([5, 6, 7]))
    start = together.reset()[OBSERVATION]
    together.step(np.zeros((3, 1), np.float32), np.array([True, False, True]))
    after = together.step(np.zeros((3, 1), np.float32))[0][OBSERVATION]
    assert (after - start)[:, 0].tolist() == [2, 1, 2]
    again = together.reset(np.array([False, True, False]))[OBSERVATION]
    assert again[1, 0] % 1000 == 0
    together.close()


def test_a_crash_says_which_of_all_copies_it_is():
    together = host("CounterBroken-v0")
    together.reseed(np.array([5, 6, 7]))
    together.reset()
    together.step(np.zeros((3, 1), np.float32))
    with pytest.raises(EnvironmentCrash) as caught:
        together.step(np.zeros((3, 1), np.float32))
    assert caught.value.copy in (0, 2)
    assert caught.value.source is together
    together.close()


def test_agents_take_the_tasks_in_turn():
    config = resolve("td3-her/point-push", [TASKS, "federation.agents=5"])
    draws = physics_draws(config)
    assert [site["task"] for site in draws] == [0, 1, 2, 0, 1]
    assert make_environment(config).time_limit == 50


@native_environments.register("FastPush-v0")
class Fast(PointPush):
    """Of other physics than the task that it is beside."""

    def physics(self):
        return super().physics() | {"gain": 0.3, "drift_x": 0.01}


def test_what_nobody_sets_is_as_in_the_agents_own_task():
    tasks = 'environment.tasks=["PointPush-v0", "FastPush-v0"]'
    config = resolve("td3-her/point-push", [tasks, "federation.agents=2", "environment.heterogeneity.gain=0.05"])
    first, second = physics_draws(config)
    assert (first["gain"], second["gain"]) == (0.05, 0.05)
    assert (first["drift_x"], second["drift_x"]) == (0.0, 0.01)


SMALL = [
    *(TASKS, "federation.agents=4", "strategy=fedavg", "budget.rounds=2", "checkpoint.every=2", "evaluation.every=2"),
    *("evaluation.episodes=4", "environment.num_envs=2", "learner.batch_size=8", "learner.learning_starts=8"),
    *("learner.buffer_size=512", "learner.actor_layers=[4]", "learner.feature_layers=[4]", "learner.head_layers=[4]"),
    "budget.steps_per_agent=none",
]


@pytest.mark.training
def test_a_shared_policy_is_evaluated_in_every_agents_task():
    runtime = make_runtime(resolve("td3-her/point-push", [*SMALL, "environment.task_identity=true"]))
    state = runtime.shapes()
    _, rows = jax.eval_shape(runtime._rounds, state, jnp.asarray(0))
    assert rows["agent_success"].shape == (1, 2, 4)


@pytest.mark.slow
def test_a_federation_of_tasks_trains():
    runtime = make_runtime(resolve("td3-her/point-push", SMALL))
    (_, rows), *_ = runtime.advance(runtime.init(), 0)
    runtime.close()
    assert np.isfinite(rows["agent_returns"][0, -1]).all()
    assert rows["agent_steps"][0].tolist() == [4 * 2 * 10] * 2


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([TASKS, "environment=Pendulum-v1"], "environment.id = 'Pendulum-v1' is none of"),
        (["environment.task_identity=true"], r"environment\.task_identity needs environment\.tasks"),
        (['environment.tasks=["PointReach-v0", "PointSlide-v0"]'], "environment.id = 'PointPush-v0' is none of"),
        (['environment.tasks=["PointPush-v0", "PointPsh-v0"]'], "did you mean 'PointPush-v0'"),
        (['environment.tasks=["PointPush-v0", "PointReach-v0", "PointSlide-v0", "PointPush-v0"]'], "names 4 environ"),
        (['environment.tasks=["PointPush-v0", "CounterOne-v0"]'], "exists in JAX only"),
        ([TASKS, "environment.heterogeneity.task=[0, 0, 0]"], "environment.heterogeneity.task is not allowed"),
    ],
)
def test_impossible_tasks_are_refused_in_one_line(overrides, words):
    with pytest.raises(FedraxError, match=words) as caught:
        make_runtime(resolve("td3-her/point-push", ["federation.agents=3", "strategy=fedavg", *overrides]))
    assert "\n" not in str(caught.value)


def test_tasks_leave_none_unseen():
    with pytest.raises(FedraxError, match="no environment is unseen"):
        unseen_draws(resolve("td3-her/point-push", [TASKS, "federation.agents=3"]), 2)


def test_runs_of_other_tasks_are_measured_apart():
    one, other = (
        resolve("td3-her/point-push", ["strategy=fedavg", f'environment.tasks=["PointPush-v0", "{id}"]'])
        for id in ("PointReach-v0", "PointSlide-v0")
    )
    measures = [measure(config.model_dump(), personal=False) for config in (one, other)]
    assert measures[0] != measures[1]
