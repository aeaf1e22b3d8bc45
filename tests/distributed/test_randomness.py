"""What a node draws from is its own, and nothing that it draws depends on who else takes part."""

import jax
import numpy as np
import pytest

from fedrax.config import resolve
from fedrax.errors import FedraxError
from fedrax.runtime.distributed.agent_runtime import Order, order_shapes
from fedrax.runtime.distributed.agent_service import AgentService
from fedrax.runtime.distributed.envelopes import JOIN, JOINED, UNFIT, Envelope
from fedrax.runtime.distributed.randomness import node_secret, secret_randomness, shared_randomness
from fedrax.runtime.make import make_runtime

from federations import configured, distributed, rounds_of, simulated


def parameters(service):
    """An agent's weights after its last round, which follow from its trajectories."""
    leaves = jax.tree.leaves(service.session.snapshot.agent.params)
    return np.concatenate([np.ravel(leaf) for leaf in leaves])


@pytest.mark.training
@pytest.mark.parametrize("case", ["fedavg-td3", "host-ppo"])
def test_the_configuration_does_not_yield_a_nodes_trajectories(case, tmp_path):
    config = configured(case, "runtime.shared_seeds=false", "strategy=local", "evaluation.environments=own")
    expected, _ = simulated(config, 2)
    federation, services, notes = distributed(config, tmp_path)
    rounds_of(federation, 2)
    weights = [parameters(service) for service in services]
    leaves = [np.asarray(leaf[0]) for leaf in jax.tree.leaves(expected.agents.params)]
    for index, own in enumerate(weights):
        computed = np.concatenate([np.ravel(leaf[index]) for leaf in leaves])
        assert np.abs(own - computed).max() > 1e-3
    assert np.abs(weights[0] - weights[1]).max() > 1e-3
    assert not any("shared_seeds" in note for note in notes)


def test_shared_seeds_are_said(tmp_path):
    _, _, notes = distributed(configured("fedpg-br"), tmp_path)
    assert notes == [
        "runtime.shared_seeds: nodes draw from the run's seed, so whoever knows it can recompute their trajectories"
    ]


def test_a_node_shares_its_seeds_only_where_its_owner_agreed(tmp_path):
    join = Envelope(JOIN, {"run": "x", "config": configured("fedpg-br").to_toml()})
    refused = AgentService(tmp_path / "node").answer(join)
    assert refused.kind == UNFIT
    assert "start the node with --shared-seeds to agree, or the run without" in refused.fields["reason"]
    assert AgentService(tmp_path / "node", shared_seeds=True).answer(join).kind == JOINED


def test_a_secret_is_its_owners_and_lasts(tmp_path):
    secret = AgentService(tmp_path / "node").secret
    file = tmp_path / "node" / "secret"
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(secret) == 32
    assert AgentService(tmp_path / "node").secret == secret
    assert AgentService(tmp_path / "other").secret != secret
    assert sorted(path.name for path in file.parent.iterdir()) == ["node.json", "secret"]
    file.write_bytes(b"short")
    with pytest.raises(FedraxError, match="has 5 bytes, and a node's secret has 32: restore it, or remove it"):
        node_secret(tmp_path / "node")


def test_what_is_drawn_follows_from_secret_run_and_seed():
    def drawn(*arguments):
        key, seed = secret_randomness(*arguments)
        return jax.random.key_data(key).tolist(), seed

    one = drawn(b"s" * 32, "run", 0)
    assert one == drawn(b"s" * 32, "run", 0)
    others = [drawn(b"t" * 32, "run", 0), drawn(b"s" * 32, "other", 0), drawn(b"s" * 32, "run", 1)]
    assert len({str(each[0]) for each in [one, *others]}) == len({each[1] for each in [one, *others]}) == 4
    key, seed = shared_randomness(7)
    assert (jax.random.key_data(key).tolist(), seed) == (jax.random.key_data(jax.random.key(7)).tolist(), 7)


def test_an_order_says_nothing_of_other_agents():
    assert Order._fields == ("byzantine", "tally", "clip")
    for moving in ([], ["privacy.clip=1", "privacy.clip_quantile=0.5"]):
        federation = make_runtime(resolve("fedtd3/pendulum", ["strategy=fedavg", *moving])).federation
        assert {leaf.shape for leaf in jax.tree.leaves(order_shapes(federation))} == {()}
