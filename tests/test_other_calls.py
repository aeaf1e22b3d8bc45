"""What is said of functions, attributes, arguments and commands that other libraries have."""

import copy
import pickle
import re

import pytest

import fedrax
from fedrax.acting import TrainedPolicy
from fedrax.cli import COMMANDS as OURS
from fedrax.cli import main
from fedrax.config import Config
from fedrax.errors import FedraxError
from fedrax.listing import listed
from fedrax.other_calls import ARGUMENTS, COMMANDS, OF_A_POLICY, OF_A_RUN, OF_FEDRAX, package_hint
from fedrax.other_names import plain
from fedrax.run import Run


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("predict", "; run.policy() is a policy that acts: run.policy()(observation)"),
        ("model", "run.policy()(observation)"),
        ("learn", "fedrax.resume(run.path, ...)"),
        ("save", "fedrax export RUN --to onnx"),
        ("plot", "run.figure() draws"),
        ("history", "run.metrics() has a row"),
        ("evaluate_policy", "run.evaluate(episodes=100)"),
        ("sumary", " (did you mean 'summary'?)"),
    ],
)
def test_attributes_that_runs_have_elsewhere_are_answered(name, said):
    run = Run.__new__(Run)
    with pytest.raises(AttributeError) as error:
        getattr(run, name)
    assert str(error.value).startswith(f"'Run' object has no attribute {name!r}")
    assert said in str(error.value)


def test_attributes_that_policies_have_elsewhere_are_answered():
    with pytest.raises(AttributeError, match=r"no attribute 'predict'; a policy is called: policy\(observation\)"):
        TrainedPolicy.__new__(TrainedPolicy).predict  # noqa: B018


@pytest.mark.parametrize("kind", [Run, TrainedPolicy])
def test_who_looks_whether_an_attribute_is_there_is_told_that_it_is_not(kind):
    thing = kind.__new__(kind)
    assert not hasattr(thing, "predict")
    assert not hasattr(thing, "_repr_png_")
    assert getattr(thing, "learn", None) is None
    with pytest.raises(AttributeError, match=r"no attribute '_repr_mimebundle_'$"):
        thing._repr_mimebundle_  # noqa: B018
    thing.path = "a path"
    assert vars(copy.deepcopy(thing)) == vars(copy.copy(thing)) == {"path": "a path"}
    assert pickle.loads(pickle.dumps(thing)).path == "a path"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("PPO", "; it is a learner here; set learner=ppo, as in fedrax.train(SOURCE, ['learner=ppo'])"),
        ("TD3", "set learner=td3"),
        ("SAC", "set learner=sac,"),
        ("DQN", "set learner=sac-discrete or learner=ppo"),
        ("FedAvg", "set strategy=fedavg"),
        ("make", "environment.id=CartPole-v1"),
        ("list", "fedrax.presets() has the presets"),
        ("evaluate_policy", "fedrax.load(RUN).evaluate(episodes=100)"),
        ("load_model", "fedrax.load(RUN) reads"),
        ("trian", " (did you mean 'train'?)"),
        ("frame", "; a run has it: fedrax.load(RUN).frame"),
        ("reproduce", "; that is a command: fedrax reproduce FIGURE (fedrax reproduce --help)"),
    ],
)
def test_functions_and_classes_of_other_libraries_are_answered(name, said):
    assert not hasattr(fedrax, name)
    with pytest.raises(AttributeError, match=f"module 'fedrax' has no attribute '{name}'") as error:
        getattr(fedrax, name)
    assert said in str(error.value)


def test_answers_are_of_names_that_there_are_not_and_in_names_that_there_are():
    for table, owner in ((OF_A_RUN, Run), (OF_A_POLICY, TrainedPolicy), (OF_FEDRAX, fedrax)):
        for name, way in table.items():
            assert name == plain(name)
            for called in re.findall(r"fedrax\.([a-z]+)\(", way):
                assert called in fedrax.__all__
            for called in re.findall(r"run\.([a-z_]+)\(", way):
                assert hasattr(Run, called)
            for command in re.findall(r"fedrax ([a-z]+)", way):
                assert command in OURS
        assert not set(table) & set(owner.__all__ if owner is fedrax else vars(owner))
    assert all(name == plain(name) and name not in OURS for name in COMMANDS)
    assert {command for command, _ in COMMANDS.values()} <= set(OURS)
    assert all(name == plain(name) for name in ARGUMENTS)


@pytest.mark.parametrize(
    ("function", "given", "said"),
    [
        (Run.evaluate, {"n_eval_episodes": 3}, "has no argument 'n_eval_episodes' (did you mean 'episodes'?); Run.ev"),
        (Run.evaluate, {"seed": 3}, "(did you mean 'evaluation_seed'?)"),
        (Run.policy, {"seeds": 3}, "(did you mean 'seed'?)"),
        (Run.policy, {"greedy": True}, "(did you mean 'deterministic'?)"),
        (fedrax.load, {"model": "x"}, "(did you mean 'path'?)"),
    ],
)
def test_arguments_of_other_libraries_are_answered_with_ours(function, given, said):
    with pytest.raises(FedraxError) as error:
        function(**given)
    assert said in str(error.value)


@pytest.mark.parametrize("name", ["report", "render", "export", "watch", "deploy"])
def test_names_of_commands_are_answered_with_the_command(name):
    # Packages of these names may be imported by now, and are then attributes.
    assert f"; that is a command: fedrax {name} " in package_hint(name, fedrax.__all__)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"budget": 3}, "'budget'; budget is a table of settings, which go into overrides (fedrax describe budget); "),
        ({"budget": {"rounds": 3}}, 'overrides=["budget.rounds=3"]'),
        ({"learner": {"kind": "ppo", "lr": 0.1}}, 'overrides=["learner.kind=ppo", "learner.learning_rate=0.1"]'),
        ({"policy_kwargs": {"net_arch": [64]}}, 'overrides=["learner.hidden=[64]"]'),
        ({"learner": "ppo"}, 'overrides=["learner=ppo"]'),
    ],
)
def test_tables_given_as_arguments_are_answered_with_their_settings(arguments, said):
    for function in (fedrax.resume, fedrax.train):
        with pytest.raises(FedraxError) as error:
            function("x", **arguments)
        assert said in str(error.value)


def test_arguments_that_a_sweeps_file_says_are_answered_with_it():
    with pytest.raises(
        FedraxError, match=r"sweep has no argument 'seeds'; what a sweep runs.* \(fedrax describe sweep"
    ):
        fedrax.sweep("x", seeds=1)
    with pytest.raises(FedraxError, match="presets takes nothing by position, not 1 value"):
        fedrax.presets(3)


def test_of_a_setting_given_as_an_argument_that_alone_is_said():
    with pytest.raises(FedraxError) as error:
        fedrax.train("fedpg-br/cartpole", seed=3)
    assert str(error.value) == "train has no argument 'seed'; settings go into overrides: overrides=[\"seed=3\"]"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train fedppo/cartpole algo=ppo", "unknown key algo: ppo is a learner here; set learner=ppo"),
        ("train fedppo/cartpole model=sac", "unknown key model: sac is a learner here; set learner=sac"),
        ("train fedppo/cartpole algo=fedavg", "unknown key algo: fedavg is a strategy here; set strategy=fedavg"),
        ("train fedppo/cartpole agent_class=mine", "agent_class (did you mean 'learner' or 'strategy'?); all: fedrax"),
        ("train fedppo/cartpole policy=mlp", "unknown key policy: the policy's network fits the environment"),
        ("train fedppo/cartpole learner=dqn", "unknown learner 'dqn': no learner here learns action values alone; of "),
        ("train ppo", "'ppo': it is a learner here; set learner=ppo in its place, or after a preset or a file"),
        ("train ppo CartPole-v1", "form key=value; give settings: learner=ppo environment.id=CartPole-v1"),
        ("train CartPole-v1 ppo", "form key=value; give settings: environment.id=CartPole-v1 learner=ppo"),
        (
            "train fedppo/cartpole Acrobot-v1",
            "; if that is what it names, give environment.id=Acrobot-v1",
        ),
        ("train fedppo/cartpole krum", "form key=value; if that is what it names, give aggregator=krum"),
        ("train fedppo/cartpole nothing", "'nothing' is not of the form key=value, for example federation.agents=20"),
    ],
)
def test_components_and_environments_in_other_places_are_answered_with_their_settings(words, said, capsys):
    assert main(words.split()) == 1
    assert said in capsys.readouterr().err


def test_python_is_answered_as_the_command_line_is():
    with pytest.raises(FedraxError, match="it is a learner here; set learner=ppo in its place"):
        fedrax.resolve("ppo")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("run X", "unknown command 'run' (did you mean 'train', which trains a preset or a file?); fedrax --help"),
        ("plot X", "(did you mean 'report', which "),
        ("start", "(did you mean 'server', which "),
        ("test X", "(did you mean 'evaluate', which "),
        ("eval X", "(did you mean 'evaluate', which "),
        ("tune X", "(did you mean 'sweep', which "),
        ("train --algo ppo", "settings are given as learner=ppo; "),
    ],
)
def test_commands_and_options_of_other_tools_are_answered_with_ours(words, said, capsys):
    with pytest.raises(SystemExit):
        main(words.split())
    assert said in capsys.readouterr().err


def test_the_list_that_errors_point_to_has_every_key_that_is_allowed():
    last = listed().splitlines()[-1]
    assert Config.model_fields.keys() <= set(re.findall(r"\w+", last))
