"""Progress in a notebook: one output of the cell, replaced and not added to."""

import sys
import types

import pytest

from fedrax.records.notebook import SECONDS, cell_line
from fedrax.records.progress import Progress


class Shell:
    """What of IPython's shell in a notebook is used."""

    kernel = None

    def __init__(self):
        self.display_pub, self.outputs, self.sent = self, {}, 0

    def publish(self, data, *, transient, update):
        assert update == (transient["display_id"] in self.outputs)
        self.outputs[transient["display_id"]] = data
        self.sent += 1


@pytest.fixture
def shell(monkeypatch):
    shell = Shell()
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    return shell


def test_a_cell_holds_one_line_of_progress_and_all_notes(shell, capsys):
    with Progress(50, "round") as display:
        display.note("compiled for the CPU")
        for number in range(50):
            display.update(fraction=(number + 1) / 50, round=number + 1, evaluation=number)
    (shown,) = shell.outputs.values()
    assert shown["text/plain"].startswith("round 50/50  return 49.0")
    assert shell.sent < 10, "one message for every change would be 50"
    assert capsys.readouterr().out == "compiled for the CPU\n"


def test_a_line_changes_now_and_then_and_at_last(shell):
    seconds = iter([0.0, SECONDS / 2, 2 * SECONDS, 2 * SECONDS, 2 * SECONDS])
    line = cell_line()
    line._clock = lambda: next(seconds)
    for text, shown in (("1", "1"), ("2", "1"), ("3", "3"), ("4", "3")):
        line.show(text)
        assert [output["text/plain"] for output in shell.outputs.values()] == [shown]
    line.show("5", last=True)
    assert [output["text/plain"] for output in shell.outputs.values()] == ["5"]


def test_nothing_is_shown_where_nothing_is_asked_for(shell):
    with Progress(50, "round", enabled=False) as display:
        display.update(fraction=1.0, round=50)
    assert shell.outputs == {}


def test_a_terminal_under_ipython_is_no_notebook(monkeypatch):
    for shell in (None, object()):
        monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda shell=shell: shell))
        assert cell_line() is None
    monkeypatch.delitem(sys.modules, "IPython")
    assert cell_line() is None
