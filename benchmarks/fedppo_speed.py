"""Speed of federated MDPO on MiniGrid: steps per second of whole runs, and where the time goes.

    python benchmarks/fedppo_speed.py native      # SimpleCrossingS9N2 in JAX, 3 agents of 4 copies
    python benchmarks/fedppo_speed.py envpool     # DoorKey-6x6, the same; needs the envpool extra
    python benchmarks/fedppo_speed.py native --published-network     # without pooling: five times the operations

The rate is that of training with everything it does: evaluation every fourth round, records and checkpoints; without
compiling. The parts are timed one by one, outside of it: what they leave of the whole is evaluation, records and the
runtime. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from fedrax.config import Config, resolve
from fedrax.environments.base import Steps
from fedrax.environments.native_steps import CollectorState, collect_steps
from fedrax.learners.actor_critic import ActorCritic, GridTorso
from fedrax.learners.base import Agent, Objective, UpdateContext
from fedrax.records.rundir import RunDirectory
from fedrax.runtime.host import HostRuntime
from fedrax.runtime.make import make_runtime
from fedrax.runtime.mapping import map_in_batches
from fedrax.runtime.native import NativeRuntime
from fedrax.runtime.training import train_run

from common import best, matrix_peak, save

ROUNDS = 4
PRESETS = {"native": ("fedppo/simple-crossing", 10_000), "envpool": ("fedppo/doorkey", 6_000)}
"""What is trained, and the steps per second to reach."""


def measure(kind: str, overrides: list[str]) -> dict[str, Any]:
    """The rate, the table, and the share of the machine's own speed at matrix products."""
    preset, target = PRESETS[kind]
    if kind == "envpool":
        overrides = [*overrides, "environment.backend=envpool"]
    config = resolve(preset, overrides)
    steps_per_round = steps_of_round(config)
    short, long = (elapsed(preset, overrides, rounds) for rounds in (ROUNDS, 3 * ROUNDS))
    seconds = (long - short) / (2 * ROUNDS)
    updates = config.federation.local_updates
    parts = native_parts(config) if kind == "native" else host_parts(config)
    whole = 1e3 * seconds / updates
    table = {name: round(1e3 * value, 2) for name, value in parts.items()}
    table["evaluation, records, rest"] = round(whole - sum(table.values()), 2)
    operations, peak = operations_per_step(config), matrix_peak()
    rate = steps_per_round / seconds
    return {
        "preset": preset,
        "steps_per_second": round(rate),
        "target": target,
        "milliseconds_per_update_of_all_agents": round(whole, 1),
        "of_which": table,
        "share": {name: round(value / whole, 3) for name, value in table.items()},
        "megaflop_per_step": round(operations / 1e6, 2),
        "peak_gigaflops": round(peak / 1e9),
        "share_of_peak": round(operations * rate / peak, 3),
    }


def steps_of_round(config: Config) -> int:
    """Environment steps of all agents."""
    learner = config.component("learner")
    return learner.steps * config.environment.num_envs * config.federation.agents * config.federation.local_updates


def elapsed(preset: str, overrides: list[str], rounds: int) -> float:
    """Seconds of a whole run of so many rounds, compiling excepted as far as it is told apart."""
    config = resolve(preset, [*overrides, f"budget.rounds={rounds}", "budget.steps_per_agent=none"])
    runtime = make_runtime(config)
    with tempfile.TemporaryDirectory() as folder:
        directory = RunDirectory.create(Path(folder) / "run")
        try:
            started = time.perf_counter()
            train_run(config, runtime, directory, progress=False)
            took = time.perf_counter() - started
            return took - json.loads(directory.summary.read_text())["seconds_compile"]
        finally:
            runtime.close()


def native_parts(config: Config) -> dict[str, float]:
    """Seconds of each part of one update of all agents, as the runtime maps them."""
    runtime = make_runtime(config)
    assert isinstance(runtime, NativeRuntime)
    federation, learner = runtime.federation, runtime.federation.learner
    agents, collector_states = started_agents(runtime)
    key, update_context = jax.random.key(0), UpdateContext(jax.random.key(1), jnp.asarray(0.0))
    physics = runtime.environment.physics()
    choices = federation.spaces.action.n

    def collect(inputs: tuple[Agent, CollectorState], *, acts: bool) -> tuple[Steps, CollectorState]:
        agent, collector_state = inputs
        acting = learner.acting(agent.params)

        def decide(observation: Array, key: Array) -> tuple[Array, PyTree]:
            if acts:
                return learner.decide(acting, observation, key)
            return jax.random.randint(key, observation.shape[:1], 0, choices), ()

        return collect_steps(
            runtime.environment,
            physics,
            decide,
            key,
            collector_state,
            steps=learner.steps,
            horizon=runtime.training_horizon,
        )

    def mapped(function: Callable[[PyTree], Any]) -> Callable[[PyTree], Any]:
        return jax.jit(lambda inputs: map_in_batches(function, inputs, runtime.batch))

    acted = mapped(partial(collect, acts=True))
    experience, _ = acted((agents, collector_states))
    stepping = best(mapped(partial(collect, acts=False)), (agents, collector_states))
    collecting = best(acted, (agents, collector_states))
    return {
        "stepping": stepping,
        "acting": collecting - stepping,
        **learning_parts(runtime, agents, experience, update_context, mapped),
    }


def host_parts(config: Config) -> dict[str, float]:
    """The same where EnvPool steps: what it takes itself, then dispatch, networks and records of each step."""
    runtime = make_runtime(config)
    assert isinstance(runtime, HostRuntime)
    learner = runtime.federation.learner
    agents, _ = started_agents(runtime)
    seed_environments = runtime.seed_environments[0]
    state = jax.tree.map(lambda x: x[0], runtime.init())
    seed_environments.reseed(0)
    programs, key = runtime.programs, jax.random.key(0)
    opened = programs.open(state, key)

    def collect() -> Steps:
        ids, byzantine = opened.cohort.ids, opened.cohort.byzantine
        keys = programs.update_keys(key, ids).act[0]
        decide = programs.decider_of_agents(programs.groups(agents, ids, byzantine), opened.downlink, keys, fresh=False)
        return seed_environments.collect(decide, opened.cohort, opened.downlink)[0]

    experience = jax.tree.map(jnp.asarray, collect())
    environments = seed_environments.groups[0]
    actions = np.random.default_rng(0).integers(0, 7, (learner.steps, environments.count))

    def step() -> None:
        for row in actions:
            environments.step(row)

    stepping = best(lambda _: step(), None)
    collecting = best(lambda _: collect(), None)
    update_context = UpdateContext(jax.random.key(1), jnp.asarray(0.0))

    def mapped(function: Callable[[PyTree], Any]) -> Callable[[PyTree], Any]:
        return jax.jit(lambda inputs: map_in_batches(function, inputs, runtime.programs.batch))

    parts = {"stepping": stepping, "acting": collecting - stepping}
    parts |= learning_parts(runtime, agents, experience, update_context, mapped)
    runtime.close()
    return parts


def learning_parts(
    runtime: NativeRuntime | HostRuntime,
    agents: Agent,
    experience: Steps,
    update_context: UpdateContext,
    mapped: Callable[[Callable[[PyTree], Any]], Callable[[PyTree], Any]],
) -> dict[str, float]:
    """An update without a penalty, and what the neighbours add."""
    learner, strategy = runtime.federation.learner, runtime.federation.strategy
    alone = best(mapped(lambda x: learner.learn(*x, Objective(), update_context)), (agents, experience))
    state = jax.tree.map(lambda x: x[0], runtime.init())
    downlink = strategy.broadcast(state.server, jax.random.key(0))

    def linked_update(inputs: tuple[Agent, Steps, Array]) -> Any:
        agent, experience, index = inputs
        context = strategy.context(agent, downlink, index)
        return strategy.work(learner, agent, experience, update_context._replace(context=context))

    linked = best(mapped(linked_update), (agents, experience, jnp.arange(runtime.federation.agents)))
    return {"learning": alone, "neighbours": linked - alone}


def started_agents(runtime: NativeRuntime | HostRuntime) -> tuple[Agent, PyTree]:
    """The agents of a first round after the broadcast, and where their environments stand."""
    state = jax.tree.map(lambda x: x[0], runtime.init())
    strategy = runtime.federation.strategy
    downlink = strategy.broadcast(state.server, jax.random.key(0))
    count = jnp.arange(runtime.federation.agents)
    return jax.vmap(strategy.absorb, (0, None, 0))(state.agents, downlink, count), state.environments


def operations_per_step(config: Config) -> float:
    """Floating-point operations in matrix products for one environment step of one agent.

    A pass forward when it acts and one for each neighbour's opinion; in every epoch one forward and two backward, of
    which the first layer needs one.
    """
    runtime = make_runtime(config)
    federation = runtime.federation
    network = jax.eval_shape(lambda key: federation.learner.init_params(key, federation.spaces), jax.random.key(0))
    assert isinstance(network, ActorCritic)
    assert isinstance(network.torso, GridTorso)
    sides = (6, 2, 1) if network.torso.pooling else (6, 5, 4)
    layers = [side**2 * math.prod(c.weight.shape) for side, c in zip(sides, network.torso.convolutions, strict=True)]
    dense = [network.torso.dense, network.actor, network.critic]
    forward = 2.0 * (sum(layers) + sum(math.prod(layer.weight.shape) for layer in dense))
    weights = federation.strategy.broadcast(
        jax.tree.map(lambda x: x[0], runtime.init()).server, jax.random.key(0)
    ).weights
    neighbours = float((np.asarray(weights) > 0).sum(1).mean())
    runtime.close()
    epochs = federation.learner.update_epochs
    return (1 + neighbours) * forward + epochs * (3 * forward - 2 * layers[0])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=PRESETS)
    parser.add_argument("--published-network", action="store_true", help="the reference's, without pooling")
    chosen = parser.parse_args()
    published = chosen.published_network
    measured = measure(chosen.kind, ["learner.grid_pooling=false"] if published else [])
    print(measured)
    save(f"fedppo_speed_{chosen.kind}{'_published_network' if published else ''}", measured)
