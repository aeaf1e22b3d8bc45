"""Sweeps: what is refused before the first run trains, and before the setups are made."""

import subprocess
import time

import pytest

from fedrax import api
from fedrax.cli import main
from fedrax.errors import FedraxError
from fedrax.sweeps.checks import check, checked
from fedrax.sweeps.plan import read_plan

from sweep_files import written


def test_a_setup_that_cannot_run_is_told_before_the_first_trains(tmp_path, capsys):
    """It resolves, and its combination fits nothing: only making it shows that."""
    setups = "".join(f"[setups.s{number}]\n" for number in range(6))
    path = written(tmp_path, f'{setups}[setups.last]\nattack.kind = "alie"\n')
    assert len(read_plan(path).jobs) == 7
    for words in ([], ["--dry-run"]):
        assert main(["sweep", str(path), *words]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"fedrax: {path}: setup 'last': attack 'alie' has no agents; set attack.agents")
    assert not list((tmp_path / "out").glob("s0/*"))


def test_setups_are_checked_for_so_long(monkeypatch, tmp_path):
    one = {"name": "a", "source": "fedpg-br/cartpole", "overrides": []}
    assert list(check([one])) == [{"checked": 1}]
    clock = iter([0.0, 0.0, 100.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    assert list(check([one, one, one])) == [{"checked": 1}]


LATE = "at most 60 s are spent on it"


@pytest.mark.parametrize(
    ("said", "late", "status", "missed", "why"),
    [
        (b"", True, 0, 2, LATE),
        (b'a plugin prints\n{"checked": 1}\n{"check', True, 0, 1, LATE),
        (b'{"checked": 1}\n', False, 0, 1, LATE),
        (b'{"checked": 1}\n{"checked": 2}\n', False, 0, 0, ""),
        (b'{"checked": 1}\n', False, -9, 1, "the process that does it ended with exit status -9"),
    ],
)
def test_what_was_not_checked_is_noted(monkeypatch, tmp_path, capsys, said, late, status, missed, why):
    """By what the process that checks has said, which may be ended at any time."""

    def run(command, **_):
        if late:
            raise subprocess.TimeoutExpired(command, 1, output=said)
        return subprocess.CompletedProcess(command, status, said)

    monkeypatch.setattr("fedrax.sweeps.checks.subprocess.run", run)
    plan = checked(read_plan(written(tmp_path, "[setups.a]\n[setups.b]\n")))
    assert capsys.readouterr().out == "checking 2 setups ...\n"
    consequence = "a mistake in them shows when they train"
    note = f"{missed} of 2 setups were not checked before training ({why}): {consequence}"
    assert plan.notes == ((note,) if missed else ())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seeds = 1000000000000\n[setups.a]", "1 setups with 1000000000000 seeds each are 1000000000000 runs"),
        ("seeds = 1001\n[setups.a]", "are 1001 runs, more than 1000; give fewer, or --yes to train them all"),
        (
            "seeds = 2\n[setups.a]\n[setups.b]\n[grid]\n" + "".join(f"k{n} = {list(range(20))}\n" for n in range(10)),
            f"{2 * 20**10} setups with 2 seeds each are {4 * 20**10} runs; at most 100000 are allowed",
        ),
        ("seeds = [9223372036854775807]\n[setups.a]", "give different numbers from 0 to 2147483647"),
    ],
)
def test_runs_are_counted_before_any_is_made(tmp_path, text, said):
    path = written(tmp_path, text)
    started = time.monotonic()
    with pytest.raises(FedraxError) as error:
        api.sweep(path)
    assert said in str(error.value)
    assert time.monotonic() - started < 5
    assert not (tmp_path / "out").exists()


def test_many_runs_are_made_when_they_are_meant(tmp_path):
    plan = read_plan(written(tmp_path, "seeds = 1001\n[setups.a]"), many=True)
    assert len(plan.jobs) == 1001


def test_more_jobs_at_once_than_there_are_runs_are_as_many(tmp_path):
    assert read_plan(written(tmp_path, "seeds = 3\n[setups.a]"), jobs=10**30).at_once == 3
