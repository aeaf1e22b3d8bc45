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
TRAJECTORY = ["privacy.unit=trajectory", "privacy.clip=0.5"]
AGENT = ["privacy.unit=agent", "privacy.clip=0.5"]


def configured(*overrides: str, source: list[str] = CARTPOLE) -> Config:
    return resolve({}, [*source, *overrides])


def setting_of(*overrides: str, source: list[str] = CARTPOLE) -> Setting:
    return made_setting(configured(*overrides, source=source))
