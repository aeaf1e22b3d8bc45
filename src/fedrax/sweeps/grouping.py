"""Which seeds of a setup train together, in one run whose program computes all of them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import jax

from fedrax.config import Config
from fedrax.errors import FedraxError
from fedrax.records.rundir import RunDirectory
from fedrax.runtime.draws import describe_run, runs_native
from fedrax.runtime.library import shape_of
from fedrax.runtime.make import make_federation
from fedrax.runtime.memory import machine_memory, size_of

FOLDER = re.compile(r"seed-(\d+)|seeds-(\d+)-(\d+)")
MOST_SEEDS = 100
"""Seeds of one run: its records are read whole."""
MEMORY_SHARE = 0.5
"""Of the machine's memory, what the states of all jobs that run at once may take."""


def folder_of(seeds: Sequence[int]) -> str:
    """The name of the run of these seeds."""
    return f"seed-{seeds[0]}" if len(seeds) == 1 else f"seeds-{seeds[0]}-{seeds[-1]}"


def most_together(config: Config, *, at_once: int, known: dict[str, int] | None = None) -> int:
    """How many seeds of this configuration one run may train, where so many runs train at once.

    One, where seeds take turns anyway (environments outside of JAX, nodes), and where something is drawn from a run's
    first seed, which a run of its own would draw otherwise: environments that differ, and graphs. And as many as
    fit into the memory with their networks and replays.

    Args:
        known: bytes of a seed's state by :func:`.library.shape_of`, to which this one's are added: making one takes a
            tenth of a second.
    """
    settings = config.environment
    drawn = settings.heterogeneity or settings.goals is not None or settings.tasks
    given = config.learner.get("initial") is not None or config.strategy.get("saved") is not None
    apart = config.runtime.kind == "flower" or not runs_native(config) or config.video.every is not None
    if drawn or given or apart or config.component("strategy").draws:
        return 1
    known, shape, available = {} if known is None else known, shape_of(config), machine_memory()
    if shape not in known:
        known[shape] = _state_bytes(config)
    if not known[shape] or available is None:
        return MOST_SEEDS
    return min(MOST_SEEDS, max(1, int(MEMORY_SHARE * available // (known[shape] * at_once))))


def _state_bytes(config: Config) -> int:
    """Of one seed; 0 where it cannot be made, which is told when the setup is checked, with its name."""
    described, _ = describe_run(config)
    try:
        federation = make_federation(config, described.spaces, described.horizon(config.environment.horizon))
        # Only shapes are made, so that the sweep's process takes no accelerator.
        return size_of(jax.eval_shape(lambda: federation.init(jax.random.key(0), ())))
    except Exception:  # A plugin's may be any.
        return 0


def grouped(seeds: Sequence[int], folder: Path, *, together: int, parts: int) -> list[tuple[int, ...]]:
    """The seeds of each run of a setup whose runs lie in ``folder``, at most so many ``together``.

    Runs that lie there keep their seeds: those of earlier versions have one each. The others follow one another in a
    run, which are at least ``parts`` runs where there are as many seeds.

    Raises:
        FedraxError: a run there has other seeds beside some of these.
    """
    wanted, kept = set(seeds), []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        match = FOLDER.fullmatch(path.name)
        if match is None or not RunDirectory(path).is_run():
            continue
        first, last = int(match[1] or match[2]), int(match[1] or match[3])
        found = range(first, last + 1)
        if wanted.issuperset(found):
            kept.append(tuple(found))
            wanted.difference_update(found)
        elif wanted.intersection(found):
            raise FedraxError(
                f"{path} is a run of seeds {first} to {last}, of which the sweep has only some: set seeds to all of "
                "them, or give the sweep another out"
            )
    size = max(1, min(together, math.ceil(len(wanted) / max(1, parts - len(kept)))))
    runs: list[tuple[int, ...]] = []
    for seed in (seed for seed in seeds if seed in wanted):
        if runs and len(runs[-1]) < size and runs[-1][-1] + 1 == seed:
            runs[-1] = (*runs[-1], seed)
        else:
            runs.append((seed,))
    return [*sorted(kept), *runs]
