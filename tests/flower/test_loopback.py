"""Two real nodes with TLS and keys, and the death of one: what CI runs of the federation of processes."""

import os
import signal

import numpy as np
import pytest

import fedrax

from harness import SMALL, Federation


@pytest.mark.training
def test_two_nodes_train_to_the_simulations_result(tmp_path):
    with Federation(tmp_path, "budget.rounds=2", "runtime.shared_seeds=true", fast=False) as federation:
        federation.start_all()
        assert federation.finish() == 0, federation.logs()
        settings = [*SMALL[1:], "federation.agents=2", "budget.rounds=2"]
        simulated = fedrax.train(SMALL[0], settings, out=tmp_path / "simulated", progress=False)
        for measured, expected in zip(federation.metrics(), simulated.metrics(), strict=True):
            for name in ("return", "train_return", "agent_steps", "server_steps", "trajectories", "accepted"):
                np.testing.assert_allclose(measured[name], expected[name], rtol=1e-4)
        ours, theirs = (run.policies()[0] for run in (fedrax.load(federation.run), simulated))
        np.testing.assert_allclose(ours.layers[0].weight, theirs.layers[0].weight, rtol=1e-4, atol=1e-5)
        assert [row["outcome"] for row in federation.exchanges()] == ["answered"] * 4
        assert "final_return" in federation.said()
        assert "the run is over after 2 rounds: return " in federation.said()
        assert fedrax.load(federation.run).summary()["missed_rounds"] == {"0": 0, "1": 0}
        for node in range(2):
            assert federation.processes[f"node-{node}"].wait(60) == 0, federation.logs()
            told = (tmp_path / f"node-{node}.out").read_text()
            assert f"this node is agent {node} of the run " in told
            assert "round 2: trained in " in told
            assert "the run is over, after 2 rounds" in told


@pytest.mark.training
def test_a_killed_agent_comes_back_and_nothing_is_lost(tmp_path):
    with Federation(tmp_path, "budget.rounds=12", "runtime.flower.quorum=1.0", secure=False) as federation:
        federation.start_all()
        federation.until_round(2)
        os.kill(federation.part_of("node-1", "runtime.flower.agent_server"), signal.SIGKILL)
        assert federation.finish() == 0, federation.logs()
        assert len(federation.metrics()) == 12
        answered = [row for row in federation.exchanges() if row["agent"] == 1 and row["outcome"] == "answered"]
        assert [row["round"] for row in answered] == list(range(12))
