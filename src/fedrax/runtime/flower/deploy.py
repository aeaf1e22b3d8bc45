"""``fedrax deploy``: how a preset becomes a running federation."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from fedrax.config import presets, resolve
from fedrax.runtime.distributed.allowed import check_distributed
from fedrax.runtime.flower.app import write_app
from fedrax.runtime.flower.endpoint import is_loopback, split_address
from fedrax.runtime.make import make_runtime


def deploy(source: str, overrides: Sequence[str], *, superlink: str, app: Path | None) -> str:
    """What to run where, as text; with ``app``, a Flower app written there, and how Flower runs it.

    Raises:
        FedraxError: a configuration or an address that cannot be used.
    """
    config = resolve(source, [*overrides, "runtime=flower"])
    runtime = make_runtime(config, agents=False)
    runtime.close()
    check_distributed(config, runtime.federation)
    host, _ = split_address(superlink)
    agents = config.federation.agents
    named = source if source in presets() else str(Path(source).resolve())
    if app is not None:
        write_app(app, {"preset": named, "overrides": shlex.join(overrides)})
        simulated = f"num-supernodes={agents} client-resources-num-cpus=1"
        return "\n".join(
            [
                f"wrote {app / 'pyproject.toml'}: a Flower app, for every machine where fedrax[flower] is installed",
                f"  flwr run {shlex.quote(str(app))} local --stream --federation-config {shlex.quote(simulated)}",
                "    # in Flower's simulation on this machine, which needs fedrax[flower-simulation]",
                f"  flwr run {shlex.quote(str(app))} CONNECTION --stream",
                f"    # on the SuperLink that ~/.flwr/config.toml calls so, with {agents} nodes: `fedrax node`",
                f"  flwr run {shlex.quote(str(app))} local --run-config 'overrides=\"budget.rounds=10\"'",
                "    # other overrides in place of these",
            ]
        )
    secure = not is_loopback(host)
    certificates = " --certificates certificates" if secure else ""
    lines = ["# on the server"]
    if secure:
        lines.append(f"fedrax certificates certificates --host {host} --nodes {agents}")
    lines.append(f"fedrax server {shlex.join([source, *overrides])} --superlink {superlink}{certificates}")
    brought = "authority.crt and a key of its own" + (", and all nodes' .pub" if config.privacy.secure_sum else "")
    lines.append(f"# at each of {agents} sites" + (f", with {brought}" if secure else ""))
    plugins = "".join(f" --plugins {Path(plugin).name}" for plugin in config.plugins)
    key = " --key certificates/nodes/node-K" if secure else ""
    peers = " --peers certificates/nodes" if secure and config.privacy.secure_sum else ""
    lines.append(f"fedrax node --superlink {superlink}{certificates}{key}{peers} --data node-K{plugins}")
    return "\n".join(lines)
