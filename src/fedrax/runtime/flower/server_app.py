"""Flower's ServerApp: the server's half of a federation, in a run directory like any other's."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedrax.config import resolve
from fedrax.errors import FedraxError
from fedrax.records.files import write_atomic
from fedrax.records.rundir import RunDirectory, default_directory
from fedrax.runtime.compiling import enable_compilation_cache
from fedrax.runtime.distributed.server import DistributedRuntime
from fedrax.runtime.flower.app import LASTING
from fedrax.runtime.flower.run_lock import LOG, REFUSED_PARTS, WHY, held
from fedrax.runtime.flower.transport import FlowerTransport
from fedrax.runtime.training import train_run

POLL_SECONDS = {False: 0.25, True: 0.1}
"""Between two looks for answers, by whether the run is fast."""

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Trains what the run's configuration names, from the last checkpoint where there is one."""
    settings = context.run_config
    overrides = [*shlex.split(str(settings.get("overrides", ""))), "runtime=flower"]
    config = resolve(str(settings["preset"]), overrides)
    out = str(settings.get("directory", ""))
    directory = RunDirectory.create(Path(out) if out else default_directory(config.name), resume=True)
    if not directory.is_run():
        directory.write_config(config.to_toml())
    enable_compilation_cache()
    with held(directory.path):
        try:
            serve(grid, directory, keys=settings.get("keys", "") == LASTING)
        except FedraxError as error:
            # The supervising command learns why the run ended, and does not start it again.
            write_atomic(directory.path / WHY, f"{error}\n")
            raise


def serve(grid: Grid, directory: RunDirectory, *, keys: bool) -> None:
    """Trains the run in ``directory`` on the nodes that the grid reaches; ``keys`` as of :class:`FlowerTransport`."""
    config = resolve(directory.config)

    def note(text: str) -> None:
        with open(directory.path / LOG, "a") as log:
            log.write(f"{time.strftime('%H:%M:%S')} {text}\n")

    parts = directory.path / "flower" / REFUSED_PARTS

    def refused(part: str) -> bool:
        return parts.exists() and part in parts.read_text().split()

    federation = DistributedRuntime(
        config,
        FlowerTransport(grid, keys=keys, refused=refused),
        directory,
        note=note,
        poll=POLL_SECONDS[config.runtime.flower.fast],
    )
    try:
        train_run(config, federation, directory, progress=False)
    finally:
        federation.close()
