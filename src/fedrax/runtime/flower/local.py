"""``fedrax train PRESET runtime=flower``: a whole federation of processes on the loopback, for trying and for tests."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from fedrax.config import Config, resolve
from fedrax.records.rundir import RunDirectory
from fedrax.runtime.flower.endpoint import Endpoint
from fedrax.runtime.flower.processes import STAGES, Watched, environment, free_port
from fedrax.runtime.flower.serving import serve
from fedrax.supervision import stop_all


def train_locally(directory: RunDirectory, *, progress: bool) -> None:
    """Trains the run in ``directory`` with a server and one node for every agent, all on this machine.

    Raises:
        FedraxError: as :func:`~fedrax.runtime.flower.serving.serve`.
    """
    config = resolve(directory.config)
    endpoint = Endpoint(f"127.0.0.1:{free_port()}", None)
    folder = directory.path.resolve() / "nodes"
    nodes: list[Watched] = []
    with contextlib.ExitStack() as stack:

        def ready() -> None:
            # All at once, as each takes seconds to end.
            stack.callback(lambda: stop_all([node.process for node in nodes], STAGES))
            # Not before the server has its SuperLink: somebody else's might be at this address by now.
            for agent in range(config.federation.agents):
                command = node_command(config, endpoint, folder, agent)
                node = Watched(command, folder / f"node-{agent}.log", environment(folder))
                node.start()
                nodes.append(node)

        serve(
            directory,
            endpoint,
            progress=progress,
            ready=ready,
            # A node ends well when its run is over.
            meanwhile=lambda: [node.watch() or "" for node in nodes if node.process.poll() != 0],
        )


def node_command(config: Config, endpoint: Endpoint, folder: Path, agent: int) -> list[str]:
    """One node, as at a site of its own."""
    command = [sys.executable, "-m", "fedrax.cli", "node", "--superlink", endpoint.address, "--agent", str(agent)]
    command += ["--data", str(folder / f"node-{agent}")]
    for plugin in config.plugins:
        command += ["--plugins", plugin]
    if config.runtime.shared_seeds:
        command.append("--shared-seeds")
    return [*command, "--fast"] if config.runtime.flower.fast else command
