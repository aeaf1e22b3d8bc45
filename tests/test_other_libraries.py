"""What is said of settings that other libraries have: what they are in this configuration, or how it is done here."""

import re

import pytest

from fedrax import names
from fedrax.cli import main
from fedrax.config import COMPONENT_KINDS
from fedrax.describe_keys import all_keys
from fedrax.errors import FedraxError
from fedrax.loggers.base import loggers
from fedrax.other_names import OTHER_NAMES, OTHER_WAYS, other_way, plain, unknown_key
from fedrax.registry import options_of

OF_OFF_POLICY = "is of learner sac, sac-discrete or td3"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("learner.batch_size=3", "'policy-gradient' (did you mean strategy.batch_min or strategy.batch_max?)"),
        ("strategy=svrpg learner.batch_size=3", "'policy-gradient' (did you mean strategy.batch?)"),
        ("batch_size=3", "unknown key batch_size (did you mean strategy.batch_min or strategy.batch_max?)"),
        ("learner.buffer_size=3", f"'policy-gradient': learner.buffer_size {OF_OFF_POLICY}; all: fedrax describe pol"),
        ("buffer_size=3", f"unknown key buffer_size: learner.buffer_size {OF_OFF_POLICY}"),
        ("learner=td3 strategy=fedavg replay_size=3", "unknown key replay_size (did you mean learner.buffer_size?)"),
        ("aggregator.mu=3", "strategy.proximal is of strategy fedprox"),
        ("federation.mu=3", "unknown key federation.mu: strategy.proximal is of strategy fedprox"),
        ("strategy.discount=1", "of strategy 'fedpg-br' (did you mean learner.discount?)"),
        ("train_freq=4", "learner.num_steps is of learner ppo, sac, sac-discrete or td3"),
        ("dp.noise_multiplier=1", "unknown key dp.noise_multiplier (did you mean privacy.noise?)"),
        ("optimizer.lr=3", "unknown key optimizer.lr (did you mean learner.learning_rate?)"),
        ("policy_kwargs.net_arch=[64]", "unknown key policy_kwargs.net_arch (did you mean learner.hidden?)"),
        ("learner.policy_kwargs.net_arch=[64]", "key learner.policy_kwargs.net_arch of learner 'policy-gradient' (did"),
        ("learner.policy_kwargs.net_arch=[64]", "(did you mean 'hidden'?)"),
        ("learner.policy_kwargs.log_std_init=1", "(did you mean 'hidden' or 'activation'?)"),
        ("learner.foo.bar=3", "no learner is called 'foo'; allowed: policy-gradient, "),
        ("learner.ppoo.discount=1", "no learner is called 'ppoo'"),
        ("foo.bar=3", "unknown key foo; all "),
    ],
)
def test_a_key_is_proposed_that_the_configuration_has_or_said_to_be_of_another_component(settings, said, capsys):
    assert main(["describe", "fedpg-br/cartpole", *settings.split()]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        *((f"{key}=0", "JAX_PLATFORMS") for key in ("device", "cuda", "gpu", "learner.device", "runtime.num_gpus")),
        ("tensorboard_log=x", "the run's folder by themselves; records.loggers"),
        ("verbose=1", "give a command --quiet, or a function of Python progress=False"),
        ("progress_bar=true", "--quiet"),
        ("policy=MlpPolicy", "its layers are learner.hidden, or learner.actor_layers of sac and td3"),
        ("wandb_project=x", "records.loggers.wandb.project"),
        ("wandb.project=x", "records.loggers.wandb.project"),
        ("log_dir=x", "--out DIR"),
        ("dp.mechanism=gaussian", "fedrax describe privacy"),
        ("torch_deterministic=true", "set seed"),
    ],
)
def test_what_is_no_setting_here_is_answered_with_how_it_is_done(setting, said, capsys):
    key = setting.partition("=")[0]
    for words in (["fedpg-br/cartpole", setting], [key]):
        assert main(["describe", *words]) == 1
        assert said in capsys.readouterr().err


def test_ways_are_told_in_names_that_there_are():
    keys = {*all_keys(), "records.loggers"}
    keys |= {f"records.loggers.{name}.{key}" for name in loggers for key in options_of(loggers[name])}
    for name, way in OTHER_WAYS.items():
        assert name == plain(name)
        assert name not in OTHER_NAMES
        assert set(re.findall(r"[a-z_]+(?:\.[a-z_]+)+", way)) <= keys
    assert other_way("learner.Device") == OTHER_WAYS["device"]
    assert not other_way("learner.discount")


def test_owners_are_read_from_the_source_as_they_are_registered():
    for kind, registry in COMPONENT_KINDS.items():
        owners: dict[str, list[str]] = {}
        # Other tests register components of their own.
        for name in sorted(set(registry) & names.components()[names.plural(kind)].keys()):
            for option in options_of(registry[name]):
                owners.setdefault(option, []).append(name)
        assert names.owners(kind) == owners


def test_without_a_configuration_keys_of_every_component_are_proposed():
    assert "did you mean learner.buffer_size?" in str(unknown_key("memory_size", ["seed"]))
    error = unknown_key("memory_size", ["seed"], among=[])
    assert isinstance(error, FedraxError)
    assert "did you mean" not in str(error)
