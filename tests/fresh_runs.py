"""Runs that trained nothing: a directory with fresh networks, for tests of what reads one."""

import jax

import fedrax
from fedrax.config import resolve
from fedrax.records.checkpoint import save_policy
from fedrax.records.rundir import RunDirectory
from fedrax.runtime.continuation import begin_manifest
from fedrax.runtime.draws import describe_run
from fedrax.runtime.make import make_learner

BUDGET = ["budget.rounds=1", "budget.trajectories=none", "federation.agents=2", "attack=none", "attack.agents=0"]
SMALL = {
    "fedpg-br/cartpole": ["learner.hidden=[8]"],
    "fedtd3/pendulum": ["learner.actor_layers=[8]", "learner.normalise=true"],
    "td3-her/point-push": ["learner.actor_layers=[8]", "learner.normalise=true"],
    "fedppo/simple-crossing": ["learner.hidden=[8]", "federation.agents=3"],
}


def made(folder, source, overrides=(), seeds=2):
    """A run's directory with fresh networks, another for every seed and agent."""
    config = resolve(source, [*BUDGET, *SMALL.get(source, []), f"seeds={seeds}", *overrides])
    spaces = describe_run(config)[0].spaces
    learner = make_learner(config)
    axes = (seeds, config.federation.agents) if config.hands_out_own() else (seeds,)
    keys = jax.random.split(jax.random.key(0), axes)

    def init(key):
        return learner.init_params(key, spaces)

    for _ in axes:
        init = jax.vmap(init)
    directory = RunDirectory.create(folder)
    params = init(keys)
    for path in (directory.policy, directory.kept_policy(1)):
        save_policy(path, params)
    save_policy(directory.best_policy, jax.tree.map(lambda x: -x, params))
    begin_manifest(directory, config, files=[])
    directory.write_config(config.to_toml())
    return fedrax.load(directory.path)
