"""Secure sums of real nodes (make test-faults): whoever is killed at whichever stage, the sum is that of the others."""

import json
import os
import signal
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from safetensors.numpy import load_file

from harness import Federation
from summing_node import DIES

pytestmark = pytest.mark.faults

CLIP = 0.5
BASE = [
    *("fedpg-br/cartpole", "strategy=gpomdp", "strategy.batch=2", "environment.horizon=20", "learner.hidden=[8]"),
    *("learner.optimizer=sgd", "learner.learning_rate=1", "budget.trajectories=none", "budget.rounds=2000"),
    *("evaluation.every=5000", "checkpoint.every=1", "checkpoint.keep_policies=true", "runtime.flower.gather=300"),
    *(f"privacy.clip={CLIP}", "privacy.secure_sum=true", "runtime.flower.max_failures=none"),
]
NODES = 4
STAGES = ("keys", "share", "mask", "unmask")


def sums(federation):
    path = federation.run / "sums.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def policy(federation, rounds):
    """The server's parameters after so many rounds, flat."""
    arrays = load_file(federation.run / "policies" / f"round-{rounds}.safetensors")
    return {name: array.astype(np.float64) for name, array in arrays.items()}


def updates(federation, agents, round):
    return [np.load(federation.folder / f"node-{k}" / f"update-{round}.npy").astype(np.float64) for k in agents]


def test_a_node_that_is_killed_at_any_stage_leaves_the_sum_of_the_others(tmp_path, account):
    with Federation(tmp_path, nodes=NODES, base=BASE) as federation:
        federation.start_server()
        command = (sys.executable, str(Path(__file__).parent / "summing_node.py"))
        peers = ("--peers", str(federation.certificates / "nodes"))
        for node in range(NODES):
            with mock.patch.dict(os.environ, {DIES: " ".join(STAGES) if node == 1 else ""}):
                federation.start_node(node, *peers, command=command)
        deaths = tmp_path / "node-1" / "deaths"

        def died():
            return deaths.read_text().split() if deaths.exists() else []

        federation.until(lambda: len(died()) == len(STAGES), 900, "every death")
        last = int(died()[-1].split("-")[1])
        federation.until(
            lambda: any(line["round"] > last and len(line["summed"]) == NODES for line in sums(federation)),
            300,
            "a round of all nodes after the last death",
        )
        federation.until_round(federation.rounds() + 1)
        federation.kill("server", signal.SIGTERM)
        lines = sums(federation)
        assert {line["lost"] for line in lines} == {None}
        assert {line["keys"] for line in lines} == {"authenticated by registered keys"}
        by_round = {line["round"]: line for line in lines}
        for death in died():
            stage, round = death.split("-")
            line = by_round[int(round)]
            others = [0, 2, 3]
            enrolled = others if stage == "keys" else [0, 1, 2, 3]
            assert line["enrolled"] == enrolled, death
            assert line["summed"] == ([0, 1, 2, 3] if stage == "unmask" else others), death
        checked = 0
        for line in lines:
            index = line["round"]
            if index == 0 or not (federation.run / "policies" / f"round-{index + 1}.safetensors").exists():
                continue
            before, after = policy(federation, index), policy(federation, index + 1)
            step = [(before[name] - after[name]).ravel() for name in before]
            plain = np.mean(updates(federation, line["summed"], index), axis=0)
            # Files list arrays by name, and updates in the order of the networks: sorted, both are the same numbers.
            found, expected = np.sort(np.concatenate(step)), np.sort(plain)
            np.testing.assert_allclose(found, expected, atol=2.0**-19 * CLIP + 1e-6)
            checked += 1
        assert checked >= len(STAGES)
        account(federation, "a node is killed at each stage of a secure sum, and started again")


def test_nodes_that_were_given_their_peers_keys_refuse_a_run_that_shows_their_updates(tmp_path):
    base = [each for each in BASE if not each.startswith("privacy.secure_sum")]
    with Federation(tmp_path, "runtime.flower.gather=5", nodes=3, base=base) as federation:
        federation.start_server()
        for node in range(3):
            federation.start_node(node, "--peers", str(federation.certificates / "nodes"))
        line = "this node takes part in secure sums alone"
        federation.until(lambda: federation.note().count(line) >= 3, 240, "the refusals")
        assert federation.rounds() == 0
