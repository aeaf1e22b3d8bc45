"""What a run's replays take, before it takes it."""

from __future__ import annotations

import math
import os
import sys

import jax
from jaxtyping import PyTree

from fedrax.config import Config
from fedrax.errors import FedraxError
from fedrax.federation import Federation


def replay_memory(config: Config, federation: Federation) -> int:
    """Bytes of all agents' replays, of all seeds.

    Raises:
        FedraxError: more than this machine, or its accelerator, has.
    """
    each = federation.learner.memory_bytes(federation.spaces)
    total = each * federation.agents * config.seeds
    available = device_memory()
    if available is not None and total > available:
        raise FedraxError(
            f"the replays take {size_text(total)} ({size_text(each)} for each of {federation.agents} agents, times "
            f"{config.seeds} seeds), and there are {size_text(available)}; lower learner.buffer_size"
        )
    return total


def check_memory(config: Config, state: PyTree) -> None:
    """Refuses a run whose state alone is larger than this machine's memory, before it is allocated.

    Args:
        state: arrays, or their shapes and types.

    Raises:
        FedraxError: it does not fit; what to lower is said.
    """
    total = size_of(state)
    available = device_memory()
    if available is not None and total > available:
        raise FedraxError(
            f"the run's state takes {size_text(total)} ({config.federation.agents} agents, times {config.seeds} "
            f"seeds), and there are {size_text(available)}; lower federation.agents, seeds, or the widths of networks"
        )


def size_of(tree: PyTree) -> int:
    """Bytes of the arrays in it, or of those that these shapes and types are of."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype")]
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)


def device_memory() -> int | None:
    """Bytes of the default device's memory; None where it cannot be told."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in statistics:
        return int(statistics["bytes_limit"])
    return machine_memory()


def machine_memory() -> int | None:
    """Bytes of the machine's own memory; None where it cannot be told."""
    if sys.platform == "win32":
        return None
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def size_text(count: float) -> str:
    """Bytes as people write them: ``3.4 MB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
