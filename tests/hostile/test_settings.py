"""Whatever an option is set to, ``fedrax describe`` shows a configuration that reads back, or one line says why not."""

import contextlib
import functools
import tomllib

import hypothesis
import hypothesis.strategies as some
import pytest
from told import many, status_of
from values import FITTING, settings

from fedrax.cli import main
from fedrax.config import Config, resolve
from fedrax.errors import FedraxError
from fedrax.runtime.make import make_runtime

COMMON = ["federation.agents=4", "budget.rounds=1"]
EXAMPLES, MORE = 3000, 30_000
ALL = settings()


@functools.cache
def fitting(under):
    """What a setting's component can run with, and needs; as the registries are, so asked once."""
    own = {word.partition("=")[0] for word in under}
    for others in FITTING:
        beside = [word for word in others if word.partition("=")[0] not in own]
        with contextlib.suppress(FedraxError):
            make_runtime(resolve({}, [*COMMON, *beside, *under])).close()
            return (*beside, *under)
    return (*FITTING[0], *under)


SETTING = some.sampled_from(ALL).flatmap(
    lambda setting: some.tuples(
        some.just(setting),
        some.one_of(
            some.sampled_from(setting.values),
            some.sampled_from(setting.values),
            some.integers().map(str),
            some.floats().map(str),
            some.text(max_size=20),
        ),
    )
)


def check_many(count, capsys):
    tried = {0: 0, 1: 0, 2: 0}

    @many(count)
    @hypothesis.given(SETTING)
    def anything(given):
        setting, value = given
        status = status_of(["describe", *COMMON, *fitting(setting.under), f"{setting.key}={value}"], capsys)
        tried[status] += 1

    anything()
    with capsys.disabled():
        print(f" {sum(tried.values())} inputs tried, {tried[0]} of them are configurations ", end="")
    assert sum(tried.values()) >= count
    # Were everything refused for another reason, nothing would have been tried.
    assert tried[0] > count / 20


def test_any_value_of_any_option_is_a_configuration_or_one_clear_line(capsys):
    check_many(EXAMPLES, capsys)


@pytest.mark.slow
def test_many_more_values(capsys):
    check_many(MORE, capsys)


def test_every_option_is_among_those_tried():
    keys = {setting.key for setting in ALL}
    assert {"seed", "environment.horizon", "runtime.flower.quorum", "learner.learning_rate", "attack.z"} <= keys
    assert len(keys) > 250


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["learner.learning_rate=true"], "learner.learning_rate = True is not allowed: it must be a number"),
        (["federation.agents=true"], "federation.agents = True is not allowed: it must be a number"),
        (["environment.native=1"], "environment.native = 1 is not allowed: it must be true or false"),
        (["runtime.flower.gather=nan"], "runtime.flower.gather = nan is not allowed"),
        (["learner.learning_rate=inf"], "it must be a finite number"),
        (["agents=3"], "unknown key agents (did you mean federation.agents or attack.agents?)"),
        (["federation=3"], "federation = 3 is not allowed: it is a table; set its keys one by one"),
        (["learner.hidden=3"], "learner.hidden = 3 is not allowed: it must be a list"),
        (["environment.heterogeneity.length=-1"], "length = -1 is not allowed: it must be above 0"),
        (["environment.heterogeneity.masscart=0"], "masscart = 0 is not allowed: it must be above 0"),
        (["environment.heterogeneity.gravity=1e30"], "it must be at least -1e+12 and at most 1e+12"),
        (["environment.heterogeneity.gravity=1" + "0" * 400], "give a finite number"),
        (["evaluation.episodes=2000000000"], "at most 1000000"),
        (["environment.threads=100000"], "at most 1024"),
        (['name="a\\u0000b"'], "one line of printable characters"),
        (["name=" + "n" * 300], "at most 200 characters"),
        (["seed=" + "[" * 3000 + "]" * 3000], "seed = "),
        (["strategy.kind=5"], "strategy.kind = 5 is not allowed"),
        (["strategy.kind=[]"], "strategy.kind = [] is not allowed"),
        (["strategy=fedavg", 'strategy.average=["x"]'], "unknown strategy.average 'x'"),
        (["learner.initial=nowhere"], "nowhere"),
        ([f"learner.hidden={[1] * 2000}"], "it must have at most 64 items"),
        (["plugins=/"], "no .py file and no module's name"),
    ],
)
def test_values_that_were_taken_once(words, said, capsys):
    assert main(["describe", "fedpg-br/cartpole", *words]) == 1
    assert said in capsys.readouterr().err


def test_a_name_stands_for_its_table_in_files_as_on_the_command_line(tmp_path):
    file = tmp_path / "short.toml"
    file.write_text('environment = "Pendulum-v1"\nlearner = "ppo"\nstrategy = "fedavg"\n[budget]\nrounds = 1\n')
    config = resolve(file, ["environment.num_envs=3"])
    assert (config.environment.id, config.environment.num_envs) == ("Pendulum-v1", 3)
    assert (config.learner["kind"], config.strategy["kind"]) == ("ppo", "fedavg")


def test_settings_alone_may_be_longer_than_a_files_name(capsys):
    assert main(["describe", f"learner.hidden={[1] * 2000}", "budget.rounds=1"]) == 1
    assert "it must have at most 64 items" in capsys.readouterr().err


def test_an_argument_is_not_taken_for_a_longer_one(capsys):
    with pytest.raises(SystemExit):
        main(["train", "fedpg-br/cartpole", "--seed", "3"])
    assert "unrecognized arguments: --seed 3" in capsys.readouterr().err


def test_a_described_configuration_reads_back(capsys):
    assert main(["describe", "fedtd3/pendulum", "federation.agents=3"]) == 0
    tables = tomllib.loads(capsys.readouterr().out)
    assert resolve(tables) == resolve("fedtd3/pendulum", ["federation.agents=3"])
    assert set(tables) <= set(Config.model_fields)
