"""What the flags of RLHF-And-Friends/FedRL become here.

A flag that a file leaves out has the reference's default, not our preset's: the same file means the same experiment.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fedrax.config import parse_override
from fedrax.errors import FedraxError, unknown


class Flag(NamedTuple):
    """The key that a flag sets, and what it is when not given."""

    key: str
    default: Any
    values: Mapping[str, str] = {}
    """What the flag's values are called here; empty, the same."""


FLAGS: dict[str, Flag] = {
    "gym-id": Flag("environment.id", "CartPole-v1"),
    "num-envs": Flag("environment.num_envs", 4),
    "n-agents": Flag("federation.agents", 2),
    "local-updates": Flag("federation.local_updates", 16),
    "total-timesteps": Flag("budget.steps_per_agent", 25000),
    "num-steps": Flag("learner.num_steps", 128),
    "num-minibatches": Flag("learner.num_minibatches", 4),
    "update-epochs": Flag("learner.update_epochs", 4),
    "learning-rate": Flag("learner.learning_rate", 2.5e-4),
    "anneal-lr": Flag("learner.anneal_learning_rate", True),
    "gamma": Flag("learner.discount", 0.99),
    "gae-lambda": Flag("learner.gae_lambda", 0.95),
    "norm-adv": Flag("learner.normalise_advantages", True),
    "objective-mode": Flag("learner.objective", 3, {"1": "none", "2": "clip", "3": "kl", "4": "mdpo"}),
    "clip-coef": Flag("learner.clip_coefficient", 0.2),
    "clip-vloss": Flag("learner.clip_value_loss", True),
    "ent-coef": Flag("learner.entropy_coefficient", 0.01),
    "vf-coef": Flag("learner.value_coefficient", 0.5),
    "max-grad-norm": Flag("learner.max_gradient_norm", 0.5),
    "target-kl": Flag("learner.target_kl", None),
    "penalty-coeff": Flag("learner.kl_coefficient", 1.0),
    "comm-penalty-coeff": Flag("strategy.coefficient", 1.0),
    "policy-aggregation-mode": Flag(
        "strategy.weights", "default", {"default": "fixed", "average_return": "return", "scalar_product": "similarity"}
    ),
    "comm-matrix-config": Flag("strategy.topology", None),
}

STRATEGIES: dict[tuple[bool, bool], Mapping[str, Any]] = {
    (True, False): {"strategy": "neighbours"},
    (False, True): {"strategy": "gossip"},
    (True, True): {"strategy": "neighbours", "strategy.average": ["torso", "actor", "critic"]},
    (False, False): {"strategy": "local"},
}
"""By ``use-comm-penalty`` and ``average-weights``."""

WITHOUT_EQUIVALENT = frozenset(
    {
        "capture-video",
        "cuda",
        "env-parameters-config",
        "exp-description",
        "exp-name",
        "gae",
        "see-through-walls",
        "setup-id",
        "torch-deterministic",
        "track",
        "use-custom-env",
        "use-gym-id-in-run-name",
        "wandb-entity",
        "wandb-project-name",
    }
)


def translate(given: Mapping[str, Any], folder: Path) -> tuple[dict[str, Any], set[str]]:
    """A setup's flags as overrides (``strategy`` names a kind), and those flags that have no equivalent.

    Args:
        given: flag -> value, as in the file.
        folder: what a communication matrix's path is relative to.

    Raises:
        FedraxError: an unknown flag, or a value that the reference would not take either.
    """
    flags = {name.lstrip("-").replace("_", "-"): value for name, value in given.items()}
    known = {*FLAGS, *WITHOUT_EQUIVALENT, "use-comm-penalty", "average-weights", "sum-kl-divergencies", "seed"}
    for name in flags:
        if name not in known:
            raise unknown("flag", name, known)
    penalty, average = _boolean(flags, "use-comm-penalty", True), _boolean(flags, "average-weights", False)
    mean = _boolean(flags, "sum-kl-divergencies", False)
    # Which penalty counts: the reference never applies both, whatever the coefficients say.
    if penalty:
        flags["penalty-coeff"] = 0.0
    overrides = dict(STRATEGIES[penalty, average])
    for name, flag in FLAGS.items():
        if flag.key.startswith("strategy.") and not (penalty or average):
            continue
        if name == "comm-penalty-coeff" and not penalty:
            continue
        overrides[flag.key] = _value(name, flag, flags, folder)
    if penalty:
        # The mean of divergences has one direction there, whatever the objective.
        mdpo = mean or overrides["learner.objective"] == "mdpo"
        overrides["strategy.direction"] = "mdpo" if mdpo else "ppo"
        overrides["strategy.pool"] = "mean-of-kls" if mean else "arithmetic"
    if overrides.get("strategy.topology", "") is None:
        # Without a matrix agents listen to themselves alone, unless weights by return make all of them neighbours.
        overrides["strategy.topology"] = "none" if overrides["strategy.weights"] == "fixed" else "complete"
    return overrides, {*WITHOUT_EQUIVALENT} & flags.keys()


def _value(name: str, flag: Flag, flags: Mapping[str, Any], folder: Path) -> Any:
    value = flags.get(name, flag.default)
    if isinstance(flag.default, bool):
        return _boolean(flags, name, flag.default)
    if flag.values:
        if str(value) not in flag.values:
            raise unknown(f"value of {name}", str(value), flag.values)
        return flag.values[str(value)]
    if name == "comm-matrix-config" and value is not None:
        path = folder / str(value)
        if not path.is_file():
            raise FedraxError(f"comm-matrix-config = {value!r}: there is no file {path}; paths start at the JSON file")
        return os.path.realpath(path)
    if isinstance(value, str):
        return None if value == "None" else parse_override(f"value={value}")["value"]
    return value


def _boolean(flags: Mapping[str, Any], name: str, default: bool) -> bool:
    value = flags.get(name, default)
    text = str(value).lower()
    if text not in ("true", "false"):
        raise FedraxError(f"{name} = {value!r} is not allowed: it is true or false")
    return text == "true"
