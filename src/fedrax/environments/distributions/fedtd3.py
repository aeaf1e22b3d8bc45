"""The environments of FedTD3 with partial network distillation: the joint distribution, and its native draws."""

from __future__ import annotations

import dataclasses

import numpy as np

from fedrax.environments.distributions import TABLE, JointDistribution, joint_distributions
from fedrax.errors import FedraxError
from fedrax.registry import option

WALKER = "BipedalWalkerHardcore-v3"


@joint_distributions.register("fedtd3")
class FedTD3(JointDistribution):
    """Normal draws around the defaults, number for number as FedTD3's authors made them.

    Each parameter of agent i, counted from 0, is its default plus N(0, ``std``^2), mostly clipped, from NumPy's legacy
    generator with seed ``(i + 1) * trial``, in the order of the code of Mai et al. (2024), "Server-Client Collaborative
    Distillation for Federated Reinforcement Learning". The run's seed changes nothing.

    BipedalWalkerHardcore is the exception: an agent's walker meets stumps, stairs and pits in proportions from
    Dirichlet(1, 1, 1), and at most 1, 4 or 9 stairs at once; ``mixes`` is the authors' second version.
    """

    std: float = option(
        1.0, "deviation of every parameter, in its own unit; the walker's draws have none", minimum=0, maximum=1e6
    )
    trial: int = option(1, "agent i draws with seed (i + 1) * trial; 0: all agents are equal", minimum=0, maximum=10**4)
    observation_noise: bool = option(
        False, "add to every observation N(mean, 0.01^2) with the agent's own mean, uniform in [-1, 1)"
    )
    mixes: bool = option(
        False,
        "BipedalWalkerHardcore-v3 only: the obstacles of seeds 1 to 5 are five fixed mixes (stumps and stairs, stumps, "
        "stairs, pits, stumps and pits), those of other seeds the registered environment's",
    )

    def check(self, environment: str) -> None:
        """Refuses ``mixes`` where no walker is."""
        if self.mixes and environment != WALKER:
            raise FedraxError(
                f"{TABLE}.mixes = true is not allowed: they are mixes of the obstacles of {WALKER!r}, and environment "
                f"{environment!r} has none; remove it, or set environment.id={WALKER}"
            )

    def numbered(self, number: int) -> FedTD3:
        """With a ``trial`` so much higher."""
        return dataclasses.replace(self, trial=self.trial + number)

    def generator(self, agent: int) -> np.random.RandomState:
        """The agent's stream of random numbers."""
        return np.random.RandomState((agent + 1) * self.trial)

    def noise(self, generator: np.random.RandomState) -> dict[str, float]:
        """The parameters of the observation noise, which every environment draws last."""
        if not self.observation_noise:
            return {}
        return {"observation_noise_mean": generator.uniform(-1, 1), "observation_noise_std": 0.01}


@FedTD3.of("ContinuousCartPole-v0")
def _cart(joint: FedTD3, agent: int) -> dict[str, float]:
    generator = joint.generator(agent)
    return {
        "length": float(np.clip(0.5 + generator.normal(0, joint.std), 0.3, 2)),
        "masspole": float(np.clip(0.1 + generator.normal(0, joint.std), 0.01, 1)),
        "masscart": float(np.clip(1 + generator.normal(0, joint.std), 0.2, 2)),
        "gravity": 9.8 + generator.normal(0, joint.std),
        **joint.noise(generator),
    }


@FedTD3.of("Pendulum-v1")
def _pendulum(joint: FedTD3, agent: int) -> dict[str, float]:
    generator = joint.generator(agent)
    return {
        "l": float(np.clip(1 + generator.normal(0, joint.std), 0.5, 1.5)),
        "m": float(np.clip(1 + generator.normal(0, joint.std), 0.2, 5)),
        "g": 10 + generator.normal(0, joint.std),
        **joint.noise(generator),
    }


@FedTD3.of("MountainCarContinuous-v0")
def _mountain_car(joint: FedTD3, agent: int) -> dict[str, float]:
    generator = joint.generator(agent)
    return {"power": 0.0015 + generator.normal(0, joint.std), **joint.noise(generator)}
