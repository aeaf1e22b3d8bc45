"""The command, its file and its part of a report, on a run as small as one can be."""

import json

import pytest

import fedrax
from fedrax.audit.auditing import LEAKS, chosen_leaks
from fedrax.audit.base import Effort
from fedrax.audit.setting import last_state, made_setting
from fedrax.audit.variants import variants
from fedrax.cli import main
from fedrax.errors import FedraxError
from fedrax.report.html import write_report

from audited import AGENT, CARTPOLE, TRAJECTORY, configured

pytestmark = pytest.mark.training
FEW = ["--repetitions", "100", "--quiet"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "small"
    return fedrax.train({}, [*CARTPOLE, *TRAJECTORY, "privacy.noise=2"], out=out, progress=False)


def test_the_command_prints_what_it_writes(run, capsys):
    assert main(["audit", str(run.path), "--attacks", "A1,A4,A5", *FEW]) == 0
    out = capsys.readouterr().out
    record = json.loads((run.path / "audit.json").read_text())
    assert record["rounds"] == 4
    (setup,) = record["setups"]
    assert list(setup["attacks"]) == list(record["attacks"]) == ["A1", "A4", "A5"]
    answers = setup["attacks"]["A1"]["answers"]
    assert answers["epsilon_claimed"] == pytest.approx(4.3772, abs=1e-3)
    for words in ("guarantee    epsilon 4.38", "A1  was this trajectory", f"AUC {answers['auc']:.3g}", "claimed 4.38"):
        assert words in out, out
    assert "does not apply: environments do not differ" in out


def test_other_protections_are_beside_it_and_in_the_report(run, tmp_path, capsys):
    assert main(["audit", str(run.path), "--attacks", "A1", "--against", *FEW]) == 0
    out = capsys.readouterr().out
    record = json.loads((run.path / "audit.json").read_text())
    names = [setup["name"] for setup in record["setups"]]
    assert names[:7] == ["as run", "none", "clip", "noise 0.5", "noise 1", "noise 2", "secure sum"]
    areas = {setup["name"]: setup["attacks"]["A1"]["answers"]["auc"] for setup in record["setups"]}
    assert areas["none"] == areas["clip"] == 1.0
    assert areas["noise 0.5"] > areas["noise 2"]
    assert all(f"\n{name} " in out for name in names)
    page = write_report([run.path], tmp_path / "report.html").read_text()
    for words in ("What is guaranteed of privacy", "epsilon 4.38", "What attacks on messages find", "secure sum"):
        assert words in page
    final = f"{run.summary()['final_return']:.4g}"
    # The run has the setup's own protection, and no other.
    assert f"<td>{final}</td></tr><tr><td>none</td>" in page


def test_the_attacked_networks_are_the_runs_last(run):
    state = last_state(run.config, run.directory)
    setting = made_setting(run.config, state)
    assert setting.rounds == 4
    before = made_setting(run.config)
    assert before.rounds == 0
    policy = fedrax.load(run.path).policies()[0]
    assert (policy.layers[0].weight == setting.downlink.params.layers[0].weight).all()
    assert not (policy.layers[0].weight == before.downlink.params.layers[0].weight).all()


def test_what_is_refused_is_said(run, capsys):
    with pytest.raises(FedraxError, match=r"unknown attack of an audit 'A9'.*allowed: A1, A2"):
        run.audit(attacks=["A9"])
    assert main(["audit", str(run.path), "--repetitions", "5"]) == 1
    assert "--repetitions 5 is not allowed: it must be between 100" in capsys.readouterr().err
    assert chosen_leaks(["A3", "A1"]) == [LEAKS[0], LEAKS[2]]


def test_protections_that_cannot_be_had_are_named_and_passed_over(tmp_path):
    """A rule that compares updates knows no sum."""
    settings = [*CARTPOLE, "aggregator=krum", "attack=none", "federation.agents=5"]
    run = fedrax.train({}, settings, out=tmp_path / "run", progress=False)
    record = run.audit(attacks=["A2"], effort=Effort(repetitions=100), against=True)
    refused = {setup["name"]: setup["refused"] for setup in record["setups"] if "refused" in setup}
    assert set(refused) == {"noise 0.5", "noise 1", "noise 2", "secure sum"}
    assert all("aggregator=mean" in why for why in refused.values())


def test_variants_bound_what_the_run_can_have():
    def units(*overrides):
        return {word for each in variants(configured(*overrides)) for word in each.overrides if "unit" in word}

    assert units() == {"privacy.unit=trajectory"}
    assert units(*AGENT) == {"privacy.unit=agent"}
    assert units("learner.normalisation=steps") == {"privacy.unit=agent"}
