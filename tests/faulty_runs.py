"""Small runs in environments that return what is not finite, or too much; see ``faulty.py``."""

import jax
import jax.numpy as jnp
import numpy as np

from faulty import Flaky
from fedrax.config import resolve
from fedrax.runtime.library import Programs
from fedrax.runtime.make import make_runtime

TABLE = {
    "learner": {"kind": "ppo", "num_steps": 12, "num_minibatches": 1, "update_epochs": 1, "hidden": [4]},
    "strategy": {"kind": "fedavg", "batch": 2},
    "environment": {"id": "CartPole-v1", "num_envs": 2},
    "federation": {"agents": 3},
    "budget": {"rounds": 20},
    "checkpoint": {"every": 1},
    "evaluation": {"episodes": 1, "every": 2, "horizon": 10},
}
HOST = ["environment.backend=gymnasium"]
TINY = [f"learner.{part}_layers=[4]" for part in ("actor", "feature", "head")]
TD3 = [
    *("learner.kind=td3", "learner.num_steps=4", "learner.batch_size=4", "learner.learning_starts=4", *TINY),
    *("learner.buffer_size=64", "environment.id=Pendulum-v1", "environment.horizon=7"),
]
EPISODES = ["learner=policy-gradient", "strategy=gpomdp", "strategy.batch=3", "environment.horizon=12"]


def configured(*overrides):
    table = {key: dict(value) for key, value in TABLE.items()}
    if any(text.startswith("learner") for text in overrides):
        table["learner"] = {"kind": "ppo"}
    if any(text.startswith("strategy=") for text in overrides):
        del table["strategy"]
    return resolve(table, overrides)


def advanced(runtime, rounds, state=None, first=0):
    """The states before and after, and the metrics ``[rounds, ...]`` of the first seed."""
    state = runtime.init() if state is None else state
    states, rows = [plain(state)], []
    for index in range(first, first + rounds):
        for after, block in runtime.advance(state, index):
            state = after
            rows.append(block)
        states.append(plain(state))
    runtime.close()
    return states, {name: np.concatenate([row[name][0] for row in rows]) for name in rows[0]}


def plain(tree):
    """Copies in NumPy, which outlive a donated state; of typed keys, their integers."""
    return jax.tree.map(
        lambda x: np.array(jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x), tree
    )


def agent(state, index):
    return jax.tree.map(lambda x: x[0, index], state.agents)


def equal(one, other):
    leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(x, y, equal_nan=True) for x, y in leaves)


def finite(tree):
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree) if np.issubdtype(leaf.dtype, np.floating))


def flaky(*overrides, chance=0.0, each=None, kind=Flaky):
    """A simulation in environments that break now and then, and stay broken until they are reset."""
    runtime = make_runtime(configured(*overrides))
    runtime.environment = kind(chance)
    if each is not None:
        runtime.draws = runtime.agents_draws = {"broken": jnp.array([each], jnp.float32)}
    runtime.prepare(Programs())
    return runtime


def host(id, *overrides):
    return make_runtime(configured(f"environment.id=Test{id}-v0", *HOST, *overrides))
