"""What is said of names and values that are not known: misspelt ones, other libraries' and those of another kind."""

import re

import pytest

import fedrax
from fedrax.cli import main
from fedrax.config import COMPONENT_KINDS
from fedrax.describe_keys import all_keys
from fedrax.errors import SOME, FedraxError, near, suggestions
from fedrax.other_names import OTHER_COMPONENTS, OTHER_NAMES, SERVER_OPTIMISERS, plain
from fedrax.registry import options_of
from fedrax.strategies.base import strategies


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "fedpg-br/cartpol"], "(did you mean 'fedpg-br/cartpole'?); allowed: fedpg-br/cartpole and "),
        (["describe", "fedpgbr"], "(did you mean 'fedpg-br'?); allowed: fedpg-br, "),
        (["describe", "quorm"], "(did you mean 'quorum'?)"),
        (["train", "fedpg-br/cartpole", "aggregator=krumm"], "others; all: fedrax describe aggregator"),
        (["train", "fedpg-br/cartpole", "learner.learningrate=1"], "(did you mean 'learning_rate'?); all: "),
        (["train", "fedpg-br/cartpole", "federaton.agents=3"], "unknown key federaton (did you mean 'federation'?)"),
        (["train", "fedpg-br/cartpole", "privacy.eps=3"], "all: fedrax describe privacy"),
    ],
)
def test_an_unknown_name_is_answered_with_a_few_others(arguments, said, capsys):
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.partition("allowed: ")[2].count(",") < SOME


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "fedpg-br/cartpole", "learner.lr=1"], "(did you mean 'learning_rate'?); all: fedrax describe"),
        (["train", "fedpg-br/cartpole", "learner.gamma=1"], "(did you mean 'discount'?)"),
        (["train", "fedpg-br/cartpole", "learner.n_envs=1"], "(did you mean environment.num_envs?)"),
        (["train", "fedpg-br/cartpole", "lr=1"], "unknown key lr (did you mean learner.learning_rate?)"),
        (["train", "fedpg-br/cartpole", "federation.rounds=3"], "(did you mean budget.rounds?)"),
        (["train", "fedpg-br/cartpole", "learner.target_kl=1"], ": learner.target_kl is of learner ppo; all: "),
        (["train", "total_timesteps=9"], "(did you mean budget.steps or budget.steps_per_agent?)"),
        (["train", "MyCart-v0"], "if that is an environment, give environment.id=MyCart-v0 in its place"),
        (["describe", "learner.lr"], "unknown key learner.lr (did you mean 'learning_rate'?)"),
        (["describe", "n_envs"], "(did you mean environment.num_envs?)"),
        (["train", "fedppo/cartpole", "learner.batch_size=64"], "(did you mean 'num_minibatches'?)"),
        (["train", "fedppo/cartpole", "learner=sac-discrete", "learner.minibatch_size=64"], "mean 'batch_size'?"),
        (["train", "fedppo/cartpole", "learner.policy_kwargs=64"], "(did you mean 'hidden' or 'activation'?)"),
        (["train", "fedppo/cartpole", "strategy.min_fit_clients=3"], "(did you mean runtime.flower.quorum or feder"),
        (
            ["train", "fedppo/cartpole", "strategy.min_available_clients=3"],
            "runtime.flower.gather or federation.agents",
        ),
        (["train", "fedppo/cartpole", "strategy.fraction_evaluate=0"], "(did you mean evaluation.every or "),
        (["train", "fedppo/cartpole", "federation.learner=ppo"], "(did you mean learner?)"),
        (["train", "fedppo/cartpole", "learner.activation=ReLU"], "(did you mean 'relu'?)"),
    ],
)
def test_names_of_other_libraries_and_tables_are_answered_with_ours(arguments, said, capsys):
    assert main(arguments) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("strategy=krum", "unknown strategy 'krum': it is an aggregator here; set aggregator=krum"),
        ("attack=krum", "it is an aggregator here; set aggregator=krum"),
        ("learner=fedavg", "it is a strategy here; set strategy=fedavg"),
        ("aggregator=alie", "it is an attack here; set attack=alie"),
        ("compression=PPO", "it is a learner here; set learner=ppo"),
        ("attack=fedformer", "it is a critic and a strategy here; set critic=fedformer or strategy=fedformer"),
        ("strategy.krum.selected=3", "no strategy is called 'krum': it is an aggregator here; set aggregator=krum"),
        ("strategy=FedTrimmedAvg", "set aggregator=trimmed-mean"),
        ("strategy=fedmedian", "set aggregator=median"),
        ("strategy=FedAdam", "; strategy=fedavg has the step's length, strategy.server_learning_rate, "),
        ("strategy=FedAvg", "(did you mean 'fedavg'?); all: fedrax describe strategy"),
        ("learner=PPO", "(did you mean 'ppo'?); all: fedrax describe learner"),
        ("aggregator=TrimmedMean", "(did you mean 'trimmed-mean'?)"),
        ("attack=signflip", "(did you mean 'sign-flipping'?)"),
        ("learner=none", "unknown learner 'none'; allowed: policy-gradient, ppo"),
        ("describe strategy.krum", "unknown name 'strategy.krum': it is an aggregator here; set aggregator=krum"),
        ("describe FedMedian", "(did you mean 'median'?)"),
        ("describe FedYogi", "strategy=fedavg has the step's length"),
        ("describe PPO", "unknown name 'PPO' (did you mean 'ppo'?)"),
    ],
)
def test_a_component_is_answered_with_what_it_is_here(setting, said, capsys):
    words = setting.split() if " " in setting else ["train", "fedppo/cartpole", setting]
    assert main(words) == 1
    assert said in capsys.readouterr().err


def test_others_names_for_components_stand_for_those_that_there_are():
    for setting in OTHER_COMPONENTS.values():
        kind, _, name = setting.partition("=")
        assert name in COMPONENT_KINDS[kind]
    assert all(name == plain(name) for name in (*OTHER_COMPONENTS, *SERVER_OPTIMISERS))
    assert "server_learning_rate" in options_of(strategies["fedavg"])


@pytest.mark.parametrize("name", ["nonsense", "nothing", "learner.nonsense", "learner.nothing"])
def test_what_is_near_nothing_is_answered_with_no_guess(name, capsys):
    assert main(["describe", name]) == 1
    error = capsys.readouterr().err
    assert "did you mean" not in error
    assert re.search(r"; all \d+: fedrax (list and fedrax describe TABLE|describe learner)$", error.strip())


def test_other_libraries_names_stand_for_keys_that_there_are():
    keys = {*all_keys(), *COMPONENT_KINDS}
    assert {key for meant in OTHER_NAMES.values() for key in meant} <= keys
    assert all(name == plain(name) for name in OTHER_NAMES)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seed", "3"], "unrecognized arguments: --seed 3; settings are given as seed=3"),
        (["--learning-rate=0.1", "--rounds", "5"], "settings are given as learner.learning_rate=0.1, budget.rounds=5"),
        (["--nonsense"], "unrecognized arguments: --nonsense; fedrax train --help shows all\n"),
        (["--quite"], "unrecognized arguments: --quite (did you mean --quiet?); fedrax train --help shows all\n"),
        (["--learner.gamma", "1"], "settings are given as learner.discount=1; fedrax"),
        (["--device", "cuda", "--gpu", "--seed", "3"], "settings are given as seed=3; no setting has the device: JAX"),
        (["--learner", "ppo"], "settings are given as learner=ppo; fedrax train --help shows all\n"),
        (["--non\nsense", "a\x1bb"], "unrecognized arguments: --non\\nsense a\\x1bb; fedrax "),
    ],
)
def test_an_option_that_is_a_setting_is_answered_with_that(arguments, said, capsys):
    with pytest.raises(SystemExit):
        main(["train", "fedpg-br/cartpole", *arguments])
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("learner.learning_rate=abc", "learner.learning_rate = 'abc' is not allowed: it must be a number, at least 0"),
        ("learner.discount=abc", "it must be a number between 0 and 1"),
        (
            "runtime.flower.max_norm=abc",
            "max_norm = 'abc' is not allowed: it must be a number or 'adaptive'",
        ),
        ("seeds=1.5", "seeds = 1.5 is not allowed: it must be an integer"),
        ("evaluation.greedy=abc", "it must be true or false"),
        ("budget.rounds=-1", "it must be greater than 0"),
        ("privacy.bits=3", "it must be at least 8"),
        ("name=3", "it must be text"),
        ("learner.initial=3", "it must be text or none"),
        ("runtime.kind=x", "it must be 'simulation' or 'flower'"),
        ("learner.hidden=[64,abc]", "item 2 of learner.hidden = 'abc' is not allowed: it must be an integer"),
        ("learner.hidden=[[64],1]", "item 1 of learner.hidden = [64] is not allowed: it must be an integer"),
        ("learner.hidden=[64,1.5]", "item 2 of learner.hidden = 1.5 is not allowed: it must be an integer"),
        ("learner.hidden=[64,0]", "item 2 of learner.hidden = 0 is not allowed: it must be at least 1"),
        ("learner.hidden=64", "learner.hidden = 64 is not allowed: it must be a list, written [64]"),
        ("learner.hidden=64,32", "it must be a list, written [64, 32]"),
        ("learner.hidden=(64, 32)", "it must be a list, written [64, 32]"),
        ("learner.hidden=abc", "learner.hidden = 'abc' is not allowed: it must be a list of integers"),
        ("learner.hidden=[64,", "it must be a list of integers"),
    ],
)
def test_a_value_of_the_wrong_type_is_answered_with_what_is_allowed(change, said, capsys):
    assert main(["train", "fedpg-br/cartpole", change]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("bounds", ["[]", "[-1.0]", "[1e400]", "[-3.0, 0.0, 1.0]"])
def test_a_list_of_the_wrong_length_is_answered_with_how_many_it_has(bounds, capsys):
    assert main(["train", "fedformer/point-reach", f"learner.deviation_bounds={bounds}"]) == 1
    said = capsys.readouterr().err
    assert "learner.deviation_bounds" in said
    assert "is not allowed: it must have 2 items" in said


@pytest.mark.parametrize(
    ("name", "allowed", "found"),
    [
        ("nonsense", ["none"], []),
        ("learner.lr", ["learner.tau"], []),
        ("trian", ["train", "render"], ["train"]),
        ("eps", ["epsilon", "delta"], ["epsilon"]),
        ("lr", ["to", "rl"], []),
        ("pht", ["npz", "pth"], ["pth"]),
        ("CartPole", ["CartPole-v0", "CartPole-v1", "Acrobot-v1"], ["CartPole-v1", "CartPole-v0"]),
        ("alias", ["alie", "label-flip"], ["alie"]),
        ("tde", ["ppo", "td3"], ["td3"]),
        ("anlge", ["angle"], ["angle"]),
        ("learnrate", ["learning_rate"], ["learning_rate"]),
        ("nothing", ["smoothing", "encoding", "none"], []),
        ("target", ["agent", "start"], []),
        ("rkum", ["krum"], ["krum"]),
        ("PPO", ["ppo", "sac"], ["ppo"]),
        ("ReLU", ["relu", "tanh"], ["relu"]),
    ],
)
def test_near_is_what_a_slip_of_the_pen_makes(name, allowed, found):
    assert near(name, allowed) == found


@pytest.mark.parametrize("path", ["no\nrun", "no\r\x1b[1mrun", "no\u2028run"])
def test_an_error_is_one_line_whatever_it_quotes(path):
    with pytest.raises(FedraxError) as error:
        fedrax.load(path)
    assert str(error.value).isprintable()
    assert str(error.value).startswith("there is no run at no\\")


@pytest.mark.parametrize(
    ("name", "meant", "others"),
    [
        ("cartpole", "CartPole-v1", {"CartPole-v1", "ContinuousCartPole-v0"}),
        ("CartPole", "CartPole-v1", {"CartPole-v1", "ContinuousCartPole-v0"}),
        ("pendulum", "Pendulum-v1", {"Pendulum-v1"}),
        ("hopper", "Hopper-v5", {"Hopper-v5", "Hopper-v4", "Hopper-v3", "Hopper-v2"}),
        ("krumm", "krum", {"krum"}),
    ],
)
def test_a_name_is_answered_with_what_is_like_it_and_nothing_else(name, meant, others, capsys):
    assert main(["describe", name]) == 1
    error = capsys.readouterr().err
    assert f"(did you mean '{meant}'?)" in error
    listed = error.partition("allowed: ")[2].partition(" and ")[0].split(", ")
    found = {each for each in listed if f"/{name.lower()}" not in each}
    assert others <= found
    # Other tests register environments of their own.
    assert all(name.lower() in each.lower() for each in found - others)


def test_few_names_are_all_listed_and_of_many_the_near_ones():
    assert suggestions("b", ["c", "a"]) == "; allowed: a, c"
    many = [f"key_{number}" for number in range(50)]
    assert suggestions("key_7", [*many, "key7"], "fedrax list").endswith("others; all: fedrax list")
    assert suggestions("zzz", many) == "; there are 50, such as key_0, key_1, key_10"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"\ud800": 1}, r"unknown key \ud800; all "),
        ({"budget.\ud800": 1}, r"unknown key budget.\ud800; allowed: rounds, "),
        ({"name": "\ud800"}, r"name = '\ud800' is not allowed: it must be text"),
        ({"seed": None}, "seed = none is not allowed: it must be an integer"),
        ({"learner.discount": None}, "learner.discount = none is not allowed"),
        ({"ppo": {"clip": 3}}, "unknown key ppo.clip: options of learner ppo are given as learner.KEY (did you mean "),
        (["ppo.clip=3"], "(did you mean learner=ppo and learner.clip_coefficient?); all: fedrax describe ppo"),
        (["learner=ppo", "ppo.clip=3"], "(did you mean learner.clip_coefficient?); all: fedrax describe ppo"),
        (["krum.f=3"], "unknown key krum.f: options of aggregator krum are given as aggregator.KEY; all: "),
        (["'seed'=3"], "is not of the form key=value: leave out the quotes, seed=3"),
        (["'seed=3'"], "leave out the quotes, seed=3"),
        (['"learner"."discount"=0.5'], "leave out the quotes, learner.discount=0.5"),
    ],
)
def test_what_is_said_of_a_setting_is_of_what_was_given(overrides, said):
    with pytest.raises(FedraxError) as error:
        fedrax.resolve("fedpg-br/cartpole", overrides)
    assert said in str(error.value)
