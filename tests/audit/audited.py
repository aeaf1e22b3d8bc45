"""Small federations that audits attack."""

from __future__ import annotations

from fedrax.audit.setting import Setting, made_setting
from fedrax.config import Config, resolve

CARTPOLE = [
    *("environment=CartPole-v1", "environment.horizon=20", "federation.agents=3", "budget.rounds=4"),
    *("checkpoint.every=2", "evaluation.every=2", "evaluation.episodes=2", "learner=policy-gradient"),
    *("learner.hidden=[4]", "learner.normalisation=trajectories", "learner.baseline=none", "strategy=gpomdp"),
    "strategy.batch=4",
]
FORCES = "environment.heterogeneity.force_mag={distribution='uniform',low=3,high=20}"
PENDULUM = [
    *("environment=Pendulum-v1", "environment.horizon=20", "environment.num_envs=2", "federation.agents=2"),
    *("budget.rounds=1", "checkpoint.every=1", "evaluation.episodes=2", "learner=td3", "strategy=fedavg"),
    *("learner.actor_layers=[8]", "learner.feature_layers=[64]", "learner.head_layers=[64]", "learner.batch_size=32"),
    *("learner.num_steps=16", "learner.buffer_size=1000", "learner.learning_starts=8", "learner.discount=0"),
    *(
        "learner.learning_rate=0.003",
        "learner.updates_per_step=64",
        "environment.heterogeneity.observation_noise_std=2.0",
    ),
]
TRAJECTORY = ["privacy.unit=trajectory", "privacy.clip=0.5"]
AGENT = ["privacy.unit=agent", "privacy.clip=0.5"]


def configured(*overrides: str, source: list[str] = CARTPOLE) -> Config:
    return resolve({}, [*source, *overrides])


def setting_of(*overrides: str, source: list[str] = CARTPOLE) -> Setting:
    return made_setting(configured(*overrides, source=source))
