"""Nodes report every episode and learning metric where the TD3+HER reference's records are asked for."""

import numpy as np
import pytest

from federations import configured, distributed, rounds_of, simulated


@pytest.mark.training
def test_nodes_report_what_the_simulation_records(tmp_path):
    config = configured("fedavg-td3", "records.csv_layout=td3-her", "environment.horizon=20")
    _, expected = simulated(config, 4)
    federation, _, _ = distributed(config, tmp_path)
    _, rows = rounds_of(federation, 4)
    names = [name for name in expected if name.startswith(("agent_train_", "agent_episode"))]
    assert {"agent_episode_returns", "agent_train_success", "agent_train_critic_loss"} <= set(names)
    for name in names:
        np.testing.assert_allclose(rows[name], expected[name], rtol=1e-3, atol=1e-3, err_msg=name)
    returns = rows["agent_episode_returns"][0]
    ended = np.isfinite(returns).sum((1, 2))
    np.testing.assert_array_equal(ended, rows["agent_trajectories"][0])
    some = ended > 0
    np.testing.assert_allclose(np.nanmean(returns[some], (1, 2)), rows["train_return"][0, some], rtol=1e-3)
