"""Small federations for these tests, in the simulation and distributed."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np

from fedrax.config import Config, resolve
from fedrax.records.rundir import RunDirectory
from fedrax.runtime.distributed.agent_service import AgentService
from fedrax.runtime.distributed.server import DistributedRuntime
from fedrax.runtime.distributed.transport import InProcessTransport
from fedrax.runtime.make import make_runtime

NO_BUDGET = ["budget.trajectories=none", "budget.steps_per_agent=none", "budget.steps=none"]
SMALL = [*NO_BUDGET, "budget.rounds=4", "federation.agents=3", "seeds=1", "checkpoint.every=2", "evaluation.episodes=3"]
SMALL += ["runtime.shared_seeds=true"]
TD3 = [
    *("learner.actor_layers=[8]", "learner.feature_layers=[8]", "learner.head_layers=[8]", "learner.batch_size=8"),
    *("learner.learning_starts=8", "learner.buffer_size=64", "federation.local_updates=8", "evaluation.every=2"),
]
FEDPG = [
    *("strategy.batch_min=2", "strategy.batch_max=4", "environment.horizon=40"),
    *("attack=none", "attack.agents=0"),
]
CASES = {
    "fedpg-br": ("fedpg-br/cartpole", *SMALL, *FEDPG),
    "attacked": (
        *("fedpg-br/cartpole", *SMALL, *FEDPG[:3], "attack=sign-flipping", "attack.agents=1"),
        *("aggregator=mean", "strategy.mode=paper", "learner.learning_rate=0.001"),
    ),
    "fedavg-td3": ("fedtd3/pendulum", *SMALL, *TD3, "strategy=fedavg"),
    "poisson": (
        *("fedppo/cartpole", *SMALL, "learner.num_steps=16", "environment.num_envs=2", "federation.local_updates=2"),
        *("environment.heterogeneity.length=[0.5, 0.4, 0.8]", "environment.heterogeneity.gravity=[9.8, 8.0, 12.0]"),
        # Of this seed's first rounds, the first has no agent.
        *("strategy=fedavg", "federation.sampling=poisson", "federation.participation=0.5", "seed=1"),
    ),
    "distillation": ("fedtd3/pendulum", *SMALL, *TD3, "strategy.epochs=2", "strategy.local_steps=3"),
    "neighbours-ppo": (
        *("fedppo/cartpole", *SMALL, "learner.num_steps=16", "environment.num_envs=2", "federation.local_updates=2"),
        *("environment.heterogeneity.length=[0.5, 0.4, 0.8]", "environment.heterogeneity.gravity=[9.8, 8.0, 12.0]"),
    ),
    "host": (
        *("fedpg-br/cartpole", *SMALL, *FEDPG, "environment.native=false", "environment.backend=gymnasium"),
        *("environment.num_envs=2", "evaluation.every=2", "checkpoint.every=1"),
    ),
    "host-ppo": (
        *({}, *SMALL, "learner=ppo", "learner.num_steps=16", "environment.num_envs=2", "strategy=fedavg"),
        *("environment=Pendulum-v1", "environment.native=false", "environment.horizon=20", "evaluation.every=2"),
        *("environment.goals=2", "environment.held_out_goals=1", "evaluation.environments=own"),
    ),
    "host-td3": (
        *("fedtd3/lunarlander", *SMALL, *TD3, "strategy=fedavg", "learner.num_steps=2", "learner.policy_delay=2"),
        *("environment.horizon=20", "learner.normalise=true"),
    ),
    "fedformer": (
        *("fedtd3/pendulum", *SMALL, *TD3, "learner=sac", "strategy=fedformer", "strategy.target_step=0.5"),
        # By SGD: Adam makes whole steps of gradients that are rounding alone, as those of a key's bias are. In
        # small ones: networks that blow up make numbers of rounding, too.
        *("learner.optimizer=sgd", "learner.learning_rate=0.0003"),
        *("critic.dim=8", "critic.heads=2", "critic.encoder_layers=[8]", "critic.decoder_layers=[8]"),
        *("critic.feedforward=8", "environment.goals=2", "environment.held_out_goals=1", "evaluation.environments=own"),
    ),
    "tasks": (
        *("td3-her/federated", *SMALL, *TD3, "learner.num_steps=4", "learner.buffer_size=256"),
        *("environment.id=PointReach-v0", 'environment.tasks=["PointReach-v0", "PointPush-v0", "PointSlide-v0"]'),
        *("environment.num_envs=2", "environment.horizon=20", "strategy=clustered", "strategy.warmup=1"),
        "evaluation.environments=own",
    ),
}


def configured(case: str, *overrides: str) -> Config:
    source, *settings = CASES[case]
    return resolve(source, [*settings, *overrides])


def simulated(config: Config, rounds: int):
    """The state and the metrics of the simulation after so many rounds."""
    runtime = make_runtime(config)
    state, rows = runtime.init(), []
    first = 0
    while first < rounds:
        for after, block in runtime.advance(state, first):
            state = after
            rows.append(block)
        first += runtime.rounds_per_call
    runtime.close()
    return state, {name: np.concatenate([row[name] for row in rows], 1) for name in rows[0]}


def distributed(config: Config, folder: Path, transport=None, **settings):
    """A distributed federation, and its nodes."""
    services = [agent_service(folder / f"node-{k}", agent=k) for k in range(config.federation.agents)]
    transport = transport or InProcessTransport(
        {100 + k: service.answer for k, service in enumerate(services)}, **settings
    )
    notes: list[str] = []
    return DistributedRuntime(config, transport, RunDirectory(made(folder / "run")), note=notes.append), services, notes


def agent_service(folder: Path, **settings) -> AgentService:
    """A node's, which agrees to draw from the run's seed."""
    return AgentService(folder, shared_seeds=True, **settings)


def made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def rounds_of(federation, rounds: int, state=None, first: int = 0):
    """The state and the metrics after so many distributed rounds."""
    state = federation.init() if state is None else state
    rows = []
    for index in range(first, first + rounds):
        ((state, block),) = federation.advance(state, index)
        rows.append(block)
    return state, {name: np.concatenate([row[name] for row in rows], 1) for name in rows[0]}


def same(one, other, tolerance=2e-4):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), one, other)
