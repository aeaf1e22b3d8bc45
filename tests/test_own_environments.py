"""Environments of a user's own: constructor arguments, their differences between agents, time limits, pictures."""

import json

import gymnasium
import jax
import numpy as np
import pytest

import fedrax
from fedrax.cli import main
from fedrax.config import resolve
from fedrax.environments.constructor import constructor_of
from fedrax.environments.host import EnvPoolEnvironments, GymnasiumEnvironments, make_host
from fedrax.environments.host_joined import JoinedEnvironments
from fedrax.errors import FedraxError
from fedrax.layers import merge_heterogeneity
from fedrax.runtime.draws import divergence, unseen_draws
from fedrax.runtime.make import make_runtime

from own_files import TINY, project

__all__ = ["project"]

OWN = "plugins=['environments.py']"
MASSES = "environment.heterogeneity.mass=[0.5, 1, 2, 4]"


@pytest.fixture(autouse=True)
def _environments(project):
    project.copy("environments.py")


def simulate(id, *overrides):
    return make_runtime(resolve(None, [*TINY, OWN, f"environment.id={id}", *overrides]))


def refused(id, *overrides):
    with pytest.raises(FedraxError) as error:
        simulate(id, *overrides)
    assert "\n" not in str(error.value)
    return str(error.value)


def attributes(environments, name):
    """An attribute of every copy that Gymnasium steps."""
    return [getattr(copy.unwrapped, name) for copy in environments.inner._environments.envs]


@pytest.mark.training
def test_arguments_reach_every_copy(project):
    arguments = ["environment.kwargs={level=3}", "environment.kwargs.size=2", "environment.kwargs.hint=none"]
    runtime = simulate("OwnArgs-v0", *arguments)
    (group,) = runtime.seed_environments[0].groups
    for name, value in (("level", 3), ("size", 2), ("hint", None)):
        assert attributes(group, name) == [value] * 4
    assert type(attributes(group, "level")[0]) is int
    runtime.close()
    run = fedrax.train(
        None, [*TINY, OWN, "environment.id=OwnArgs-v0", *arguments], out=project.path / "run", progress=False
    )
    # Ten steps of a reward that is the level.
    np.testing.assert_array_equal(run.evaluate(episodes=3)[0].returns, 30.0)
    assert resolve(run.directory.config).environment.kwargs == {"level": 3, "size": 2, "hint": "none"}


@pytest.mark.parametrize(
    ("id", "overrides", "words"),
    [
        ("OwnArgs-v0", [], ["needs the argument level: set environment.kwargs.level"]),
        (
            "OwnArgs-v0",
            ["environment.kwargs={level=3, siz=2}"],
            ["environment.kwargs.siz", "'size'", "level, size, hint"],
        ),
        ("OwnArgs-v0", ["environment.kwargs={level=13}"], ["level=13", "ValueError: there is no level 13", "line 3"]),
        ("OwnPassing-v0", ["environment.kwargs.mas=2"], ["environment.kwargs.mas", "'mass'", "takes wind, mass"]),
        ("OwnNoLimit-v0", ["environment.kwargs.max_episode_steps=9"], ["it is set by environment.horizon"]),
        ("CartPole-v1", ["environment.kwargs.sutton_barto_reward=true"], ["in JAX", "environment.native=false"]),
        ("OwnArgs-v0", ["environment.kwargs=3"], ["environment.kwargs = 3 is not allowed"]),
        (
            "LunarLander-v3",
            ["environment.kwargs.enable_wind=true", "environment.heterogeneity.main_engine_power=12.0"],
            ["enable_wind", "does not take together with environment.heterogeneity", "continuous"],
        ),
    ],
)
def test_arguments_that_it_does_not_take_or_lacks_are_one_line(id, overrides, words):
    if id.startswith("Lunar"):
        pytest.importorskip("Box2D")
    message = refused(id, *overrides)
    for word in words:
        assert word in message


def test_arguments_of_a_class_are_those_it_passes_on():
    resolve(None, [*TINY, OWN])
    known = constructor_of("OwnPassing-v0")
    assert known.arguments == {"wind": 2.0, "mass": 1.0}
    assert not known.any_name


def test_arguments_become_the_defaults_of_physics():
    pytest.importorskip("Box2D")
    settings = ["environment.kwargs={gravity=-5.0}", "environment.heterogeneity.main_engine_power=[12.0, 14.0]"]
    runtime = simulate("LunarLander-v3", *settings)
    assert [draw["gravity"] for draw in runtime.draws[0]] == [-5.0, -5.0]
    assert [draw["main_engine_power"] for draw in runtime.draws[0]] == [12.0, 14.0]
    runtime.close()


@pytest.mark.training
def test_every_agent_has_its_own_mass(project):
    four = ["federation.agents=4", MASSES, "environment.id=OwnPointMass-v0"]
    run = fedrax.train(None, [*TINY, OWN, *four], out="run", progress=False)
    manifest = json.loads((project.path / "run" / "manifest.json").read_text())
    assert manifest["draws"] == [[{"mass": 0.5}, {"mass": 1.0}, {"mass": 2.0}, {"mass": 4.0}]]
    assert manifest["divergence"] == {"mass": pytest.approx(np.std([0.5, 1, 2, 4]))}
    runtime = make_runtime(run.config)
    (group,) = runtime.seed_environments[0].groups
    assert attributes(group, "mass") == [0.5, 0.5, 1, 1, 2, 2, 4, 4]
    runtime.close()
    # From the same states, the same policy's returns differ by the mass alone.
    across = run.evaluate_across(episodes=3)[0].returns
    assert across.shape == (1, 4, 3)
    assert len(np.unique(across)) == 12
    params = run.policies()[0]
    alone = make_runtime(resolve(None, [*TINY, OWN, "environment.id=OwnPointMass-v0", "environment.kwargs.mass=2"]))
    expected = alone.evaluate(params, episodes=3, seed=run.config.evaluation.seed).returns
    # A product of more rows rounds otherwise; other masses differ by one and more.
    np.testing.assert_allclose(across[0, 2], expected, rtol=1e-6)
    alone.close()


def test_agents_in_turn_and_centralised_ones_keep_their_arguments():
    settings = ["federation.agents=4", MASSES]
    some = simulate("OwnPointMass-v0", *settings, "federation.participation=0.5")
    assert [attributes(group, "mass")[0] for group in some.seed_environments[0].groups] == [0.5, 1, 2, 4]
    central = simulate("OwnPointMass-v0", *settings, "strategy=central")
    assert attributes(central.seed_environments[0].groups[0], "mass") == [0.5, 0.5, 1, 1, 2, 2, 4, 4]
    for each in (some, central):
        each.close()


def test_whole_numbers_stay_what_they_are_and_the_default_is_that_of_the_arguments():
    runtime = simulate("OwnArgs-v0", "environment.kwargs.level=7", "environment.heterogeneity.level=[1, 2]")
    levels = attributes(runtime.seed_environments[0].groups[0], "level")
    assert levels == [1, 1, 2, 2]
    assert {type(level) for level in levels} == {int}
    server = runtime._make(1, 10)
    assert attributes(server, "level") == [7]
    server.close()
    runtime.close()


def test_unseen_environments_are_drawn_from_the_same_distribution():
    table = "environment.heterogeneity.mass={distribution='uniform', low=0.5, high=4}"
    runtime = simulate("OwnPointMass-v0", table)
    (seen,), more = runtime.draws, unseen_draws(runtime.config, 3)
    masses = [draw["mass"] for draw in [*seen, *more]]
    assert len(set(masses)) == 5
    assert all(0.5 <= mass < 4 for mass in masses)
    runtime.close()


def test_noise_and_arguments_differ_together():
    noise = "environment.heterogeneity.observation_noise_mean=[0.0, 100.0]"
    runtime = simulate("OwnPointMass-v0", "environment.heterogeneity.mass=[1.0, 2.0]", noise)
    (group,) = runtime.seed_environments[0].groups
    assert attributes(group, "mass") == [1, 1, 2, 2]
    group.reseed(np.arange(4))
    assert (group.reset().mean(1) > 50).tolist() == [False, False, True, True]
    runtime.close()


@pytest.mark.parametrize(
    ("id", "overrides", "words"),
    [
        (
            "OwnPointMass-v0",
            ["environment.heterogeneity.mas=[1, 2]"],
            [
                "sets mas (did you mean 'mass'?)",
                "physical parameters are none",
                "constructor's arguments mass",
                "noise",
            ],
        ),
        (
            "LunarLander-v3",
            ["environment.heterogeneity.main_engine=1.0"],
            ["(did you mean 'main_engine_power'?)", "main_engine_power, side_engine_power", "arguments continuous"],
        ),
        ("OwnArgs-v0", ["environment.heterogeneity.level=[1, 2]"], ["needs the argument level"]),
        (
            "OwnArgs-v0",
            ["environment.kwargs.level=1", "environment.heterogeneity.hint=[1, 2]"],
            ["environment.heterogeneity.hint", "the default ''", "environment.kwargs.hint"],
        ),
        (
            "OwnArgs-v0",
            ["environment.kwargs.level=1", "environment.heterogeneity.size=[3, 4]"],
            ["different forms", "size = 4", "shape (3,)"],
        ),
        (
            "OwnArgs-v0",
            ["environment.kwargs.level=1", "environment.heterogeneity.level=[3, 13]"],
            ["level=13", "ValueError: there is no level 13"],
        ),
        ("OwnPointMass-v0", [MASSES], ["lists 4 values for 2 agents"]),
    ],
)
def test_what_cannot_differ_is_one_line(id, overrides, words):
    if id.startswith("Lunar"):
        pytest.importorskip("Box2D")
    message = refused(id, *overrides)
    for word in words:
        assert word in message


CHEETAH = ["environment.id=HalfCheetah-v5", "environment.heterogeneity.ctrl_cost_weight=[0, 10]"]


@pytest.mark.parametrize("backend", ["gymnasium", "envpool"])
def test_agents_differ_by_options_of_either_engine(backend):
    """The control cost of one action is its weight times its square, in reward."""
    pytest.importorskip("mujoco")
    pytest.importorskip("envpool")
    config = resolve(None, [*TINY, *CHEETAH, f"environment.backend={backend}"])
    runtime = make_runtime(config)
    (group,) = runtime.seed_environments[0].groups
    kind = JoinedEnvironments if backend == "envpool" else GymnasiumEnvironments
    assert isinstance(group.inner, kind)
    group.reseed(np.zeros(4, np.int64))
    group.reset()
    rewards = group.step(np.full((4, 6), 0.5, np.float32))[1]
    np.testing.assert_allclose(rewards[:2] - rewards[2:], 10 * 6 * 0.5**2, rtol=1e-5)
    runtime.close()


def test_envpool_steps_what_it_has_options_for_and_gymnasium_the_rest():
    pytest.importorskip("mujoco")
    pytest.importorskip("envpool")
    made = make_host("HalfCheetah-v5", 1, kwargs={"ctrl_cost_weight": 10})
    plain = make_host("HalfCheetah-v5", 1)
    assert isinstance(made, EnvPoolEnvironments)
    rewards = []
    for each in (made, plain):
        each.reseed(np.zeros(1, np.int64))
        each.reset()
        rewards.append(each.step(np.full((1, 6), 0.5, np.float32))[1][0])
        each.close()
    assert rewards[1] - rewards[0] == pytest.approx(9.9 * 6 * 0.5**2, rel=1e-5)
    other = make_host("CartPole-v1", 1, kwargs={"sutton_barto_reward": True})
    assert isinstance(other, GymnasiumEnvironments)
    other.close()
    message = "EnvPool cannot make 'CartPole-v1' with sutton_barto_reward: its options are none"
    with pytest.raises(FedraxError, match=message):
        make_host("CartPole-v1", 1, backend="envpool", kwargs={"sutton_barto_reward": True})


def test_the_horizon_stands_in_for_a_missing_time_limit():
    message = refused("OwnNoLimit-v0")
    assert "'OwnNoLimit-v0' has no time limit: set environment.horizon" in message
    assert "has no time limit" in refused("OwnNoLimit-v0", "evaluation.horizon=5"), "training has none"
    for evaluation, length in ([], 50), (["evaluation.horizon=70"], 70):
        runtime = simulate("OwnNoLimit-v0", "environment.horizon=50", *evaluation)
        policy = runtime.federation.learner.init_params(jax.random.key(0), runtime.federation.spaces)
        measured = runtime.evaluate(policy, episodes=2, seed=0)
        assert runtime.training_horizon == runtime.seed_environments[0].groups[0].time_limit == 50
        assert measured.lengths.tolist() == [length, length]
        assert measured.returns.tolist() == [length, length]
        runtime.close()
    # A registered limit is never exceeded.
    runtime = simulate("OwnArgs-v0", "environment.kwargs.level=1", "environment.horizon=50")
    assert runtime.training_horizon == 10
    runtime.close()


def test_a_joint_distribution_and_a_whole_table_of_a_preset_can_be_removed():
    joint = "environment.heterogeneity.distribution=none"
    preset = resolve("fedtd3/pendulum").environment.heterogeneity
    assert preset["distribution"] == "fedtd3"
    # A parameter of its own, which is no option of the joint distribution.
    rest = {"clip_after_angle": 1}
    assert resolve("fedtd3/pendulum", [joint]).environment.heterogeneity == rest
    masses = "environment.heterogeneity.m=[1, 2, 3, 4, 5]"
    for removed, left in (joint, rest), ("environment.heterogeneity=none", {}):
        config = resolve("fedtd3/pendulum", [removed, masses])
        assert config.environment.heterogeneity == left | {"m": [1, 2, 3, 4, 5]}
        assert divergence(config).keys() >= {"m"}
    kept = resolve("fedtd3/pendulum", [masses]).environment.heterogeneity
    assert kept == preset | {"m": [1, 2, 3, 4, 5]}


@pytest.mark.parametrize(
    ("tables", "merged"),
    [
        ([{"distribution": "fedtd3", "std": 1.0, "m": 2}, {"distribution": "none"}], {"m": 2}),
        (
            [{"distribution": "fedtd3", "std": 1.0}, {"distribution": "fedtd3", "trial": 3}],
            {"distribution": "fedtd3", "std": 1.0, "trial": 3},
        ),
        ([{"distribution": "fedtd3", "std": 1.0}, {"distribution": "other"}], {"distribution": "other"}),
        ([{"a": {"distribution": "uniform", "low": 0, "high": 1}}, {"a": {"low": 0.5}}], None),
        ([{"a": 1}, "none", {"b": 2}], {"b": 2}),
        ([{"distribution": "none"}], {}),
        ([{"a": 1}, 7], 7),
    ],
)
def test_tables_of_heterogeneity_in_layers(tables, merged):
    expected = {"a": {"distribution": "uniform", "low": 0.5, "high": 1}} if merged is None else merged
    assert merge_heterogeneity(tables) == expected


@pytest.mark.training
def test_an_environment_without_a_picture_is_refused_before_anything_is_stepped(project, monkeypatch, capsys):
    words = (
        "has no picture: a video needs the render mode 'rgb_array' among its metadata's render_modes, which are none"
    )
    assert f"'OwnPointMass-v0' {words}" in refused("OwnPointMass-v0", "video.every=1")
    run = fedrax.train(None, [*TINY, OWN, "environment.id=OwnPointMass-v0"], out="run", progress=False)

    def stepped(self, *arguments, **settings):
        raise AssertionError("it was stepped")

    for name in ("reset", "step"):
        monkeypatch.setattr(type(gymnasium.make("OwnPointMass-v0").unwrapped), name, stepped)
    assert main(["render", str(run.path)]) == 1
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


@pytest.mark.training
def test_rendering_says_nothing_of_displays(project, monkeypatch, capfd):
    for name in ("XDG_RUNTIME_DIR", "DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    settings = ["environment=CartPole-v1", "environment.native=false", "environment.horizon=3"]
    run = fedrax.train(None, [*TINY, *settings], out="run", progress=False)
    capfd.readouterr()
    assert main(["render", str(run.path), "--format", "gif"]) == 0
    shown = capfd.readouterr()
    assert shown.err == ""
    assert shown.out == f"{run.path / 'video.gif'}\n"
