"""Speed of TD3's updates: agent-updates per second beside the arithmetic floor and eager PyTorch, in one run.

    python benchmarks/fedtd3_speed.py            # needs torch as well: pip install torch
    python benchmarks/fedtd3_speed.py training   # 5 agents on Pendulum, 20,000 steps each, learning in every step

An agent-update is one step of both critics on a fresh minibatch from the replay, and every second time one of the
actor and of all targets. The floor is the operations of its matrix products at the rate of one large product,
measured just before. PyTorch does the same update one agent at a time and operation by operation, as CleanRL's
td3_continuous_action does. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import itertools
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedrax.config import resolve
from fedrax.environments.base import Box, Spaces
from fedrax.learners.base import Agent, Objective
from fedrax.learners.off_policy import Training
from fedrax.learners.td3 import TD3
from fedrax.records.rundir import RunDirectory
from fedrax.runtime.make import make_runtime
from fedrax.runtime.mapping import map_in_batches
from fedrax.runtime.training import train_run

from common import best, matrix_peak, save

AGENTS, FILLED, GROUPS = 5, 10_000, 50
OBSERVATION, ACTION = 17, 6
"""HalfCheetah's."""
SIZES = {"256x256, batch 256": ((256, 256), 256), "64x64, batch 64": ((64, 64), 64)}


def updates() -> dict[str, Any]:
    """By network: agent-updates per second of ours, mapped and batched, of PyTorch, and the share of the floor."""
    results: dict[str, Any] = {}
    for name, (hidden, batch) in SIZES.items():
        learner = TD3(
            batch_size=batch,
            buffer_size=FILLED,
            actor_layers=hidden,
            feature_layers=hidden[:1],
            head_layers=hidden[1:],
        )
        peak = matrix_peak()
        ours = {
            label: 2 * GROUPS * AGENTS / best(program(learner, together), agents(learner))
            for label, together in (("mapped", 1), ("batched", AGENTS))
        }
        fastest = max(ours.values())
        operations = operations_per_update(hidden, batch)
        torch = pytorch_updates(hidden, batch)
        results[name] = {
            "agent_updates_per_second": {label: round(rate) for label, rate in ours.items()},
            "megaflop_per_update": round(operations / 1e6, 1),
            "peak_gigaflops": round(peak / 1e9),
            "share_of_floor": round(fastest * operations / peak, 3),
            "pytorch_updates_per_second": round(torch),
            "times_pytorch": round(fastest / torch, 2),
        }
        print(name, results[name])
    return results


def spaces() -> Spaces:
    """Of the environment that the networks are for."""
    unbounded = float("inf")
    return Spaces(
        Box((OBSERVATION,), (-unbounded,) * OBSERVATION, (unbounded,) * OBSERVATION),
        Box((ACTION,), (-1.0,) * ACTION, (1.0,) * ACTION),
    )


def agents(learner: TD3) -> Agent:
    """Agents whose replays are full of noise."""
    made = jax.vmap(lambda key: learner.init(key, spaces()))(jax.random.split(jax.random.key(0), AGENTS))
    replay = made.memory.replay
    rows = jax.random.normal(jax.random.key(1), replay.rows.shape)
    replay = dataclasses.replace(replay, rows=rows, size=jnp.full(AGENTS, FILLED, jnp.int32))
    return dataclasses.replace(made, memory=dataclasses.replace(made.memory, replay=replay))


def program(learner: TD3, together: int) -> Callable[[Agent], Any]:
    """``GROUPS`` times what :meth:`TD3.learn` does with a filled replay, ``together`` agents side by side."""

    def one(agent: Agent) -> Training:
        def group(training: Training, key: jax.Array) -> tuple[Training, None]:
            return learner.updates(training, agent.memory.replay, Objective(), key)[0], None

        start = Training(agent.params, agent.optimizer, agent.memory.target, ())
        return jax.lax.scan(group, start, jax.random.split(jax.random.key(2), GROUPS))[0]

    return jax.jit(lambda agents: map_in_batches(one, agents, together))


def operations_per_update(hidden: tuple[int, ...], batch: int) -> float:
    """Operations in matrix products: a backward pass costs two forward ones, less what no gradient is wanted of."""

    def forward(inputs: int, outputs: int) -> float:
        widths = (inputs, *hidden, outputs)
        return 2.0 * sum(i * o for i, o in itertools.pairwise(widths))

    def first(inputs: int) -> float:
        return 2.0 * inputs * hidden[0]

    actor, critic = forward(OBSERVATION, ACTION), forward(OBSERVATION + ACTION, 1)
    targets = actor + 2 * critic
    critics = 2 * (3 * critic - first(OBSERVATION + ACTION))
    actors = 3 * actor - first(OBSERVATION) + 2 * critic
    return batch * (targets + critics + actors / 2)


def pytorch_updates(hidden: tuple[int, ...], batch: int, count: int = 200) -> float:
    """Updates per second of one agent in eager PyTorch, replay sampling included."""
    import torch
    from torch import nn

    def mlp(inputs: int, outputs: int) -> nn.Sequential:
        widths = (inputs, *hidden)
        layers = [(nn.Linear(i, o), nn.ReLU()) for i, o in itertools.pairwise(widths)]
        return nn.Sequential(*(part for pair in layers for part in pair), nn.Linear(widths[-1], outputs))

    actor, first, second = mlp(OBSERVATION, ACTION), mlp(OBSERVATION + ACTION, 1), mlp(OBSERVATION + ACTION, 1)
    networks = (actor, first, second)
    targets = copy.deepcopy(networks)
    actor_step = torch.optim.Adam(actor.parameters(), lr=3e-4)
    critic_step = torch.optim.Adam([*first.parameters(), *second.parameters()], lr=3e-4)
    generator = np.random.default_rng(0)
    widths = (OBSERVATION, ACTION, OBSERVATION, 1, 1)
    replay = [generator.normal(size=(FILLED, width)).astype(np.float32) for width in widths]

    def update(number: int) -> None:
        index = generator.integers(0, FILLED, batch)
        seen, action, following, reward, terminated = (torch.from_numpy(part[index]) for part in replay)
        with torch.no_grad():
            noise = (0.2 * torch.randn_like(action)).clamp(-0.5, 0.5)
            chosen = (torch.tanh(targets[0](following)) + noise).clamp(-1, 1)
            after = torch.cat([following, chosen], 1)
            wanted = reward + 0.99 * (1 - terminated) * torch.min(targets[1](after), targets[2](after))
        both = torch.cat([seen, action], 1)
        loss = nn.functional.mse_loss(first(both), wanted) + nn.functional.mse_loss(second(both), wanted)
        critic_step.zero_grad()
        loss.backward()
        critic_step.step()
        if number % 2:
            value = -first(torch.cat([seen, torch.tanh(actor(seen))], 1)).mean()
            actor_step.zero_grad()
            value.backward()
            actor_step.step()
            with torch.no_grad():
                for network, target in zip(networks, targets, strict=True):
                    for x, y in zip(network.parameters(), target.parameters(), strict=True):
                        y.copy_(0.005 * x + 0.995 * y)

    for number in range(20):
        update(number)
    rates = []
    for _ in range(5):
        started = time.perf_counter()
        for number in range(count):
            update(number)
        rates.append(count / (time.perf_counter() - started))
    return max(rates)


def training() -> dict[str, Any]:
    """Seconds of a whole run on native Pendulum with 256x256 networks, evaluation, records and checkpoints included."""
    plain = ["strategy=fedavg", "learner.feature_layers=[256]", "learner.head_layers=[256]"]
    config = resolve("fedtd3/pendulum", plain)
    runtime = make_runtime(config)
    with tempfile.TemporaryDirectory() as folder:
        directory = RunDirectory.create(Path(folder) / "run")
        started = time.perf_counter()
        train_run(config, runtime, directory, progress=False)
        seconds = time.perf_counter() - started
        summary = json.loads(directory.summary.read_text())
    result = {
        "agents": config.federation.agents,
        "steps_per_agent": config.budget.steps_per_agent,
        "batch": config.component("learner").batch_size,
        "seconds": round(seconds, 1),
        "of_which_compiling": round(summary["seconds_compile"], 1),
        "target": 180,
        "final_return": round(summary["final_return"], 1),
        "peak_gigaflops": round(matrix_peak() / 1e9),
    }
    print(result)
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("updates", "training"), default="updates")
    chosen = parser.parse_args().what
    save(f"fedtd3_speed_{chosen}", updates() if chosen == "updates" else training())
