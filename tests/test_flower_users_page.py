"""What the page for users of Flower says: its strategy trains, and what it names is there."""

import re
import tomllib
from pathlib import Path

import jax
import numpy as np
import pytest

from fedrax.aggregators.base import aggregators
from fedrax.config import resolve
from fedrax.runtime.make import make_runtime

PAGE = (Path(__file__).parent.parent / "docs" / "flower-users.md").read_text()
SETTINGS = [
    *("learner=ppo", "environment=CartPole-v1", "environment.horizon=20", "federation.agents=2", "budget.rounds=2"),
    *("checkpoint.every=1", "evaluation.episodes=2"),
]


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    (block,) = re.findall(r"```python[^\n]*\n(.*?)```", PAGE, re.DOTALL)
    # A process that tests pages has the strategy by its own name already.
    path = tmp_path_factory.mktemp("plugin") / "of_the_flower_page.py"
    path.write_text(block.replace("fedavg-decaying", "decaying-of-the-page"))
    return f'plugins=["{path}"]'


def test_the_pages_strategy_is_one(plugin):
    config = resolve(
        {}, [*SETTINGS, plugin, "strategy=decaying-of-the-page", "strategy.half_life=50", "runtime=flower"]
    )
    assert config.strategy["half_life"] == 50


@pytest.mark.training
def test_the_pages_strategy_goes_half_of_the_way_after_its_half_life(plugin):
    def steps(*settings):
        runtime = make_runtime(resolve({}, [*SETTINGS, plugin, *settings]))
        state, seen = runtime.init(), []
        for index in range(2):
            seen.append(np.concatenate([np.ravel(x) for x in jax.tree.leaves(state.server.params)]))
            ((state, _),) = runtime.advance(state, index)
        seen.append(np.concatenate([np.ravel(x) for x in jax.tree.leaves(state.server.params)]))
        return np.diff(seen, axis=0)

    usual = steps("strategy=fedavg")
    decaying = steps("strategy=decaying-of-the-page", "strategy.half_life=1")
    np.testing.assert_allclose(decaying[0], usual[0], atol=1e-6)
    np.testing.assert_allclose(decaying[1], usual[1] / 2, atol=1e-5)


def test_the_pages_connections_are_such_as_fedrax_writes_itself():
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    table = tomllib.loads(block)["superlink"]
    assert table["default"] in table
    for name, connection in table.items():
        if name != "default":
            assert set(connection) <= {"address", "insecure", "root-certificates"}


def test_the_page_names_rules_and_keys_that_there_are():
    (row,) = [line for line in PAGE.splitlines() if line.startswith("| `FedMedian`")]
    named = re.findall(r"`([a-z-]+)`", row.split("|")[2].replace("aggregator=", ""))
    assert named == ["median", "trimmed-mean", "krum", "multi-krum", "bulyan"]
    assert set(named) <= set(aggregators.names())
    config = resolve("fedpg-br/cartpole", []).model_dump()
    for key in re.findall(r"`((?:federation|runtime|budget|evaluation|privacy|environment)\.[a-z_.]+)`", PAGE):
        table = config
        for part in key.split("."):
            assert part in table, key
            table = table[part]
