"""When a node's command ends, and with which status: its processes are stood in for, what its agent tells is real."""

import pytest

from fedrax.cli import main
from fedrax.runtime.distributed.envelopes import CANNOT, OVER, WITHOUT
from fedrax.runtime.flower import node

STOPPED = 130
"""The status of a node that a person interrupts, here after a few looks."""


@pytest.fixture
def ended(tmp_path, monkeypatch, capsys):
    """A node's status and words, after these of its agent."""

    class Process:
        def __init__(self, *arguments):
            self.looks = 0

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def watch(self):
            self.looks += 1
            if self.looks > 5:
                raise KeyboardInterrupt

    monkeypatch.setattr(node, "Watched", Process)
    monkeypatch.setattr(node.Connection, "watch", lambda self, supernode: [])
    monkeypatch.setattr(node, "OVER_SECONDS", 0.0)
    monkeypatch.setattr(node, "LOOK_SECONDS", 0.0)

    def run(*lines, options=()):
        told = []
        monkeypatch.setattr(node.Tail, "lines", lambda self: told.append(1) or (list(lines) if len(told) == 1 else []))
        status = main(["node", "--data", str(tmp_path / "data"), *options])
        shown = capsys.readouterr()
        return status, shown.out.splitlines()[1:], shown.err.splitlines()

    return run


def test_a_node_ends_well_when_its_run_is_over(ended):
    assert ended("round 1: trained", f"{OVER}, after 1 rounds") == (
        0,
        ["round 1: trained", f"{OVER}, after 1 rounds"],
        [],
    )


@pytest.mark.parametrize("line", [f"{WITHOUT}, after 9 rounds: all 2 agents are other nodes", f"{CANNOT}: a reason"])
def test_a_node_without_a_part_in_its_run_ends_with_status_one(ended, line):
    assert ended("no place for this node", line) == (1, ["no place for this node"], [f"fedrax: {line}"])


def test_a_node_that_is_to_stay_stays_without_a_part_too(ended):
    line = f"{WITHOUT}, after 9 rounds: all 2 agents are other nodes"
    status, said, _ = ended(line, options=["--stay"])
    assert (status, said) == (STOPPED, [line])
