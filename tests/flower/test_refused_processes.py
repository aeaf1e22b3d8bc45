"""A whole federation, of which one node does not fit at first, and one finds its place taken."""

import pytest

from fedrax.cli import main

from harness import Federation

pytestmark = pytest.mark.faults


def test_who_is_refused_is_told_and_ends_and_who_mends_it_takes_part(tmp_path, capsys):
    with Federation(tmp_path, "budget.rounds=3", secure=False) as federation:
        federation.start_server()
        federation.start_node(0)
        federation.until(lambda: "agent 0 has joined" in federation.note(), what="the first node")
        federation.start_node(0, name="surplus")
        federation.start_node(1, "--environment", "Acrobot-v1")
        assert federation.processes["node-1"].wait(120) == 1, federation.logs()
        why = (
            "this node cannot take part in the run: the node's environment, Acrobot-v1 (observations of shape (6,), 3 "
        )
        assert sum(why in line for line in federation.said("node-1").splitlines()) == 1
        federation.until(lambda: "no place for this node" in federation.said("surplus"), what="the surplus node's line")
        assert main(["status", str(federation.run)]) == 0
        lines = capsys.readouterr().out.splitlines()
        (waits,) = [line for line in lines if line.startswith("waits: node ")]
        assert "to be agent 0: it asks to be agent 0, which is another node" in waits
        (refused,) = [line for line in lines if line.startswith("refused: node ")]
        assert "to be agent 1: it says: the node's environment, Acrobot-v1 (" in refused
        federation.start_node(1)
        assert federation.finish() == 0, federation.logs()
        ended = {name: federation.processes[name].wait(60) for name in ("node-0", "node-1", "surplus")}
        assert ended == {"node-0": 0, "node-1": 0, "surplus": 1}, federation.logs()
        assert federation.outcomes(1) == 3 * ["answered"]
        last = federation.said("surplus").splitlines()[-1]
        assert last.startswith("fedrax: the run is over without this node, after 3 rounds: it asks to be agent 0")
