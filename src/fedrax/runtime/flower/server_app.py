"""Flower's ServerApp: the server's half of a federation, in a run directory like any other's."""

from __future__ import annotations

import contextlib
import os
import shlex
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedrax.config import Config, resolve
from fedrax.errors import FedraxError
from fedrax.records.files import append_traceback, owner_only, write_atomic
from fedrax.records.lock import COMMAND
from fedrax.records.rundir import RunDirectory, default_directory
from fedrax.records.sites import key_names
from fedrax.records.summary import read_summary
from fedrax.runtime.compiling import enable_compilation_cache
from fedrax.runtime.distributed.server import DistributedRuntime
from fedrax.runtime.flower.app import LASTING
from fedrax.runtime.flower.run_lock import LOG, REFUSED_PARTS, WHY, Tail, held
from fedrax.runtime.flower.transport import FlowerTransport
from fedrax.runtime.training import train_run

POLL_SECONDS = {False: 0.25, True: 0.1}
"""Between two looks for answers, by whether the run is fast."""

app = ServerApp()
# In Flower's simulation Ray starts its processes beside JAX's threads: by a fork that becomes another program at once.
warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Trains what the run's configuration names, from the last checkpoint where there is one."""
    settings = context.run_config
    out = str(settings.get("directory", ""))
    directory = RunDirectory.create(out or default_directory(configured(settings).name), resume=True)
    if not directory.is_run():
        directory.write_config(configured(settings).to_toml())
    # Under `fedrax server` that says all of it; elsewhere it is what `flwr run --stream` and `flwr log` show.
    told = COMMAND not in os.environ
    if told:
        print(f"the run is in {directory.path.resolve()}", flush=True)
    with held(directory.path), recorded(directory.path):
        enable_compilation_cache()
        serve(grid, directory, keys=settings.get("keys", "") == LASTING, told=told)


def configured(settings: Mapping[str, Any]) -> Config:
    """What the app's configuration stands for."""
    return resolve(str(settings["preset"]), [*shlex.split(str(settings.get("overrides", ""))), "runtime=flower"])


@contextlib.contextmanager
def recorded(folder: Path) -> Iterator[None]:
    """Writes to a run's folder why this process ends, where it fails: Flower's log is not with the run everywhere."""
    try:
        yield
    except FedraxError as error:
        # The supervising command learns why the run ended, and does not start it again.
        write_atomic(folder / WHY, f"{error}\n", private=True)
        raise
    except Exception as error:
        append_traceback(folder, error)
        raise


def serve(grid: Grid, directory: RunDirectory, *, keys: bool, told: bool) -> None:
    """Trains the run in ``directory`` on the nodes that the grid reaches.

    Args:
        keys: as of :class:`FlowerTransport`.
        told: whether to print what people should know, and how far it is.
    """
    config = resolve(directory.config)

    def note(text: str) -> None:
        if told:
            print(text, flush=True)
        with open(directory.path / LOG, "a", encoding="utf-8", opener=owner_only) as log:
            log.write(f"{time.strftime('%H:%M:%S')} {text}\n")

    lines, parts = Tail(directory.path / "flower" / REFUSED_PARTS), set[str]()

    def refused(part: str) -> bool:
        parts.update(lines.lines())
        return part in parts

    federation = DistributedRuntime(
        config,
        FlowerTransport(grid, keys=keys, names=key_names(directory.path), refused=refused),
        directory,
        note=note,
        poll=POLL_SECONDS[config.runtime.flower.fast],
    )
    try:
        train_run(config, federation, directory, progress=told)
        # The run is done and recorded: nodes that cannot be told stay, and change nothing of that.
        with contextlib.suppress(Exception):
            federation.end(int(read_summary(directory)["rounds"]))
    finally:
        federation.close()
