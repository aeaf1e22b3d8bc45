"""An audit that ends before its end: what it has found is kept, and not found again."""

import json
import shutil

import pytest

import fedrax
from fedrax.audit import auditing
from fedrax.audit.base import Leak
from fedrax.errors import FedraxError
from fedrax.records.rundir import RunDirectory

from audited import configured


class Counted(Leak):
    """An attack that says how often it was made."""

    question, headline = "how often?", "times"

    def __init__(self, id, error=None):
        self.id, self.error, self.times = id, error, 0

    def inapplicable(self, setting):
        return None

    def answers(self, setting, effort, key):
        self.times += 1
        if self.error is not None:
            raise self.error
        return {"times": self.times}


@pytest.fixture
def run(tmp_path):
    """Before its first round."""
    directory = RunDirectory.create(tmp_path / "run")
    directory.write_config(configured().to_toml())
    return fedrax.load(directory.path)


def test_what_was_found_before_an_interruption_is_kept(run, monkeypatch, capsys):
    first, second = Counted("B1"), Counted("B2", KeyboardInterrupt())
    monkeypatch.setattr(auditing, "LEAKS", (first, second))
    (run.path / "audit.json").write_text("of before")
    with pytest.raises(KeyboardInterrupt):
        run.audit()
    # The whole audit of before is there until there is another one.
    assert (run.path / "audit.json").read_text() == "of before"
    second.error = None
    record = run.audit(progress=True)
    assert (first.times, second.times) == (1, 2)
    attacks = record["setups"][0]["attacks"]
    assert attacks == {"B1": {"answers": {"times": 1}}, "B2": {"answers": {"times": 2}}}
    assert json.loads((run.path / "audit.json").read_text()) == record
    assert capsys.readouterr().out.splitlines() == [
        "as run: B1 was found before the audit was interrupted",
        "as run: B2 how often?",
    ]
    # A finished one is made anew.
    assert not run.directory.unfinished_audit.exists()
    run.audit()
    assert (first.times, second.times) == (2, 3)


@pytest.mark.parametrize("damage", [None, "{}", "no JSON"])
def test_another_audit_takes_nothing_over(run, monkeypatch, damage):
    first, second = Counted("B1"), Counted("B2", KeyboardInterrupt())
    monkeypatch.setattr(auditing, "LEAKS", (first, second))
    with pytest.raises(KeyboardInterrupt):
        run.audit()
    if damage is not None:
        run.directory.unfinished_audit.write_text(damage)
    with pytest.raises(KeyboardInterrupt):
        run.audit(seed=1 if damage is None else 0)
    assert first.times == 2


def test_a_run_that_was_moved_is_not_made_again(run):
    shutil.move(run.path, run.path.with_name("moved"))
    with pytest.raises(FedraxError, match=r"there is no run at .*: it does not exist"):
        run.audit(attacks=["A2"])
    assert not run.path.exists()
