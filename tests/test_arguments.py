"""What the public functions' arguments may be: every other value is one line, before anything is done."""

import functools
import inspect

import numpy as np
import pytest

import fedrax
from fedrax import api
from fedrax.arguments import OVERRIDES, either, one_of, read_argument, source, takes, texts, whole
from fedrax.audit.base import Effort
from fedrax.config import parse_override, resolve
from fedrax.errors import FedraxError
from fedrax.exchange.exports import export
from fedrax.exchange.imports import import_networks
from fedrax.records.rundir import RunDirectory, default_directory
from fedrax.render import render

TINY = ["budget.trajectories=none", "budget.rounds=1", "federation.agents=2"]
POLICIES = "give 'last' or 'best', or a whole number"
EPISODES = "give a whole number from 1 to 1000000"
LONG = "a" * 300

DEEP = functools.reduce(lambda inner, _: {"a": inner}, range(5000), {})
ITSELF = {"federation": {"agents": 2}}
ITSELF["twice"] = ITSELF["itself"] = ITSELF


class Unshown:
    """Of which there is no text."""

    def __repr__(self):
        raise RuntimeError("no text")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that has done nothing yet: it is never asked."""
    directory = RunDirectory.create(tmp_path_factory.mktemp("runs") / "run")
    directory.write_config(resolve("fedpg-br/cartpole", TINY).to_toml())
    return fedrax.load(directory.path)


def refused(call, *positional, **named):
    with pytest.raises(FedraxError) as error:
        call(*positional, **named)
    line = str(error.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("method", "arguments", "why"),
    [
        ("policy", {"rounds": "3"}, "rounds = '3' is not allowed: give a whole number"),
        ("policy", {"rounds": 2.5}, "rounds = 2.5"),
        ("policy", {"best": 1}, "best = 1 is not allowed: give True or False"),
        ("policy", {"deterministic": "no"}, "deterministic = 'no'"),
        ("policy", {"seed": True}, "seed = True"),
        ("policy", {"random_seed": 2**70}, "give a whole number from 0 to 2147483647"),
        *[("evaluate", {"policy": value}, POLICIES) for value in ("worst", None, 2.5, True)],
        ("evaluate_across", {"policy": "worst"}, POLICIES),
        *[("evaluate", {"episodes": value}, EPISODES) for value in (0, -1, "5", 1.5, None, np.ones((2, 2), int))],
        ("evaluate", {"evaluation_seed": "a"}, "evaluation_seed = 'a' is not allowed: give a whole number from 0"),
        ("evaluate", {"environments": "bad"}, "give 'all', 'own' or 'registered'"),
        ("evaluate_across", {"unseen": -1}, "unseen = -1"),
        ("policies", {"which": "worst"}, "which = 'worst'"),
        ("chosen", {"agent": "0"}, "agent = '0'"),
        ("audit", {"seed": "a"}, "seed = 'a'"),
        ("audit", {"seed": 2**70}, "seed = 1180591620717411303424"),
        ("audit", {"effort": "x"}, "effort = 'x' is not allowed: give a fedrax.audit.base.Effort"),
        ("audit", {"attacks": "A3"}, "attacks = 'A3' is not allowed: give a list of attacks, such as ['A1', 'A3']"),
        ("audit", {"attacks": [3]}, "attacks = [3]"),
        ("figure", {"x": 5}, "x = 5 is not allowed: give a text"),
        ("figure", {"smoothing": "a"}, "smoothing = 'a'"),
        ("figure", {"smoothing": -1}, "smoothing = -1 is not allowed: give a whole number from 1"),
        ("figure", {"title": 3}, "title = 3"),
    ],
)
def test_a_runs_methods_refuse_what_they_cannot_do(run, method, arguments, why):
    assert why in refused(getattr(run, method), **arguments)


def test_a_figure_is_of_numbers_of_the_run(run):
    (run.path / "metrics.jsonl").write_text(
        '{"seed": 0, "round": 0, "trajectories": 1, "return": 1.0, "agent_returns": [1.0, 2.0]}\n'
    )
    try:
        assert run.figure(value="trajectories", x="round") is not None
        for value in ("bad", "agent_returns"):
            line = refused(run.figure, value=value)
            assert f"unknown value (a column of the run's metrics) '{value}'" in line
            assert "allowed: return, round, seed, trajectories" in line
    finally:
        (run.path / "metrics.jsonl").unlink()


@pytest.mark.parametrize(
    ("call", "positional", "named", "why"),
    [
        (api.load, (5,), {}, "path = 5 is not allowed: give a path"),
        (api.load, (None,), {}, "path = None"),
        (api.load, ("",), {}, "path = ''"),
        (api.load, (LONG,), {}, "names have at most 255 bytes, and paths 4095; this one has 300"),
        (api.load, ("RUN",), {"plugins": [3]}, "plugins = [3] is not allowed: give a list of files and modules"),
        (api.load, ("RUN",), {"plugins": "own.py"}, "plugins = 'own.py'"),
        (api.train, (5,), {}, "source = 5 is not allowed: give a preset's name, a TOML file's path, a table, or None"),
        (api.train, (LONG,), {}, "source = "),
        (api.train, ({5: 1},), {}, "it has keys that are no texts"),
        (api.train, ({"environment": {5: 1}},), {}, "it has keys that are no texts"),
        (api.train, (ITSELF,), {}, "nested too deeply, or contains itself"),
        (api.train, (None, 5), {}, 'overrides = 5 is not allowed: give a list of "key=value"'),
        (api.train, (None, [5]), {}, "overrides = [5]"),
        (api.train, (None, "seeds=2"), {}, "overrides = 'seeds=2'"),
        (api.train, (None, {"seeds": {2}}), {}, 'give a list of "key=value", or a table such as {"budget.rounds": 3}'),
        (api.train, (None, {"seeds": object()}), {}, "overrides = {'seeds': "),
        (api.train, (None, {3: 2}), {}, "it has keys that are no texts"),
        (api.train, (None, {"environment": {3: 2}}), {}, "it has keys that are no texts"),
        (api.train, (None, ITSELF), {}, "nested too deeply, or contains itself"),
        (api.train, (None, DEEP), {}, "nested too deeply, or contains itself"),
        (api.train, (None, {"learner.hidden": DEEP}), {}, "nested too deeply, or contains itself"),
        (api.train, (None, {"seeds": Unshown()}), {}, "overrides = a dict is not allowed"),
        (api.train, (Unshown(),), {}, "source = a Unshown is not allowed"),
        (api.train, (None, {"learner": {"lr": 3}}), {}, "unknown key learner.lr of learner "),
        (api.train, (None, {"": 3}), {}, "is not of the form key=value"),
        (api.train, (None,), {"seeds": 0}, "seeds = 0 is not allowed: give a whole number from 1"),
        (api.train, (None,), {"out": "a\0b"}, "no path has a character of value 0"),
        (api.train, (None,), {"out": f"runs/{LONG}"}, "give a shorter one"),
        (api.train, (None,), {"progress": "no"}, "progress = 'no'"),
        (api.train, (None,), {"library": 5}, "library = 5 is not allowed: give a fedrax.runtime.library.Programs"),
        (api.resume, ("RUN", [None]), {}, "overrides = [None]"),
        (api.resume, ("RUN",), {"library": 5}, "library = 5"),
        (api.audit, ("RUN",), {"seed": "a"}, "seed = 'a'"),
        (api.sweep, ("sweep.toml",), {"retry": "a"}, "retry = 'a' is not allowed: give a whole number from 0"),
        (api.sweep, ("sweep.toml",), {"jobs": 0}, "jobs = 0"),
        (api.sweep, ("sweep.toml",), {"many": 1}, "many = 1"),
        (api.show_sweep, (None,), {}, "file = None"),
        (resolve, (5,), {}, "source = 5"),
        (resolve, (None, [5]), {}, "overrides = [5]"),
        (fedrax.Run, (5,), {}, "path = 5"),
        (export, ("RUN", 5), {}, "to = 5 is not allowed: give a text"),
        (export, ("RUN", "npz"), {"policy": "worst"}, "policy = 'worst'"),
        (render, ("RUN",), {"formats": ["mpeg"]}, "formats = ['mpeg'] is not allowed: give a list"),
        (render, ("RUN",), {"episodes": 0}, "episodes = 0 is not allowed: give a whole number from 1 to 1000"),
        (import_networks, (None, [5]), {}, "files = [5] is not allowed: give a list, each a path"),
    ],
)
def test_functions_refuse_what_they_cannot_do(run, call, positional, named, why):
    positional = [str(run.path) if value == "RUN" else value for value in positional]
    assert why in refused(call, *positional, **named)


@pytest.mark.parametrize(
    "call",
    [
        *(api.train, api.resume, api.load, api.audit, api.sweep, api.show_sweep, resolve, export, render),
        import_networks,
        *(value for name, value in vars(fedrax.Run).items() if inspect.isfunction(value) and not name.startswith("_")),
    ],
    ids=lambda call: call.__qualname__,
)
def test_every_public_function_checks_its_arguments(call):
    parameters = [each for each in inspect.signature(call).parameters if each != "self"]
    assert hasattr(call, "__wrapped__") or not parameters


def test_an_effort_that_no_attacker_can_make_is_one_line():
    assert "repetitions = 0 is not allowed: give a whole number from 1" in refused(Effort, repetitions=0)
    assert "shadows = 5 is not allowed: give a whole number from 6" in refused(Effort, shadows=5)


def test_a_rule_is_needed_for_each_parameter():
    with pytest.raises(TypeError, match="needs a rule for each of a, b"):
        takes(a=whole())(lambda a, b: None)


def test_what_is_allowed_is_passed_on():
    @takes(a=whole(1), b=texts(), c=either(one_of("x"), whole()), d=source())
    def given(a, b=(), *, c=None, d=None):
        return a, b, c, d

    assert given(np.int64(3), iter(["x", "y"]), c="x") == (3, ["x", "y"], "x", None)
    assert given(a=1) == (1, (), None, None)
    assert given(1, c=None) == (1, (), None, None)
    shared = {"a": [1]}
    assert given(1, d={"x": shared, "y": [shared, shared]})[3] == {"x": shared, "y": [shared, shared]}
    with pytest.raises(FedraxError, match=r"^n = array\(\[\[0, 0, 0\], \[0, 0, 0\]\]\) is not allowed"):
        read_argument("n", np.zeros((2, 3), int), whole())


@pytest.mark.parametrize(
    ("call", "positional", "named", "why"),
    [
        (
            fedrax.train,
            ("fedppo/cartpole",),
            {"num_rounds": 3},
            "train has no argument 'num_rounds'; settings go into overrides: overrides=[\"budget.rounds=3\"]; train "
            "takes source, overrides, seeds, out, progress, plugins, library",
        ),
        (
            fedrax.train,
            ("fedppo/cartpole",),
            {"learner": "ppo", "hidden": (64, 64), "gamma": np.float32(1)},
            'overrides=["learner=ppo", "learner.hidden=[64, 64]", "learner.discount=..."]',
        ),
        (fedrax.train, (None,), {"overide": []}, "train has no argument 'overide' (did you mean 'overrides'?); train"),
        (
            fedrax.train,
            ("fedppo/cartpole",),
            {"device": "cuda", "gpu": 0, "verbose": 1, "tensorboard_log": "x", "total_timesteps": 5},
            "train has no argument 'device', 'gpu', 'verbose', 'tensorboard_log', 'total_timesteps'; settings go into "
            'overrides: overrides=["budget.steps=5"]; no setting has the device: JAX takes a GPU',
        ),
        (fedrax.train, (None,), {"progress_bar": 1}, "or a function of Python progress=False; train takes"),
        (fedrax.resume, ("RUN",), {"progres": 1}, "resume has no argument 'progres' (did you mean 'progress'?)"),
        (fedrax.resume, ("RUN",), {"verbose": 0}, "or a function of Python progress=False; resume takes"),
        (fedrax.train, (), {}, "train needs source; give source: a preset's name, a TOML file's path, a table, or No"),
        (fedrax.load, (), {}, "load needs path; give path: a path"),
        (fedrax.load, ("RUN",), {"seeds": 3}, "load has no argument 'seeds'; load takes path, plugins"),
        (fedrax.load, ("RUN", []), {}, "load takes path by position, not 2 values; give plugins by name"),
        (fedrax.load, ("RUN",), {"path": "RUN"}, "load is given path twice, by position and by name; give it once"),
        (fedrax.Run, (), {}, "Run needs path"),
        (fedrax.Run, ("RUN", [], 3), {}, "Run takes path by position, not 3 values; give plugins by name"),
        (fedrax.resume, ("RUN",), {"rounds": 5}, 'overrides=["budget.rounds=5"]'),
        (resolve, (None,), {"nothing": 5}, "resolve has no argument 'nothing'; resolve takes source, overrides, plug"),
        (api.audit, ("RUN",), {"attack": []}, "Run.audit has no argument 'attack' (did you mean 'attacks'?)"),
        (api.audit, (), {"attack": []}, "audit needs run"),
    ],
)
def test_arguments_that_a_function_lacks_or_does_not_have_are_one_line(run, call, positional, named, why):
    positional = [str(run.path) if value == "RUN" else value for value in positional]
    assert why in refused(call, *positional, **named)


def test_a_runs_methods_say_what_they_take(run):
    assert refused(run.evaluate, 5).startswith("Run.evaluate takes nothing by position, not 1 value; give episodes, ")
    assert refused(run.policy, episode=5).startswith("Run.policy has no argument 'episode'; Run.policy takes ")


def test_a_folder_of_any_name_can_be_made_or_is_refused(tmp_path):
    name = default_directory("\u6f22" * 300).name
    (tmp_path / name).mkdir()
    assert "cannot make the run directory" in refused(RunDirectory.create, tmp_path / LONG)


def test_settings_are_given_as_a_table_of_values_by_key():
    given = {
        "name": "3",
        "seeds": np.int64(2),
        "budget": {"rounds": 1, "trajectories": None},
        "learner.hidden": (8, 4),
        "learner": {"discount": np.float32(0.5), "activation": "relu"},
        "aggregator": "krum",
        "records.loggers": [],
    }
    config = resolve("fedpg-br/cartpole", given)
    assert (config.name, config.seeds, config.budget.rounds, config.budget.trajectories) == ("3", 2, 1, None)
    assert (config.learner["hidden"], config.learner["discount"]) == ((8, 4), 0.5)
    assert (config.learner["activation"], config.aggregator["kind"]) == ("relu", "krum")
    assert config.records.loggers == {}


@pytest.mark.parametrize("text", ["none of this", "true", "1e3", "[1]", 'a"b\\c', "\u6f22\x7f\n", "\U0001f600"])
def test_a_text_in_a_table_of_settings_is_read_back_the_same(text):
    assert parse_override(OVERRIDES.read({"environment.kwargs.a": text})[0]) == {"environment": {"kwargs": {"a": text}}}


@pytest.mark.parametrize("value", [1, -2.5, 1e300, float("inf"), True, [1, [2.0, "x"]], [{"a b": [1]}], {}])
def test_a_value_in_a_table_of_settings_is_read_back_the_same(value):
    assert parse_override(OVERRIDES.read({"x": value})[0]) == {"x": value}
