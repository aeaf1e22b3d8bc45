"""The commands of federations of processes, and those that follow what trains."""

from __future__ import annotations

import argparse
from pathlib import Path

from fedrax.cli_checks import MOST_NODES, check_between
from fedrax.errors import FedraxError
from fedrax.records import lock
from fedrax.signals import orderly

# Commands import what they need, as those of fedrax.cli do.


def server(options: argparse.Namespace) -> None:
    """Serves a run to nodes, until its budget is used."""
    from fedrax.runtime.flower import needed

    needed()
    from fedrax.runtime.flower.endpoint import Endpoint
    from fedrax.runtime.flower.health import check_free

    endpoint = Endpoint(options.superlink, options.certificates)
    endpoint.check()
    # Before anything is written.
    check_free(endpoint.address)
    if not options.quiet:
        print(f"starting a server at {endpoint.address}; the run goes to {options.out or 'a new folder'}", flush=True)
    # These import JAX, which takes seconds.
    from fedrax.printing import summary_lines
    from fedrax.run import Run
    from fedrax.runtime.flower.serving import prepared, serve

    directory = prepared(options.source, options.overrides, options.out, plugins=options.plugins)
    with lock.held(directory.path), orderly():
        serve(directory, endpoint, progress=not options.quiet)
    for line in summary_lines(Run(directory.path)):
        print(line)


def node(options: argparse.Namespace) -> None:
    """Takes part in a server's runs."""
    from fedrax.runtime.flower import needed

    needed()
    from fedrax.plugins import located
    from fedrax.runtime.flower.endpoint import Endpoint
    from fedrax.runtime.flower.node import run_node

    if options.agent is not None and options.agent < 0:
        raise FedraxError(f"--agent {options.agent} is not allowed: agents are numbered from 0")
    own = [] if options.environment is None else [f"environment.id={options.environment}"]
    with orderly():
        run_node(
            Endpoint(options.superlink, options.certificates),
            options.data,
            key=options.key,
            peers=options.peers,
            agent=options.agent,
            overrides=[*own, *options.overrides],
            plugins=[located(plugin, Path.cwd()) for plugin in options.plugins],
            shared_seeds=options.shared_seeds,
            stay=options.stay,
            fast=options.fast,
            say=lambda text: print(text, flush=True),
        )


def certificates(options: argparse.Namespace) -> None:
    """Makes what a trial with TLS needs."""
    from fedrax.runtime.flower import needed

    needed()
    from fedrax.runtime.flower.certificates import make_certificates

    check_between("nodes", options.nodes, 1, MOST_NODES)
    for path in make_certificates(options.folder, options.host or ["127.0.0.1", "localhost"], options.nodes):
        print(path)


def deploy(options: argparse.Namespace) -> None:
    """Prints, or writes, what runs a configuration as a Flower app."""
    from fedrax.runtime.flower import needed

    needed()
    from fedrax.runtime.flower.deploy import deploy

    print(deploy(options.source, options.overrides, superlink=options.superlink, app=options.app))


def status(options: argparse.Namespace) -> None:
    """Says how far what trains is, and who answers."""
    from fedrax.records.exchanges import EXCHANGES
    from fedrax.records.refusals import REFUSALS
    from fedrax.watch.runs import Watched
    from fedrax.watch.status import follow, standing_text

    watched = Watched(options.run)

    def text() -> tuple[str, bool]:
        shown, over = standing_text(watched)
        if any((options.run / name).exists() for name in (EXCHANGES, REFUSALS)):
            from fedrax.runtime.flower.status import show_status

            shown = show_status(options.run)
        return shown, over

    if options.watch:
        follow(text)
    else:
        print(text()[0])


def watch(options: argparse.Namespace) -> None:
    """Serves a page that follows runs."""
    from fedrax.watch.server import watch

    watch(options.run, port=options.port, browser=options.open, say=lambda text: print(text, flush=True))
