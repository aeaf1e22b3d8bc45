"""Federations of real processes with a liar among the nodes (make test-faults): it is named, and nobody else loses."""

import os
import signal
import stat
import subprocess
import time

import numpy as np
import pytest

from harness import CLI, Federation

pytestmark = pytest.mark.faults

LIES = 215
"""That ``lies.py`` has for such an answer, at least 200."""


def of_agent(federation, agent):
    return [row for row in federation.exchanges() if row["agent"] == agent]


def no_traceback(federation):
    for log in [*federation.folder.glob("*.out"), *federation.run.glob("*.log"), *federation.run.glob("flower/*.log")]:
        assert "Traceback" not in log.read_text(errors="replace"), log


def with_liar(folder, lie, *settings, nodes=2, **others):
    federation = Federation(folder, *settings, nodes=nodes, **others)
    federation.start_server()
    for node in range(nodes - 1):
        federation.start_node(node)
    federation.start_liar(nodes - 1, lie)
    return federation


def test_two_hundred_lies_are_excluded_and_named_and_the_honest_node_loses_nothing(tmp_path, account, record_property):
    settings = [f"budget.rounds={LIES + 2}", "runtime.flower.max_failures=none", "checkpoint.every=100"]
    with with_liar(tmp_path, "every_lie", *settings) as federation:
        assert federation.finish(600) == 0, federation.logs()
        assert {row["outcome"] for row in of_agent(federation, 0)} == {"answered"}
        rows = of_agent(federation, 1)
        assert len(rows) == LIES + 2
        assert rows[0]["outcome"] == "answered"
        lies = rows[1 : LIES + 1]
        assert [row for row in lies if row["outcome"] != "excluded"] == []
        said = federation.note()
        assert all(f"agent 1 excluded: {row['reason']}" in said for row in lies)
        assert all(np.isfinite(row["return"]) for row in federation.metrics())
        no_traceback(federation)
        shown = subprocess.run([*CLI, "status", str(federation.run)], capture_output=True, text=True, check=False)
        assert shown.returncode == 0, shown.stderr
        for name in ("members.json", "exchanges.jsonl", "recent.json", "federation.log"):
            assert stat.S_IMODE((federation.run / name).stat().st_mode) == 0o600, name
        for name in ("manifest.json", ".lock", ".server.lock"):
            assert "--token" not in (federation.run / name).read_text(), "it would let others speak for the server"
        record_property("lies", len(lies))
        account(federation, "a node sends two hundred kinds of nonsense, one in each round")


@pytest.mark.parametrize("secure", [True, False])
def test_a_member_that_joins_under_ever_new_names_has_one_place(tmp_path, secure):
    settings = ["budget.rounds=6000", "runtime.flower.gather=0", "runtime.flower.quorum=0.3"]
    with Federation(tmp_path, *settings, nodes=3, secure=secure) as federation:
        federation.start_server()
        federation.start_node(0)
        federation.start_liar(2, "new_names")
        federation.until(lambda: "absent" in federation.outcomes(2) or federation.rounds() > 20, what="the liar")
        federation.until_round(federation.rounds() + 40)
        if secure:
            federation.kill("server")
            federation.start_server()
        else:
            # Nodes stay connected; a new connection without a key would be a stranger's.
            os.kill(federation.part_of("server", "flwr-serverapp"), signal.SIGKILL)
        federation.until_round(federation.rounds() + 40)
        places = federation.membership().places
        assert len(places) <= 2, places
        federation.start_node(1)
        federation.until(lambda: "answered" in federation.outcomes(1), what="the honest node's place")
        assert set(federation.outcomes(0)) <= {"answered", "absent"}
        federation.kill("server", signal.SIGTERM)


def test_a_node_that_says_it_has_done_more_rounds_than_there_can_be_is_not_admitted(tmp_path):
    base = ["fedppo/cartpole", "strategy=fedavg", "learner.num_steps=16", "environment.num_envs=2", "budget.rounds=12"]
    base += [f"environment.heterogeneity.{name}=[1, 1]" for name in ("length", "gravity")]
    settings = ["budget.steps_per_agent=none", "runtime.flower.staleness=2", "runtime.flower.gather=10"]
    with with_liar(tmp_path, "all_done", *settings, base=base) as federation:
        assert federation.finish() == 0, federation.logs()
        assert set(federation.outcomes(1)) <= {"absent"}
        assert "a node (key node-1) cannot join" in federation.note()
        no_traceback(federation)


def test_episodes_that_were_not_asked_for_do_not_end_the_budget(tmp_path):
    settings = ["budget.trajectories=60", "runtime.flower.max_failures=none"]
    with with_liar(tmp_path, "many_episodes", *settings) as federation:
        assert federation.finish() == 0, federation.logs()
        assert set(federation.outcomes(1)) == {"excluded"}
        assert "160 episodes in" in of_agent(federation, 1)[0]["reason"]
        # Two to four episodes a round, shared by two nodes.
        assert federation.rounds() >= 15


def test_a_message_of_3e38_under_a_mean_ruins_nothing(tmp_path, account):
    base = ["fedpg-br/cartpole", "strategy=fedavg", "aggregator=mean", "environment.horizon=40", "budget.rounds=20"]
    settings = ["budget.trajectories=none", "runtime.flower.gather=300", "runtime.flower.max_failures=none"]
    with with_liar(tmp_path, "huge_message", *settings, nodes=3, base=base) as federation:
        assert federation.finish() == 0, federation.logs()
        for agent in (0, 1):
            assert set(federation.outcomes(agent)) == {"answered"}
        assert set(federation.outcomes(2)) == {"excluded"}
        assert "over the limit of" in of_agent(federation, 2)[0]["reason"]
        assert all(np.isfinite(row["return"]) for row in federation.metrics())
        account(federation, "a node sends 3e38, and the rule is a mean")


def test_a_node_that_floods_is_refused_unread_and_not_asked_for_a_while(tmp_path, account):
    settings = ["budget.rounds=6000", "runtime.flower.deadline=120"]
    with with_liar(tmp_path, "flood", *settings, nodes=3) as federation:
        federation.until(lambda: "paused" in federation.outcomes(2), 400, "the pause")
        begun, at = time.monotonic(), federation.rounds()
        federation.until_round(at + 20)
        took = time.monotonic() - begun
        excluded = [row for row in of_agent(federation, 2) if row["outcome"] == "excluded"]
        assert {row["reason"] for row in excluded} == {"its answer is larger than any that is asked for"}
        assert all(row["bytes_up"] == 0 for row in excluded)
        for agent in (0, 1):
            assert set(federation.outcomes(agent)) == {"answered"}
        assert took < 120, "no round waited for its deadline"
        assert "agent 2 paused: lost, late or excluded in 2 of the last" in federation.note()
        account(federation, "a node answers with 400 MB in every round")
        federation.kill("server", signal.SIGTERM)
