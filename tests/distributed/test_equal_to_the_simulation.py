"""One configuration, two runtimes: a distributed federation gives the simulation's numbers."""

import json

import jax
import numpy as np
import pytest

from federations import CASES, configured, distributed, rounds_of, same, simulated

SAME = ("return", "train_return", "agent_steps", "trajectories", "server_steps", "gradient_steps", "accepted")


FAST = ("fedpg-br", "attacked", "fedavg-td3", "neighbours-ppo", "poisson")


@pytest.mark.training
@pytest.mark.parametrize(
    "case", [case if case in FAST else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)
def test_the_numbers_are_the_simulations(case, tmp_path):
    config = configured(case)
    expected, measured = simulated(config, 4)
    federation, services, _ = distributed(config, tmp_path)
    state, rows = rounds_of(federation, 4)
    for name in SAME:
        np.testing.assert_allclose(rows[name], measured[name], rtol=1e-3, atol=1e-3, err_msg=name)
    lines = (tmp_path / "run" / "exchanges.jsonl").read_text().splitlines()
    asked = [json.loads(line)["round"] for line in lines]
    assert [asked.count(index) for index in range(4)] == rows.get("participants", np.full((1, 4), 3))[0].tolist()
    same(state.server, expected.server)
    same(state.tally, expected.tally)
    for index, service in enumerate(services):
        same(service.session.snapshot.agent.params, jax.tree.map(lambda x, k=index: x[0, k], expected.agents.params))
