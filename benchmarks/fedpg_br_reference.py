"""Gradients and filter of the FedPG-BR reference beside ours, at the same policies on LunarLander.

    python benchmarks/fedpg_br_reference.py CHECKOUT POLICY...

CHECKOUT is a checkout of flint-xf-fan/Byzantine-Federated-RL, whose own lines compute gradients and apply the filter
(PyTorch must be installed); POLICY is a run's policy.safetensors, or ``initial``. For each policy, ten workers of the
reference and ten agents of ours sample the same number of trajectories; three of ten then flip their gradients' sign as
both systems do (-2.5 g), and both filters judge both sets. Results: benchmarks/results/fedpg_br_reference.json.
"""

from __future__ import annotations

import argparse
import math
import sys
import textwrap
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import torch

from fedrax.aggregators.base import aggregators
from fedrax.config import resolve
from fedrax.environments.host import make_host
from fedrax.environments.host_collector import HostCollector
from fedrax.environments.registry import describe_environment
from fedrax.learners.base import EpisodeLearner
from fedrax.records.checkpoint import load_policy
from fedrax.runtime.make import make_federation
from fedrax.trees import ravel_rows

from common import save

AGENTS, BYZANTINE, SCALE = 10, 3, -2.5
CONFIG = resolve("fedpg-br/lunarlander")
SIGMA, DELTA, ALPHA = (float(CONFIG.aggregator[name]) for name in ("sigma", "delta", "alpha"))


def install_gym() -> None:
    """A module ``gym`` of the version that the reference imports, made of Gymnasium's environments."""

    class Environment:
        def __init__(self, id: str) -> None:
            self.env = gymnasium.make(id.replace("LunarLander-v2", "LunarLander-v3"), disable_env_checker=True)
            self.observation_space, self.action_space = self.env.observation_space, self.env.action_space
            self.start: int | None = None

        def seed(self, seed: int) -> None:
            self.start = seed

        def reset(self) -> np.ndarray:
            observation, _ = self.env.reset(seed=self.start)
            self.start = None
            return observation

        def step(self, action: Any) -> tuple[Any, float, bool, dict[str, Any]]:
            observation, reward, terminated, truncated, info = self.env.step(int(action))
            return observation, reward, terminated or truncated, info

    modules = {"gym": {"make": Environment}, "gym.spaces": {"Discrete": gymnasium.spaces.Discrete}}
    # Imported at the head of the reference's files, and not needed for what is called here.
    for name in ("sklearn", "sklearn.metrics"):
        modules[name] = {"linear_model": None, "mean_squared_error": None}
    for name, contents in modules.items():
        module = types.ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        vars(module).update(contents)
        sys.modules[name] = module


class Reference:
    """The reference's worker and filter."""

    def __init__(self, checkout: Path) -> None:
        sys.path.insert(0, str(checkout / "codes"))
        import torch._dynamo  # noqa: F401  (torch imports it when the first optimiser is made, past our modules)

        install_gym()
        from worker import Worker

        self.worker = Worker(
            id=0,
            is_Byzantine=False,
            env_name="LunarLander-v2",
            gamma=0.99,
            hidden_units="64,64",
            activation="Tanh",
            output_activation="Tanh",
            max_epi_len=1000,
            opts=types.SimpleNamespace(),
        )
        source = (checkout / "codes" / "agent.py").read_text()
        first, last = (
            source.index("            # flatten the gradient"),
            source.index("            # else will treat all"),
        )
        # Cut out of the method that it stands in, with the lines before its condition.
        self.lines = textwrap.dedent("    " + source[first - 4 : last].lstrip("\n"))

    def gradient(self, policy: Any, batch: int, seed: int) -> np.ndarray:
        """One worker's gradient, flat, in the reference's order of parameters."""
        state = {}
        for index, layer in enumerate(policy.layers):
            state[f"logits_net.{2 * index}.weight"] = torch.tensor(np.asarray(layer.weight).T.copy())
            state[f"logits_net.{2 * index}.bias"] = torch.tensor(np.asarray(layer.bias).copy())
        self.worker.logits_net.load_state_dict(state)
        self.worker.env.seed(seed)
        torch.manual_seed(seed)
        gradient, *_ = self.worker.train_one_epoch(batch, torch.device("cpu"), True)
        return np.concatenate([g.detach().numpy().ravel() for g in gradient])

    def accepted(self, rows: np.ndarray, batch: int) -> np.ndarray:
        """Whom the filter accepts, ``bool[n]``."""

        def euclidean_dist(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")

        gradients = [[torch.tensor(row)] for row in rows]
        opts = types.SimpleNamespace(num_worker=len(rows), delta=DELTA, sigma=SIGMA, alpha=ALPHA, device="cpu")
        agent = types.SimpleNamespace(
            world_size=len(rows), old_master=types.SimpleNamespace(parameters=lambda: gradients[0])
        )
        names = {"torch": torch, "np": np, "opts": opts, "self": agent, "gradient": gradients, "Batch_size": batch}
        exec(self.lines, {**names, "euclidean_dist": euclidean_dist}, names)
        return names["Good_set"].numpy().ravel()  # type: ignore[attr-defined]


def our_gradients(policy: Any, batch: int, seed: int) -> np.ndarray:
    """Ten agents' gradients as the federation has them, ``[10, d]``."""
    learner = CONFIG.component("learner")
    assert isinstance(learner, EpisodeLearner)
    environments = make_host("LunarLander-v3", AGENTS * batch, max_episode_steps=1000)
    environments.reseed(np.random.default_rng(seed).integers(0, 2**31 - 1, AGENTS * batch))
    act = jax.jit(lambda observation, key: learner.act(policy, observation, key))
    key = jax.random.key(seed)

    def acting(observation: np.ndarray, step: int) -> np.ndarray:
        flat = observation.reshape(-1, observation.shape[-1])
        return np.asarray(act(flat, jax.random.fold_in(key, step))).reshape(AGENTS, batch)

    try:
        episodes = HostCollector(environments, AGENTS, batch).collect(acting, np.full(AGENTS, batch), batch, 1000)
    finally:
        environments.close()
    gradients = jax.jit(jax.vmap(lambda episodes: learner.gradient(policy, episodes)))(episodes)
    return np.asarray(ravel_rows(gradients))


def scales(rows: np.ndarray) -> dict[str, float]:
    """Lengths and distances of honest gradients."""
    distances = np.linalg.norm(rows[:, None] - rows[None], axis=-1)[np.triu_indices(len(rows), 1)]
    signal = math.sqrt(max(np.mean([rows[i] @ rows[j] for i in range(len(rows)) for j in range(i)]), 0.0))
    return {
        "length": round(float(np.linalg.norm(rows, axis=1).mean()), 4),
        "distance_median": round(float(np.median(distances)), 4),
        "true_gradient_length": round(signal, 4),
    }


def recall(accepted: np.ndarray) -> float:
    """Share of the Byzantine, who come first, that were rejected."""
    return float(np.mean(~accepted[:BYZANTINE]))


def main() -> None:
    """Compares at every policy and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("policies", nargs="+", help="policy.safetensors of a run of one seed, or 'initial'")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    reference = Reference(options.checkout)
    described = describe_environment("LunarLander-v3")
    spaces = described.spaces
    federation = make_federation(CONFIG, spaces, described.horizon())
    ours = aggregators.build("fedpg-filter", {"sigma": SIGMA, "delta": DELTA, "alpha": ALPHA})
    fresh = federation.learner.init_params(jax.random.key(1), spaces)
    table = []
    for name in options.policies:
        policy = fresh
        if name != "initial":
            stacked = load_policy(Path(name), jax.tree.map(lambda x: x[None], fresh))
            policy = jax.tree.map(lambda x: x[0], stacked)
        for repeat in range(options.repeats):
            sets = {
                "reference": np.stack(
                    [reference.gradient(policy, options.batch, 1000 * repeat + k) for k in range(AGENTS)]
                ),
                "ours": our_gradients(policy, options.batch, repeat),
            }
            for source, honest in sets.items():
                rows = honest.copy()
                rows[:BYZANTINE] *= SCALE
                theirs = reference.accepted(rows, options.batch)
                verdict = ours(jnp.asarray(rows), jnp.ones(AGENTS), samples=float(options.batch), key=jax.random.key(0))
                table.append(
                    {
                        "policy": Path(name).stem,
                        "gradients": source,
                        "repeat": repeat,
                        **scales(honest),
                        "recall_reference_filter": round(recall(theirs), 2),
                        "recall_our_filter": round(recall(np.asarray(verdict.accepted)), 2),
                        "same_agents_accepted": bool(np.array_equal(theirs, np.asarray(verdict.accepted))),
                    }
                )
                print(*(f"{key} {value}" for key, value in table[-1].items()), sep="  ", flush=True)
                save("fedpg_br_reference", table)


if __name__ == "__main__":
    main()
