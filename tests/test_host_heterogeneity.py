"""Runs whose agents act in host environments of their own: collecting, evaluating, rendering, resuming, refusing."""

import json
from types import SimpleNamespace

import imageio.v2
import jax
import numpy as np
import pytest

import fedrax
from fedrax.config import resolve
from fedrax.environments.host import GymnasiumEnvironments, make_host, make_single
from fedrax.environments.host_joined import JoinedEnvironments
from fedrax.errors import FedraxError
from fedrax.render import render
from fedrax.runtime.draws import physics_draws, unseen_draws
from fedrax.runtime.make import make_runtime
from fedrax.seeds import host_seeds

BASE = [
    "environment.native=false",
    "federation.agents=4",
    "budget.trajectories=none",
    "budget.rounds=4",
    "checkpoint.every=2",
    "environment.horizon=20",
    "environment.num_envs=2",
    "evaluation.episodes=2",
]
PPO = ["learner=ppo", "learner.hidden=[8]", "learner.num_steps=8", "learner.update_epochs=1"]
EPISODES = ["strategy.batch_min=2", "strategy.batch_max=4"]
MEANS = "environment.heterogeneity.observation_noise_mean=[0.0, 10.0, 20.0, 30.0]"
"""What agents observe of a CartPole tells whose it is."""


def simulate(*overrides):
    return make_runtime(resolve("fedpg-br/cartpole", [*BASE, *overrides]))


@pytest.mark.parametrize("ids", [[3, 1], [0, 2], [0, 1, 2, 3]])
@pytest.mark.parametrize("learner", [[*PPO, "strategy=fedavg"], EPISODES], ids=["steps", "episodes"])
def test_agents_collect_in_their_own_environments(learner, ids):
    runtime = simulate(MEANS, f"federation.participation={len(ids) / 4}", *learner)
    seed_environments = runtime.seed_environments[0]
    seed_environments.reseed(0)
    experience = collect(seed_environments, ids)
    runtime.close()
    for agent, observation, valid in zip(ids, experience.observation, experience.valid, strict=True):
        assert valid.sum() >= 8
        assert set((observation[: len(valid)][valid] / 10).round().ravel()) == {agent}


def collect(seed_environments, ids):
    """The experience of the agents ``ids``, which always act alike."""
    action = seed_environments.groups[0].spaces.action
    one = np.full(action.shape, 0.3, np.float32) if action.shape else np.int32(1)

    def decide(observation, step):
        return np.broadcast_to(one, (*observation.shape[:2], *action.shape)).copy(), ()

    experience, _ = seed_environments.collect(
        decide, SimpleNamespace(ids=np.array(ids), selected=None), SimpleNamespace(episodes=3)
    )
    return experience


def test_a_centralised_learners_copies_are_its_sites():
    runtime = simulate(MEANS, *PPO, "strategy=central")
    seed_environments = runtime.seed_environments[0]
    seed_environments.reseed(0)
    experience = collect(seed_environments, [0])
    runtime.close()
    seen = (experience.observation[0].mean((0, 2)) / 10).round()
    np.testing.assert_array_equal(seen, [0, 0, 1, 1, 2, 2, 3, 3])


def test_a_centralised_learner_visits_every_site_in_whole_episodes():
    table = ["strategy=central", "learner=policy-gradient", MEANS]
    few = resolve("fedpg-br/cartpole", [*BASE, *table])
    runtime = make_runtime(few)
    most = runtime.federation.strategy.max_episodes
    runtime.close()
    assert most >= 4
    assert runtime.parameters(range(1), 6) == [runtime.draws[0][site] for site in (0, 0, 1, 2, 2, 3)]
    with pytest.raises(FedraxError, match="3 episodes a round cannot visit the differing environments of 4 agents"):
        runtime.parameters(range(1), 3)


GRAVITY = ["environment=LunarLander-v3", "environment.heterogeneity.gravity=[-10.0, -3.0, -11.5, -1.0]"]


@pytest.fixture(scope="module")
def landers(tmp_path_factory):
    """Agents alone under four gravities."""
    pytest.importorskip("Box2D")
    settings = [*BASE, *GRAVITY, *PPO, "strategy=local", "video.every=2", "video.agent=3", "budget.rounds=2"]
    out = tmp_path_factory.mktemp("landers") / "run"
    return fedrax.train("fedpg-br/cartpole", settings, out=out, progress=False)


def by_hand(runtime, policy, parameters, seed):
    """Returns of a greedy policy in one environment, stepped here."""
    act = jax.jit(lambda observation: runtime.federation.learner.act(policy, observation[None], None)[0])
    environment = make_single(runtime.config.environment.id, runtime.evaluation_horizon, parameters=parameters)
    returns = []
    for one in host_seeds((2,), seed, "evaluation"):
        observation, _ = environment.reset(seed=int(one))
        total, over = 0.0, False
        while not over:
            observation, reward, terminated, truncated, _ = environment.step(int(act(observation)))
            total, over = total + reward, terminated or truncated
        returns.append(total)
    environment.close()
    return returns


@pytest.mark.training
def test_every_policy_in_every_environment(landers):
    across = landers.evaluate_across(episodes=2, evaluation_seed=5)[0]
    own = landers.evaluate(episodes=2, evaluation_seed=5, environments="own")[0]
    everywhere = landers.evaluate(episodes=8, evaluation_seed=5)[0]
    assert across.returns.shape == across.lengths.shape == (4, 4, 2)
    np.testing.assert_allclose(own.returns, across.returns[range(4), range(4)], rtol=1e-3)
    np.testing.assert_allclose(everywhere.returns, across.returns, rtol=1e-3)
    np.testing.assert_allclose(everywhere.own, own.returns, rtol=1e-3)
    params, runtime = landers.policies("last")[0], make_runtime(landers.config)
    for policy, site in ((0, 1), (3, 2)):
        chosen = jax.tree.map(lambda x, policy=policy: x[policy], params)
        theirs = by_hand(runtime, chosen, runtime.draws[0][site], 5)
        np.testing.assert_allclose(across.returns[policy, site], theirs, rtol=1e-3)
    runtime.close()


def test_a_shared_policy_is_evaluated_where_it_is_asked_for():
    """In the registered environment, in every agent's, in all of them against each other."""
    pytest.importorskip("Box2D")
    common, each = (
        simulate(*GRAVITY, *PPO, "strategy=fedavg", f"evaluation.environments={where}")
        for where in ("registered", "own")
    )
    state = jax.tree.map(lambda x: x[0], common.init())
    policy = common.federation.output(state.server, state.agents)
    registered = common.evaluate(policy, episodes=2, seed=5).returns
    per_agent = each.evaluate(policy, episodes=2, seed=5).returns
    across = each.evaluate_across(policy, episodes=2, seed=5).returns
    assert per_agent.shape == (4, 2)
    assert across.shape == (1, 4, 2)
    np.testing.assert_allclose(registered, by_hand(each, policy, None, 5), rtol=1e-3)
    np.testing.assert_allclose(registered, per_agent[0], rtol=1e-3)
    np.testing.assert_allclose(per_agent, across[0], rtol=1e-3)
    np.testing.assert_allclose(per_agent[1], by_hand(each, policy, each.draws[0][1], 5), rtol=1e-3)
    assert len(np.unique(per_agent)) == 8, "gravity tells"
    for runtime in (common, each):
        runtime.close()


@pytest.mark.training
def test_videos_show_the_agents_own_environment(landers, tmp_path):
    (path,) = (landers.path / "videos").iterdir()
    ends = [imageio.v2.mimread(path, memtest=False)[-1]]
    for agent in (3, 0):
        (video,) = render(landers.path, agent=agent, formats=("mp4",), out=tmp_path / str(agent))
        ends.append(imageio.v2.mimread(video, memtest=False)[-1])
    np.testing.assert_array_equal(ends[0], ends[1])
    assert not np.array_equal(ends[0], ends[2])


@pytest.mark.training
def test_the_draws_are_recorded(landers):
    (draws,) = json.loads((landers.path / "manifest.json").read_text())["draws"]
    assert [draw["gravity"] for draw in draws] == [-10.0, -3.0, -11.5, -1.0]


def test_unseen_environments_are_further_draws():
    table = "environment.heterogeneity.action_noise_std={distribution='uniform', low=0.1, high=0.9}"
    runtime = simulate("environment=Pendulum-v1", *PPO, "strategy=fedavg", table)
    (seen,), more = runtime.draws, unseen_draws(runtime.config, 3)
    assert len(more) == 3
    assert len({draw["action_noise_std"] for draw in [*seen, *more]}) == 7
    state = jax.tree.map(lambda x: x[0], runtime.init())
    policy = runtime.federation.output(state.server, state.agents)
    returns = runtime.evaluate_across(policy, episodes=2, seed=1, unseen=3).returns
    assert returns.shape == (1, 3, 2)
    assert len(np.unique(returns)) == 6
    runtime.close()


def test_a_joint_distribution_draws_unseen_host_environments():
    pytest.importorskip("Box2D")
    table = ["distribution=fedtd3", "std=2.0", "observation_noise=true"]
    settings = ["environment=LunarLanderContinuous-v3", *(f"environment.heterogeneity.{text}" for text in table)]
    runtime = simulate(*PPO, *settings, "strategy=fedavg", "federation.agents=2")
    assert runtime.draws == [physics_draws(runtime.config)]
    more = resolve("fedpg-br/cartpole", [*BASE, *PPO, *settings, "federation.agents=5"])
    assert unseen_draws(runtime.config, 3) == physics_draws(more)[2:]
    state = jax.tree.map(lambda x: x[0], runtime.init())
    policy = runtime.federation.output(state.server, state.agents)
    returns = runtime.evaluate_across(policy, episodes=1, seed=1, unseen=3).returns
    assert returns.shape == (1, 3, 1)
    assert len(np.unique(returns)) == 3
    runtime.close()


@pytest.mark.parametrize(
    "settings",
    [
        [
            *PPO,
            "learner.num_steps=100",
            "strategy=fedavg",
            "environment=BipedalWalker-v3",
            "environment.heterogeneity.pit=[0.0, 1.0, 0.0, 2.0]",
        ],
        [*EPISODES, "environment=LunarLander-v3", "environment.heterogeneity.wind_power=[0.0, 5.0, 0.0, 9.0]"],
    ],
    ids=["steps", "episodes"],
)
@pytest.mark.parametrize("ids", [[2, 3], [0, 1, 2, 3]])
def test_environments_of_a_resumed_run_are_those_of_the_uninterrupted_one(settings, ids):
    """What a simulation has seen before a checkpoint does not matter after it."""
    pytest.importorskip("Box2D")
    noise = "environment.heterogeneity.observation_noise_std=[0.0, 0.1, 0.2, 0.0]"
    share = f"federation.participation={len(ids) / 4}"
    ends = []
    for resumed in (False, True):
        runtime = simulate(*settings, noise, share, "environment.horizon=100")
        seed_environments = runtime.seed_environments[0]
        if not resumed:
            seed_environments.reseed(0)
            for _ in range(3):
                collect(seed_environments, ids)
        seed_environments.reseed(2)
        ends.append([collect(seed_environments, ids) for _ in range(2)])
        runtime.close()
    for one, other in zip(*(jax.tree.leaves(end) for end in ends), strict=True):
        np.testing.assert_array_equal(one, other)


def test_gymnasium_steps_everything_where_environments_differ():
    """Also the server's, and although EnvPool has a CartPole."""
    runtime = simulate(MEANS, *EPISODES)
    seed_environments = runtime.seed_environments[0]
    assert seed_environments.server is not None
    for environments in (*seed_environments.groups, seed_environments.server.environments):
        assert isinstance(environments.inner, GymnasiumEnvironments)
    seed_environments.reseed(0)
    assert np.abs(seed_environments.server.environments.reset()).max() < 1, (
        "the server's environment is the registered one"
    )
    runtime.close()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["environment.heterogeneity.length=1.0"],
            "environment.heterogeneity sets length, and environment 'CartPole-v1', stepped by Gymnasium, does not have "
            "that: its physical parameters are none, its constructor's arguments sutton_barto_reward, and noise is set "
            "by observation_noise_mean, observation_noise_std, action_noise_std; environment.native=true has others",
        ),
        (
            ["environment=Pendulum-v1", "environment.heterogeneity.distribution=fedtd3"],
            "environment.heterogeneity sets l, m, and environment 'Pendulum-v1', stepped by Gymnasium, does not have "
            "that: its physical parameters are none, its constructor's arguments g, and",
        ),
        (
            ["environment=LunarLander-v3", "environment.heterogeneity.main_engine=1.0"],
            "environment.heterogeneity sets main_engine (did you mean 'main_engine_power'?), and environment "
            "'LunarLander-v3', stepped by Gymnasium, does not have that: its physical parameters are main_engine_power",
        ),
        (["environment=LunarLander-v3", "environment.heterogeneity.gravity=1.0"], "above -12 and below 0"),
        (["environment.backend=envpool", MEANS], "environment.backend = 'envpool' cannot vary 'CartPole-v1'"),
        (["environment.heterogeneity.action_noise_std=0.1"], "needs continuous actions between finite bounds"),
    ],
)
def test_what_cannot_differ_is_refused_in_one_line(overrides, message):
    if "environment.backend=envpool" in overrides:
        pytest.importorskip("envpool")
    if "environment=LunarLander-v3" in overrides:
        pytest.importorskip("Box2D")
    with pytest.raises(FedraxError) as error:
        simulate(*EPISODES, *overrides)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_joined_environments_are_their_parts():
    def parts():
        return [make_host("Pendulum-v1", count, backend="gymnasium", max_episode_steps=3) for count in (2, 1)]

    joined, apart = JoinedEnvironments(parts()), parts()
    assert joined.count == 3
    assert joined.time_limit == 3
    joined.reseed(np.array([4, 5, 6]))
    apart[0].reseed(np.array([4, 5]))
    apart[1].reseed(np.array([6]))
    np.testing.assert_array_equal(joined.reset(), np.concatenate([part.reset() for part in apart]))
    actions = np.array([[1.0], [-1.0], [0.5]], np.float32)

    def check(ours, rows):
        for own, theirs in zip(ours, rows, strict=True):
            np.testing.assert_array_equal(own, theirs)

    for _ in range(5):
        both = [part.step(share) for part, share in zip(apart, (actions[:2], actions[2:]), strict=True)]
        check(joined.step(actions), [np.concatenate(column) for column in zip(*both, strict=True)])
    # The second part stands still while only the first is wanted.
    ours = joined.step(actions, np.array([False, True, False]))
    check([column[:2] for column in ours], apart[0].step(actions[:2]))
    check([column[2:] for column in joined.step(actions)], apart[1].step(actions[2:]))
    joined.close()
    for part in apart:
        part.close()
