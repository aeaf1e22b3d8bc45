"""Goals of an agent's own: nobody's are another's, episodes start at them alone, and tests at those held out."""

import importlib.util
import itertools

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedrax.config import resolve
from fedrax.environments.base import HostEnvironments
from fedrax.environments.goal_sets import GoalCycle, GoalSet, goals_of, held_out_of, single_goals
from fedrax.environments.host import EnvPoolEnvironments, make_host
from fedrax.environments.native.point import PointReach
from fedrax.environments.native_goals import GoalsOfOne, goals_by_episode
from fedrax.environments.registry import describe_environment
from fedrax.errors import FedraxError
from fedrax.evaluation.measure import measure
from fedrax.runtime.draws import evaluation_draws, physics_draws, unseen_draws
from fedrax.runtime.make import make_runtime
from fedrax.seeds import derive

envpool = pytest.mark.skipif(importlib.util.find_spec("envpool") is None, reason="needs EnvPool")
HELD = {"goals": 3, "held_out": 2}


def numbers(parameters):
    goals = GoalSet.of(parameters)
    return range(goals.first, goals.first + goals.count)


@given(agents=st.integers(1, 40), goals=st.integers(1, 60), held_out=st.integers(0, 60))
def test_no_two_agents_share_a_goal_and_none_is_both_trained_on_and_held_out(agents, goals, held_out):
    each = [goals_of(agent, goals=goals, held_out=held_out, seed=1) for agent in range(agents)]
    trained = [numbers(parameters) for parameters in each]
    tested = [numbers(held_out_of(parameters, held_out)) for parameters in each] if held_out else []
    every = [*itertools.chain(*trained, *tested)]
    assert len(every) == len(set(every)) == agents * (goals + held_out)
    assert {len(one) for one in trained} == {goals}
    assert {len(one) for one in tested} <= {held_out}


def test_without_goals_held_out_tests_are_at_those_trained_on():
    parameters = goals_of(4, goals=3, held_out=0, seed=1)
    assert held_out_of(parameters, 0) == parameters


def test_a_goal_is_the_same_whatever_the_number_of_agents_and_another_for_another_seed():
    first, again, other = (goals_of(2, **HELD, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert GoalSet.of(first).reset_seed(0) != GoalSet.of(other).reset_seed(0)


def test_more_goals_than_float32_can_number_are_refused():
    with pytest.raises(FedraxError, match="too many: those of all agents together"):
        goals_of(99_999, goals=1000, held_out=0, seed=1)


def test_a_cycle_visits_all_goals_before_any_again():
    goals = GoalSet(7, 10, 4)
    known = {goals.reset_seed(place) for place in range(4)}
    cycle = GoalCycle(goals)
    cycle.reseed(3)
    rounds = [[next(cycle) for _ in range(4)] for _ in range(20)]
    assert all(set(each) == known for each in rounds)
    assert len({tuple(each) for each in rounds}) > 1
    cycle.reseed(3)
    assert [next(cycle) for _ in range(4)] == rounds[0]


def test_the_episodes_of_a_test_share_the_goals_equally():
    each = single_goals({"goal_seed": 7, "goal_first": 10, "goal_count": 3, "gain": 1.0}, 6)
    assert [parameters["goal_first"] for parameters in each] == [10, 11, 12, 10, 11, 12]
    assert {(parameters["goal_count"], parameters["gain"]) for parameters in each} == {(1, 1.0)}
    traced = goals_by_episode({"goal_seed": 7.0, "goal_first": 10.0, "goal_count": 3.0, "gain": 1.0}, 6)
    assert traced["goal_first"].tolist() == [10, 11, 12, 10, 11, 12]
    assert traced["goal_count"].tolist() == [1] * 6
    anywhere = goals_by_episode({"goal_seed": 7.0, "goal_first": 10.0, "goal_count": 0.0}, 2)
    assert anywhere["goal_first"].tolist() == [10, 10]
    assert anywhere["goal_count"].tolist() == [0, 0]


def starts_of(environment, physics, count=200):
    keys = jax.random.split(jax.random.key(0), count)
    _, seen = jax.vmap(lambda key: environment.reset(key, physics))(keys)
    return {tuple(row) for row in np.asarray(seen["desired_goal"])}


def test_native_episodes_start_at_an_agents_goals_alone():
    inner, environment = PointReach(), GoalsOfOne(PointReach())
    own = [inner.physics() | goals_of(agent, **HELD, seed=1) for agent in (0, 1)]
    trained = [starts_of(environment, each) for each in own]
    assert [len(each) for each in trained] == [3, 3]
    tested = [starts_of(environment, held_out_of(each, 2)) for each in own]
    assert [len(each) for each in tested] == [2, 2]
    assert len(set.union(*trained, *tested)) == 10
    anywhere = starts_of(environment, environment.physics())
    assert len(anywhere) == 200


class Numbered(gymnasium.Env):
    """Shows the first number that the seed of its reset draws, for an episode of one to four steps."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.number, self.left = self.np_random.uniform(-1, 1), int(self.np_random.integers(1, 5))
        return np.array([self.number], np.float32), {}

    def step(self, action):
        self.left -= 1
        return np.array([self.number], np.float32), 1.0, self.left == 0, False, {}


@pytest.fixture
def numbered():
    gymnasium.register("Numbered-v0", Numbered, max_episode_steps=10)
    yield "Numbered-v0"
    del gymnasium.registry["Numbered-v0"]


def first_seen(environments: HostEnvironments, steps: int, actions) -> list[list[tuple]]:
    """The first observation of each copy's episodes."""
    observation = environments.reset()
    starts = [[tuple(row)] for row in observation]
    over = np.zeros(environments.count, bool)
    for step in range(steps):
        observation, reward, terminated, truncated = environments.step(actions(step))
        assert not reward[over].any()
        for copy in np.flatnonzero(over):
            starts[copy].append(tuple(observation[copy]))
        assert not (over & (terminated | truncated)).any()
        over = terminated | truncated
    return starts


SETS = (GoalSet(3, 0, 2), GoalSet(3, 2, 3), GoalSet(3, 5, 1))


def test_copies_by_gymnasium_start_at_their_goals_alone(numbered):
    environments = make_host(numbered, 3, goals=SETS)
    environments.reseed(np.arange(3))
    starts = first_seen(environments, 40, lambda step: np.zeros(3, np.int32))
    alone = Numbered()
    for goals, seen in zip(SETS, starts, strict=True):
        known = [tuple(alone.reset(seed=goals.reset_seed(place))[0]) for place in range(goals.count)]
        assert len(seen) > 6
        assert all(set(seen[i : i + goals.count]) == set(known) for i in range(0, 6, goals.count))


def cartpole(count, seeds):
    described = describe_environment("CartPole-v1", native=False)
    made = EnvPoolEnvironments("CartPole-v1", count, described, 30, None)
    made.reseed(np.asarray(seeds))
    return made


@envpool
@pytest.mark.parametrize("part", [False, True], ids=["all", "some"])
def test_episodes_by_envpool_are_those_of_the_goals_seeds_step_by_step(part):
    environments = make_host("CartPole-v1", 3, backend="envpool", max_episode_steps=30, goals=SETS)
    environments.reseed(np.arange(3))
    cycles = [GoalCycle(goals) for goals in SETS]
    for number, cycle in enumerate(cycles):
        cycle.reseed(number)
    alone = [cartpole(1, [next(cycle)]) for cycle in cycles]
    seen, expected = environments.reset(), [one.reset()[0] for one in alone]
    np.testing.assert_array_equal(seen, expected)
    over, episodes = np.zeros(3, bool), 0
    generator = np.random.default_rng(0)
    for _ in range(120):
        actions = generator.integers(0, 2, 3)
        active = generator.random(3) < 0.7 if part else np.ones(3, bool)
        observation, reward, terminated, truncated = environments.step(actions, active)
        for copy in np.flatnonzero(active):
            if over[copy]:
                alone[copy].close()
                alone[copy] = cartpole(1, [next(cycles[copy])])
                expected = alone[copy].reset()[0], 0.0, False, False
                episodes += 1
            else:
                expected = tuple(x[0] for x in alone[copy].step(actions[[copy]]))
            np.testing.assert_array_equal(observation[copy], expected[0])
            assert (reward[copy], terminated[copy], truncated[copy]) == expected[1:]
            over[copy] = expected[2] or expected[3]
    assert episodes > 6
    environments.close()


REACH = [
    "environment=PointReach-v0",
    "environment.goals=3",
    "environment.held_out_goals=2",
    "federation.agents=2",
    "learner=sac",
    "strategy=fedavg",
    "learner.buffer_size=1000",
    "budget.rounds=1",
    "evaluation.episodes=8",
]


def test_native_tests_are_at_every_goal_held_out():
    runtime = make_runtime(resolve({}, REACH))
    params = jax.tree.map(
        jnp.zeros_like, runtime.federation.learner.init_params(jax.random.key(0), runtime.federation.spaces)
    )
    evaluation = runtime.evaluate(params, episodes=8, seed=5)
    inner = PointReach()
    for agent, parameters in enumerate(evaluation_draws(runtime.config)):
        for place, number in enumerate(numbers(parameters)):
            key = derive(jax.random.key(int(parameters["goal_seed"])), "goal", number)
            state, _ = inner.reset(key, inner.physics())
            # Networks of zeros stand still.
            there = np.linalg.norm(np.asarray(state.robot - state.goal)) < 0.05
            assert evaluation.returns[agent, place] == evaluation.returns[agent, place + 2] == (0 if there else -50)


def test_host_tests_are_at_every_goal_held_out(numbered):
    settings = ["environment=Numbered-v0", *REACH[1:4], "learner=policy-gradient", "strategy=fedavg", "budget.rounds=1"]
    runtime = make_runtime(resolve({}, settings))
    output = runtime.outputs(runtime.init())
    evaluation = runtime.evaluate(jax.tree.map(lambda x: x[0], output), episodes=8, seed=5)
    alone = Numbered()
    for agent, parameters in enumerate(evaluation_draws(runtime.config)):
        goals, expected = GoalSet.of(parameters), []
        for place in range(2):
            alone.reset(seed=goals.reset_seed(place))
            expected.append(alone.left)
        assert evaluation.lengths[agent].tolist() == expected * 2
    runtime.close()


def test_goals_are_recorded_by_agent_and_differ_by_draw():
    config = resolve({}, [*REACH, "environment.draws=2", "seeds=2"])
    first, second = (physics_draws(config, position) for position in (0, 1))
    assert [numbers(each) for each in first] == [range(3), range(5, 8)]
    assert first[0]["goal_seed"] != second[0]["goal_seed"]
    assert [numbers(each) for each in unseen_draws(config, 1)] == [range(10, 13)]
    runs = [measure(resolve({}, [*REACH, *more]).model_dump(), personal=True) for more in ([], ["environment.goals=4"])]
    assert runs[0] != runs[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["environment.goals=none", "environment.held_out_goals=2"], "needs environment.goals"),
        (["environment.goals=0"], "environment.goals = 0"),
        (["environment.heterogeneity.goal_first=3"], "environment.goals draws the goals of every agent"),
    ],
)
def test_goals_that_cannot_be_are_refused(settings, message):
    with pytest.raises(FedraxError, match=message):
        make_runtime(resolve({}, [*REACH, *settings]))


@pytest.mark.parametrize(("episodes", "each"), [(2, 1), (6, 3)])
def test_episodes_that_do_not_visit_all_goals_alike_are_refused(episodes, each):
    runtime = make_runtime(resolve({}, REACH))
    with pytest.raises(FedraxError, match=rf"are {each} in each agent's .* no multiple of its 2 goals.* have 4, or"):
        runtime.pairs(episodes, 0)
    with pytest.raises(FedraxError, match="no multiple of its 2 goals"):
        runtime.evaluate_across((), episodes=3, seed=0, unseen=1)
    assert runtime.pairs(8, 0).episodes == 4
