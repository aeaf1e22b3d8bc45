"""Fedrax: federated reinforcement learning. Agents at many sites learn together and never share a trajectory."""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedrax.api import Run, load, resume, train
    from fedrax.config import Config, presets, resolve
    from fedrax.errors import FedraxError
    from fedrax.runtime.pairs import Evaluation

__version__ = version("fedrax")

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
    "train",
]

_HOMES = {
    "fedrax.api": ("Run", "load", "resume", "train"),
    "fedrax.config": ("Config", "presets", "resolve"),
    "fedrax.errors": ("FedraxError",),
    "fedrax.runtime.pairs": ("Evaluation",),
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used, so that ``fedrax --help`` does not wait for JAX."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'fedrax' has no attribute {name!r}")
