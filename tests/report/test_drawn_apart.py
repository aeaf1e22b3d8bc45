"""One seed in different draws of the agents' environments is never compared in silence."""

import json

import pytest

from fedrax.cli import main
from fedrax.report.draws import drawn_apart
from fedrax.report.html import write_report
from fedrax.report.runs import Group, History, Run, group_runs, load_runs

LOW, HIGH = [{"length": 0.5}, {"length": 0.6}], [{"length": 0.9}, {"length": 1.0}]


def trained(name, first, seeds, *draws, **environment):
    histories = tuple(History(seed, ({"round": 0, "return": 1.0},), 2) for seed in seeds)
    table = {"id": "CartPole-v1", "heterogeneity": {"length": {"distribution": "uniform"}}, **environment}
    return Run(name, {"seed": first, "environment": table}, {"draws": list(draws)}, {}, histories)


def said(**groups):
    return drawn_apart([Group(label, (run,)) for label, run in groups.items()])


@pytest.fixture(autouse=True)
def names(monkeypatch):
    """Runs without folders are called as their groups."""
    monkeypatch.setattr("fedrax.report.draws.named_runs", lambda groups: [(g.label, r) for g in groups for r in g.runs])


REMEDY = (
    ": what is drawn follows from a run's first seed, so train these runs with the same `seed`, or give the values as "
    "a list."
)


def test_a_seed_in_two_draws_is_named_with_its_runs():
    together, alone = trained("a", 0, (0, 1), LOW), trained("b", 1, (1,), HIGH)
    assert said(a=together, b=alone) == f"Seed 1 did not act in the same environments in a as in b{REMEDY}"
    again = trained("c", 1, (1, 2), HIGH)
    later = trained("d", 2, (2,), LOW)
    assert (
        said(a=together, b=alone, c=again) == f"Seed 1 did not act in the same environments in a as in b and c{REMEDY}"
    )
    assert said(a=together, c=again, d=later) == (
        f"Seed 1 did not act in the same environments in a as in c; seed 2 did not act in the same environments in c "
        f"as in d{REMEDY}"
    )
    twice = trained("e", 0, (1, 2), LOW)
    assert said(e=twice, c=again) == f"Seeds 1, 2 did not act in the same environments in e as in c{REMEDY}"


def test_of_many_runs_the_first_are_named():
    others = {name: trained(name, 1, (1,), HIGH) for name in "bcdef"}
    assert "in a as in b and c and d ...: what" in said(a=trained("a", 0, (0, 1), LOW), **others)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        # The setups of a sweep: one run for each seed.
        (trained("a", 1, (1,), HIGH), trained("b", 1, (1,), HIGH)),
        # No seed in common.
        (trained("a", 0, (0, 1), LOW), trained("b", 2, (2,), HIGH)),
        # Lists are the same whatever the seed.
        (trained("a", 0, (0, 1), LOW), trained("b", 1, (1,), LOW)),
        # Seeds take several draws in turn.
        (trained("a", 0, (0, 1), LOW, HIGH), trained("b", 1, (1,), HIGH, LOW)),
        # More agents change no other agent's draw.
        (trained("a", 0, (0, 1), LOW), trained("b", 1, (1,), [*LOW, {"length": 0.7}])),
        # Other environments are what was asked for.
        (trained("a", 0, (0, 1), LOW), trained("b", 1, (1,), HIGH, heterogeneity={"length": [0.9, 1.0]})),
        # Nothing is known of either.
        (trained("a", 0, (0, 1)), trained("b", 1, (1,))),
    ],
)
def test_what_is_in_the_same_draws_or_was_asked_for_has_no_note(first, second):
    assert said(a=first, b=second) == ""


def test_the_page_the_command_and_latex_say_so_also_where_runs_are_merged(write_run, tmp_path, monkeypatch, capsys):
    monkeypatch.undo()
    for name, first, seeds, draw in (("a", 0, (0, 1), LOW), ("b", 1, (1,), HIGH)):
        path = write_run(tmp_path / "runs" / name, seeds=seeds)
        text = (path / "config.toml").read_text().replace("seed = 0", f"seed = {first}")
        (path / "config.toml").write_text(text + "\n[environment.heterogeneity.length]\ndistribution = 'uniform'\n")
        manifest = json.loads((path / "manifest.json").read_text())
        (path / "manifest.json").write_text(json.dumps(manifest | {"draws": [draw]}))
    assert len(group_runs(load_runs([tmp_path / "runs"]))) == 1
    page = write_report([tmp_path / "runs"], tmp_path / "report.html").read_text()
    assert "counts once, by its longer record.</li><li>Seed 1 did not act in the same environments in " in page
    assert main(["report", str(tmp_path / "runs"), "--table", "latex"]) == 0
    assert capsys.readouterr().out.startswith("% Seed 1 did not act in the same environments in ")
    assert main(["report", str(tmp_path / "runs"), "--out", str(tmp_path / "f.svg")]) == 0
    assert capsys.readouterr().out.startswith("Seed 1 did not act in the same environments in ")
