"""The table ``privacy``: what it allows, and that runs without it stay the experiments they were."""

import json
import shutil
from pathlib import Path

import pytest

import fedrax
from fedrax.config import resolve
from fedrax.errors import FedraxError
from fedrax.records.rundir import RunDirectory
from fedrax.runtime.continuation import configuration, continued

EARLIER = Path(__file__).parents[1] / "earlier" / "fedavg"


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (["privacy.secure_sum=true"], "privacy.secure_sum needs a bound on updates: set privacy.clip"),
        (["privacy.clip=0"], "privacy.clip = 0 is not allowed"),
        (["privacy.bits=7"], "privacy.bits = 7 is not allowed"),
        (["privacy.bits=31"], "privacy.bits = 31 is not allowed"),
        (["privacy.threshold=0.5"], "privacy.threshold = 0.5 is not allowed"),
        (["privacy.threshold=1.1"], "privacy.threshold = 1.1 is not allowed"),
    ],
)
def test_what_makes_no_secure_sum_is_refused_in_one_line(settings, why):
    with pytest.raises(FedraxError, match=why):
        resolve("fedpg-br/cartpole", settings)


def test_the_default_table_is_no_part_of_what_an_experiment_is():
    """The digest is that of the version before there was the table."""
    config = resolve("fedpg-br/cartpole")
    assert config.digest() == "57c0114761a9"
    assert resolve("fedpg-br/cartpole", ["privacy.clip=1"]).digest() != config.digest()
    assert resolve("fedpg-br/cartpole", ["privacy.bits=none"]).digest() == config.digest()
    assert resolve("fedpg-br/cartpole", ["runtime.compiling=quick"]).digest() == config.digest()


def test_a_run_that_was_recorded_without_the_table_goes_on(tmp_path):
    shutil.copytree(EARLIER, tmp_path / "run")
    directory = RunDirectory.open(tmp_path / "run")
    assert "privacy" not in directory.config.read_text()
    assert configuration(directory).privacy.secure_sum is False
    config, said = continued(directory)
    assert (config.privacy.clip, said) == (None, "")
    with pytest.raises(FedraxError, match=r"privacy\.clip = 1\.0 would make .* another experiment"):
        continued(directory, ["privacy.clip=1"])


@pytest.mark.training
def test_a_simulation_says_that_it_masks_nothing(tmp_path):
    settings = ["strategy=gpomdp", "strategy.batch=1", "environment.horizon=5", "budget.trajectories=none"]
    settings += ["budget.rounds=1", "federation.agents=3", "attack=none", "attack.agents=0", "evaluation.episodes=1"]
    for secure in (True, False):
        more = [f"privacy.secure_sum={str(secure).lower()}", "privacy.clip=1"]
        fedrax.train("fedpg-br/cartpole", [*settings, *more], out=tmp_path / str(secure), progress=False)
        manifest = json.loads((tmp_path / str(secure) / "manifest.json").read_text())
        assert manifest.get("secure_sum") == ("simulated: quantised sum, no cryptography" if secure else None)
