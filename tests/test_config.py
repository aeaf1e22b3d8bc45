"""Layers, overrides, round trips, and the one line that every mistake ends in."""

import math
import tomllib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrax.config import Config, merge, parse_override, presets, resolve
from fedrax.errors import FedraxError
from fedrax.runtime.continuation import differences
from fedrax.runtime.make import make_runtime

SMALL = ["budget.rounds=1"]


def test_presets_are_the_published_experiments():
    assert {"fedpg-br/cartpole", "fedpg-br/lunarlander", "fedpg-br/halfcheetah"} <= set(presets())


@pytest.mark.parametrize(
    ("preset", "constants"),
    [
        ("fedpg-br/cartpole", (0.999, 1e-3, 12, 20, 4, 0.06, 5000, (16, 16))),
        ("fedpg-br/lunarlander", (0.99, 1e-3, 26, 38, 8, 0.07, 10_000, (64, 64))),
        ("fedpg-br/halfcheetah", (0.995, 8e-5, 46, 50, 16, 0.9, 10_000, (64, 64))),
    ],
)
def test_presets_hold_the_published_constants(preset, constants):
    config = resolve(preset)
    learner, strategy, aggregator = config.learner, config.strategy, config.aggregator
    assert constants == (
        learner["discount"],
        learner["learning_rate"],
        strategy["batch_min"],
        strategy["batch_max"],
        strategy["minibatch"],
        aggregator["sigma"],
        config.budget.trajectories,
        tuple(learner["hidden"]),
    )
    assert aggregator["kind"] == ("fedpg-trust" if preset == "fedpg-br/lunarlander" else "fedpg-filter")
    assert resolve(preset, ["strategy.mode=reference"]).aggregator["kind"] == "fedpg-filter"
    assert (learner["estimator"], learner["normalisation"], learner["optimizer"]) == (
        "whitened",
        "steps",
        "adam",
    )


@pytest.mark.parametrize(
    ("text", "table"),
    [
        ("attack=alie", {"attack": {"kind": "alie"}}),
        ("attack.agents=3", {"attack": {"agents": 3}}),
        ("environment=LunarLander-v3", {"environment": {"id": "LunarLander-v3"}}),
        ("learner.hidden=[16, 16]", {"learner": {"hidden": [16, 16]}}),
        ("learner.learning_rate=1e-3", {"learner": {"learning_rate": 1e-3}}),
        ("name=two words", {"name": "two words"}),
        ("seed=7", {"seed": 7}),
    ],
)
def test_overrides(text, table):
    assert parse_override(text) == table


@pytest.mark.parametrize("preset", ["fedpg-br/cartpole", "fedpg-br/lunarlander", "fedpg-br/halfcheetah"])
@pytest.mark.parametrize("strategy", ["fedpg-br", "svrpg", "gpomdp", "fedavg", "local"])
def test_the_fedpg_br_presets_keep_the_references_whitening(preset, strategy):
    learner = resolve(preset, [f"strategy={strategy}"]).learner
    assert (learner["estimator"], learner["baseline"]) == ("whitened", "none")


@pytest.mark.parametrize(
    ("strategy", "estimator", "baseline"),
    [
        ("fedavg", "gpomdp", "leave-one-out"),
        ("gpomdp", "gpomdp", "leave-one-out"),
        ("fedpg-br", "whitened", "none"),
        ("svrpg", "whitened", "none"),
    ],
)
def test_everybody_else_has_an_unbiased_default(strategy, estimator, baseline):
    config = resolve({"budget": {"rounds": 1}}, [f"strategy={strategy}", "learner=policy-gradient"])
    assert (config.learner["estimator"], config.learner["baseline"]) == (estimator, baseline)


def test_the_strategys_filter_is_the_rule_where_none_is_set():
    trust = "strategy.filter=fedpg-trust"
    table = {"strategy": {"kind": "fedpg-br", "filter": "fedpg-trust"}, "budget": {"rounds": 1}}

    def rule(source, *overrides):
        return resolve(source, [*overrides]).aggregator["kind"]

    assert rule("fedpg-br/cartpole") == "fedpg-filter"
    assert rule("fedpg-br/cartpole", trust) == "fedpg-trust"
    assert rule("fedpg-br/cartpole", trust, "aggregator=krum") == "krum"
    assert rule(table) == "fedpg-trust"
    # A mode stands for the published filter, unless the same person says another.
    assert rule(table, "strategy.mode=paper") == "fedpg-filter"
    assert rule(table, "strategy.mode=paper", trust) == "fedpg-trust"
    assert rule(table, "strategy=svrpg") == "mean"
    chosen = resolve("fedpg-br/cartpole", ["aggregator=krum"])
    assert resolve("fedpg-br/cartpole", [trust, "aggregator=krum"]).digest() == chosen.digest()
    assert resolve("fedpg-br/cartpole", [trust]).digest() != resolve("fedpg-br/cartpole").digest()


def test_a_kinds_own_table_counts_only_for_that_kind():
    config = resolve("fedpg-br/cartpole", ["strategy=svrpg"])
    assert config.strategy["batch"] == 16
    assert "batch_min" not in config.strategy
    assert config.aggregator["kind"] == "mean"


def test_common_options_survive_a_change_of_kind():
    table = {"attack": {"kind": "sign-flipping", "agents": 3, "scale": 9.0}, "budget": {"rounds": 1}}
    config = resolve(table, ["attack=random-noise"])
    assert config.attack["agents"] == 3
    assert config.attack["scale"] == 3.0


def test_mode_sets_defaults_below_everything_said():
    paper = resolve("fedpg-br/cartpole", ["strategy.mode=paper"])
    assert (paper.learner["optimizer"], paper.learner["estimator"]) == ("sgd", "gpomdp")
    assert paper.strategy["ratio_band"] is None
    assert paper.strategy["steps"] == "geometric-from-0"
    mixed = resolve("fedpg-br/cartpole", ["strategy.mode=paper", "learner.optimizer=adam", "strategy.ratio_band=0.1"])
    assert mixed.learner["optimizer"] == "adam"
    assert mixed.strategy["ratio_band"] == 0.1


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["strategy.mode=paper", "attack=alie", "attack.agents=2", "seeds=3"],
        ["strategy.ratio_band=none", "aggregator=krum"],
        ["environment.heterogeneity.length={distribution='uniform', low=0.3, high=0.7}"],
        ["environment.native=false", "environment.kwargs.limit=inf", "runtime.flower.deadline=inf"],
    ],
)
def test_resolved_toml_reads_back_equal(overrides, tmp_path):
    config = resolve("fedpg-br/cartpole", overrides)
    path = tmp_path / "config.toml"
    path.write_text(config.to_toml())
    assert resolve(path) == config
    assert resolve(path).digest() == config.digest()


def test_an_infinite_argument_is_not_read_back_as_none():
    config = resolve("fedpg-br/cartpole", ["environment.native=false", "environment.kwargs.limit=inf"])
    assert tomllib.loads(config.to_toml())["environment"]["kwargs"] == {"limit": math.inf}
    unset = resolve("fedpg-br/cartpole", ["environment.native=false", "environment.kwargs.limit=none"])
    assert config.digest() != unset.digest()
    assert differences(config, unset) == {"environment.kwargs.limit": (math.inf, "none")}


@pytest.mark.parametrize("value", [np.ones(2), object(), {"a": [math.nan]}, {1: 2}])
def test_an_argument_that_cannot_be_recorded_is_one_line(value):
    table = {"environment": {"native": False, "kwargs": {"goal": value}}, "budget": {"rounds": 1}}
    with pytest.raises(
        FedraxError, match=r"environment\.kwargs = .* is not allowed: goal cannot be recorded; give finite numbers"
    ):
        resolve(table)


def test_a_state_larger_than_the_memory_is_refused_before_it_is_made():
    runtime = make_runtime(resolve("fedpg-br/cartpole", ["seeds=100000", "federation.agents=1000000"]))
    with pytest.raises(FedraxError, match=r"the run's state takes .* TB \(1000000 agents, times 100000 seeds\)"):
        runtime.init()


names = st.text(min_size=1, max_size=200).filter(str.isprintable)


@settings(max_examples=30)
@given(names, st.integers(0, 2**31 - 1), st.floats(0, 1), st.lists(st.integers(1, 64), min_size=1, max_size=3))
def test_any_values_survive_the_round_trip(name, seed, discount, hidden):
    table = {
        "name": name,
        "seed": seed,
        "budget": {"rounds": 1},
        "learner": {"discount": discount, "hidden": hidden},
    }
    config = resolve(table)
    assert resolve(tomllib.loads(config.to_toml())) == config


def test_merge_keeps_what_later_layers_do_not_say():
    assert merge([{"a": {"x": 1, "y": 2}, "b": 1}, {"a": {"y": 3}}]) == {"a": {"x": 1, "y": 3}, "b": 1}


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["federation.agent=20"], ["federation.agent", "did you mean 'agents'"]),
        (["strategy.minibach=4"], ["strategy.minibach", "did you mean 'minibatch'"]),
        (["strategy=fedpg"], ["fedpg", "did you mean 'fedpg-br'"]),
        (["attack=sign-flip"], ["sign-flip", "did you mean 'sign-flipping'"]),
        (["aggregater=krum"], ["aggregater", "did you mean 'aggregator'"]),
        (["federation.agents=0"], ["federation.agents", "0", "greater than 0"]),
        (["federation.agents=many"], ["federation.agents", "many", "integer"]),
        (["learner.discount=1.5"], ["learner.discount", "1.5", "between 0 and 1"]),
        (["learner.optimizer=adams"], ["learner.optimizer", "did you mean 'adam'"]),
        (["strategy.mode=papr"], ["strategy.mode", "did you mean 'paper'"]),
        (["strategy"], ["key=value"]),
        (["budget.trajectories=none"], ["no budget"]),
        (["plugins=['/nowhere/mine.py']"], ["plugin", "/nowhere/mine.py"]),
        (["attack=[1]"], ["attack", "attack.kind"]),
        (["attack.kind=3"], ["attack.kind = 3", "fedrax describe attack"]),
        (["aggregator.kind=[1]"], ["aggregator.kind = [1]", "fedrax describe aggregator"]),
        (["budget..rounds=3"], ["'budget..rounds=3'", "key=value"]),
        (["..=3"], ["'..=3'", "key=value"]),
        (["budget.rounds=99999999999999999999"], ["budget.rounds", "at most 2147483647"]),
        (["learner.max_gradient_norm=1" + "0" * 400], ["learner.max_gradient_norm = 1000", "it must be"]),
        (["learner.discount=1" + "0" * 400], ["learner.discount = 1000", "between 0 and 1"]),
        (["strategy.minibatch=2147483648"], ["strategy.minibatch = 2147483648", "at most 2147483647"]),
        (["federation.agents=1000000000"], ["federation.agents", "1000000"]),
        (["seed=4294967296"], ["seed = 4294967296", "at most 2147483647"]),
        (["seed=2147483647", "seeds=2"], ["seeds = 2", "the last seed", "at most 2147483647"]),
        (["seeds=10000000000"], ["seeds = 10000000000", "100000"]),
        (["learner.hidden=[16, -1]"], ["learner.hidden = -1", "at least 1"]),
        (["learner.hidden=[0]"], ["learner.hidden = 0", "at least 1"]),
        (["learner.learning_rate=inf"], ["learner.learning_rate = inf", "a finite number at least 0"]),
        (["learner.learning_rate=nan"], ["learner.learning_rate = nan", "a finite number at least 0"]),
    ],
)
def test_mistakes_in_the_configuration_are_one_clear_line(overrides, words):
    with pytest.raises(FedraxError) as error:
        resolve("fedpg-br/cartpole", overrides)
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["attack=sign-flipping"], ["sign-flipping", "attack.agents"]),
        (["attack.agents=3"], ["attack.agents", "there is no attack"]),
        (["attack=sign-flipping", "attack.agents=11"], ["attack.agents = 11", "federation.agents = 10"]),
        (
            ["attack=sign-flipping", "attack.agents=5", "aggregator=median"],
            ["median", "5", "federation.agents"],
        ),
        (["attack=sign-flipping", "attack.agents=2", "aggregator=bulyan"], ["bulyan", "11", "10"]),
        (["environment=CartPol-v1"], ["CartPol-v1", "did you mean 'CartPole-v1'"]),
        (["environment.heterogeneity.lenght=1.0"], ["lenght", "did you mean 'length'"]),
        (["strategy.batch_min=30"], ["strategy.batch_min", "strategy.batch_max"]),
        (["environment=FrozenLake-v1"], ["FrozenLake-v1", "Box"]),
        (["federation.local_updates=2"], ["federation.local_updates = 2", "one gradient a round"]),
    ],
)
def test_impossible_combinations_are_refused_before_training(overrides, words):
    with pytest.raises(FedraxError) as error:
        make_runtime(resolve("fedpg-br/cartpole", overrides))
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_no_such_source_names_the_nearest():
    with pytest.raises(FedraxError, match="did you mean 'fedpg-br/cartpole'"):
        resolve("fedpg-br/cartpol")


def test_a_source_that_is_not_text_is_one_line(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes(b'name = "\xff"')
    with pytest.raises(FedraxError, match=r"mine\.toml is not valid TOML: it is not UTF-8 text \(byte 8\)"):
        resolve(path)


def test_broken_toml_says_where(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("budget = [")
    with pytest.raises(FedraxError, match=r"mine\.toml is not valid TOML"):
        resolve(path)


def test_configuration_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        resolve("fedpg-br/cartpole").seed = 3
    assert isinstance(resolve("fedpg-br/cartpole"), Config)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[files, a-b]", ["files", "a-b"]),
        ("[64, abc, 1e3, true]", [64, "abc", 1000.0, True]),
        ("[a.py]", ["a.py"]),
        ("[64, [abc]]", "[64, [abc]]"),
        ("['a', b]", "['a', b]"),
        ("[a,,b]", "[a,,b]"),
        ("[", "["),
        ("[]", []),
        ("[1, 2,]", [1, 2]),
    ],
)
def test_items_of_a_list_may_be_bare_words_as_values_may(text, value):
    assert parse_override(f"x={text}") == {"x": value}
