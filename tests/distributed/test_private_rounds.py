"""A unit of privacy between processes: what nodes withhold, whose noise it is, and what is not allowed."""

import json

import jax
import numpy as np
import pytest

from fedrax.config import resolve
from fedrax.errors import FedraxError
from fedrax.privacy.guarantee import guarantee
from fedrax.runtime.distributed.releases import count_release
from fedrax.seeds import derive

from federations import SMALL, distributed, made, rounds_of, same, simulated

SETTINGS = [*SMALL, "environment.horizon=40", "attack=none", "attack.agents=0"]
UNIT = ["privacy.unit=agent", "privacy.clip=0.5", "strategy=gpomdp", "strategy.batch=2"]


def private(*overrides):
    return resolve("fedpg-br/cartpole", [*SETTINGS, *UNIT, *overrides])


@pytest.mark.training
@pytest.mark.parametrize("model", ["central", "local"])
def test_the_numbers_are_the_simulations_where_nodes_draw_as_it_does(model, tmp_path):
    config = private("privacy.noise=0.7", f"privacy.model={model}")
    expected, _ = simulated(config, 4)
    federation, _, _ = distributed(config, tmp_path)
    state, rows = rounds_of(federation, 4)
    same(state.server, expected.server)
    # What was measured at nodes stays there.
    assert np.isnan(rows["train_return"]).all()
    assert (rows["agent_steps"] == 3 * 2 * 40).all()
    assert not np.isnan(rows["return"]).all()


@pytest.mark.training
def test_noise_that_was_used_is_never_used_again(tmp_path):
    """Federations of one name whose nodes have the same secrets: without noise equal, with it each has its own."""

    def once(folder, *overrides):
        config = private("runtime.shared_seeds=false", *overrides)
        for name in ("node-0", "node-1", "node-2"):
            (made(tmp_path / folder / name) / "secret").write_bytes(bytes(32))
        (made(tmp_path / folder / "run") / "run.json").write_text('{"run": "one"}')
        federation, services, _ = distributed(config, tmp_path / folder)
        state, _ = rounds_of(federation, 1)
        counted = services[0].session.folder / "releases.json"
        releases = json.loads(counted.read_text())["releases"] if counted.exists() else None
        return np.concatenate([np.ravel(x) for x in jax.tree.leaves(state.server.params)]), releases

    np.testing.assert_array_equal(once("plain-0")[0], once("plain-1")[0])
    for model, counted in (("central", None), ("local", 1)):
        settings = ["privacy.noise=0.7", f"privacy.model={model}"]
        (first, releases), (second, _) = (once(f"{model}-{number}", *settings) for number in range(2))
        assert np.abs(first - second).max() > 1e-6
        assert releases == counted


def test_a_node_counts_its_noisy_updates_and_makes_none_too_many(tmp_path):
    config = private("privacy.noise=6", "privacy.model=local", "privacy.epsilon=3")
    bound = guarantee(config.privacy, config.federation)
    assert bound.limit == 4
    path = tmp_path / "releases.json"
    for _ in range(4):
        count_release(path, bound)
    with pytest.raises(FedraxError, match="sent 4 noisy updates"):
        count_release(path, bound)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["evaluation.environments=own", "environment.heterogeneity.length=[0.5, 0.4, 0.8]"], "environments=own"),
        (["runtime.flower.max_norm=3.0"], "max_norm=adaptive"),
    ],
)
def test_what_would_tell_more_is_refused(overrides, words, tmp_path):
    with pytest.raises(FedraxError, match=words):
        distributed(private(*overrides), tmp_path)


@pytest.mark.training
def test_agents_that_add_noise_together_are_summed_as_the_simulation_sums_them(tmp_path):
    """Their noise is of keys of their own, so that the two differ by no more than noise does."""
    settings = ["privacy.model=distributed", "privacy.secure_sum=true", "federation.agents=4", "budget.rounds=1"]
    config = private(*settings, "privacy.noise=0.001")
    assert config.privacy.bits == 20
    expected, _ = simulated(config, 1)
    federation, _, _ = distributed(config, tmp_path)
    state, rows = rounds_of(federation, 1)
    assert rows["present"].tolist() == [[4]]
    same(state.server, expected.server, tolerance=3e-3)
    exact, _ = simulated(private(*settings, "privacy.noise=0"), 1)
    differences = [
        np.abs(x - y).max() for x, y in zip(*(jax.tree.leaves(s.server.params) for s in (state, exact)), strict=True)
    ]
    assert max(differences) > 1e-7
    # As much noise as there is in earnest is no reason to refuse a vector, or a sum.
    noisy, _, _ = distributed(private(*settings, "privacy.epsilon=2"), tmp_path / "noisy")
    assert rounds_of(noisy, 1)[1]["present"].tolist() == [[4]]


def test_who_takes_part_by_chance_is_no_more_known_from_the_configuration(tmp_path):
    def drawn(folder, *overrides):
        settings = ["federation.sampling=poisson", "federation.participation=0.5", "federation.agents=40", *overrides]
        federation, _, _ = distributed(private(*settings), tmp_path / folder)
        cohorts = [federation.federation.cohort(derive(federation._drawing, "round", r)) for r in range(3)]
        return [np.asarray(c.ids)[np.asarray(c.selected)].tolist() for c in cohorts]

    assert drawn("shared-0") == drawn("shared-1")
    own = "runtime.shared_seeds=false"
    assert drawn("own", own) != drawn("other", own)
    assert drawn("own", own) == drawn("own", own), "as a resumed server draws"
