"""Fedrax: federated reinforcement learning. Agents at many sites learn together and never share a trajectory."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedrax.api import load, resume, sweep, train
    from fedrax.config import Config, resolve
    from fedrax.errors import FedraxError
    from fedrax.evaluation.pairs import Evaluation
    from fedrax.run import Run
    from fedrax.sources import presets

    __version__: str

__all__ = [
    "Config",
    "Evaluation",
    "FedraxError",
    "Run",
    "__version__",
    "load",
    "presets",
    "resolve",
    "resume",
    "sweep",
    "train",
]

_HOMES = {
    "fedrax.api": ("load", "resume", "sweep", "train"),
    "fedrax.config": ("Config", "resolve"),
    "fedrax.errors": ("FedraxError",),
    "fedrax.evaluation.pairs": ("Evaluation",),
    "fedrax.run": ("Run",),
    "fedrax.sources": ("presets",),
}

_OF_A_RUN = (
    "audit",
    "chosen",
    "evaluate",
    "evaluate_across",
    "figure",
    "frame",
    "metrics",
    "policies",
    "policy",
    "summary",
)
"""What a run does, and somebody may look for here."""


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used (PEP 562), so that ``import fedrax`` does not wait for JAX."""
    if name == "__version__":
        from importlib.metadata import version

        return version("fedrax")
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    from fedrax.other_calls import package_hint

    hint = f"; a run has it: fedrax.load(RUN).{name}" if name in _OF_A_RUN else package_hint(name, __all__)
    raise AttributeError(f"module 'fedrax' has no attribute {name!r}{hint}")


def __dir__() -> list[str]:
    """The public names, imported or not, and the modules that are."""
    return sorted({*__all__, *globals()})
