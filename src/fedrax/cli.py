"""The command line: one thin function per command over :mod:`fedrax.api`."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import tempfile
from pathlib import Path

from fedrax.errors import FedraxError
from fedrax.records import lock
from fedrax.records.files import append_traceback, reason
from fedrax.signals import Interrupted, orderly, stopping

WHERE = {
    "all": "every agent's environment",
    "own": "each agent's own environment",
    "registered": "the registered environment",
}
"""What a summary says of ``evaluation.environments``."""
LOOPBACK = "127.0.0.1:9092"
"""Where the SuperLink of a trial on one machine is."""

LONGEST = 400
"""Characters shown of an error that may be pages long, as those of a compiler are."""

MOVED = "where a plugin of the run is now, if it was moved"


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0, 1 for a mistake a user can mend, 128 + signal when interrupted."""
    options = parsed(arguments)

    def interrupted() -> str:
        return f"fedrax: interrupted{_how_to_continue(options.continued)}"

    try:
        with stopping(interrupted):
            status = options.command(options)
    except FedraxError as error:
        print(f"fedrax: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as request:
        print(interrupted(), file=sys.stderr)
        return 128 + (request.number if isinstance(request, Interrupted) else signal.SIGINT)
    except BrokenPipeError:
        return 1
    except Exception as error:
        print(f"fedrax: {_unforeseen(error, options.continued)}", file=sys.stderr)
        return 1
    return status or 0


def _unforeseen(error: Exception, continued: str) -> str:
    """One line for what no command foresees, such as an error in a plugin's own code, with its traceback in a file."""
    from fedrax.plugins import described, where_own

    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {reason(error)}; mend that, or give another path"
    written = [folder for folder in lock.written_folders() if folder.is_dir()]
    path = append_traceback(written[-1] if written else Path(tempfile.mkdtemp(prefix="fedrax-")), error)
    place, text = where_own(error), described(error)
    shown = text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
    advice = "mend it" if place else "please report it with that file"
    return f"{place}{shown}; the traceback is in {path}; {advice}{_how_to_continue(continued)}"


def _how_to_continue(words: str) -> str:
    """A command's words on how it goes on, where it has written a checkpoint of a run that is not finished."""
    for folder in reversed(lock.written_folders() if words else ()):
        names = (path.stem.rpartition("-")[2] for path in (folder / "checkpoints").glob("checkpoint-*.safetensors"))
        rounds = max((int(name) for name in names if name.isdigit()), default=None)
        if rounds is not None and not (folder / "summary.json").exists():
            return f"; {words.format(run=shlex.quote(str(folder)), rounds=rounds)}"
    return ""


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The arguments, ``key=value`` wherever they stand: argparse by itself takes them only in one place."""
    grammar = parser()
    options, rest = grammar.parse_known_args(arguments)
    if rest and (not hasattr(options, "overrides") or any(word.startswith("-") for word in rest)):
        grammar.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.overrides = [*options.overrides, *rest]
    if options.command is _train and "=" in options.source and not Path(options.source).is_file():
        # Nothing but key=value: the defaults are the source.
        options.source, options.overrides = None, [options.source, *options.overrides]
    return options


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    top = argparse.ArgumentParser(prog="fedrax", description="Federated reinforcement learning.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: object, text: str, continued: str = "") -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(command=function, continued=continued)
        return added

    resumed = "`fedrax resume {run}` continues from round {rounds}"
    train = command("train", _train, "train a preset or a TOML file", resumed)
    train.add_argument("source", metavar="PRESET", help="a preset (fedrax list), a TOML file, or neither")
    train.add_argument("overrides", nargs="*", metavar="key=value", help="for example attack=alie attack.agents=3")
    train.add_argument("--seeds", type=int, metavar="N", help="train N seeds at once")
    train.add_argument("--out", type=Path, metavar="DIR", help="run directory (default: runs/NAME-TIME)")
    train.add_argument("--quiet", action="store_true", help="no progress")
    _takes_plugins(train, "load this too")

    resume = command("resume", _resume, "continue a run from its last checkpoint, or extend a finished one", resumed)
    resume.add_argument("run", type=Path, metavar="RUN")
    resume.add_argument("overrides", nargs="*", metavar="key=value", help="what changes, for example budget.rounds=800")
    resume.add_argument("--quiet", action="store_true", help="no progress")
    _takes_plugins(resume, MOVED)

    evaluate = command("evaluate", _evaluate, "evaluate a run's policy greedily")
    evaluate.add_argument("run", type=Path, metavar="RUN")
    evaluate.add_argument("--episodes", type=int, default=100, metavar="N", help="of each policy (default: 100)")
    evaluate.add_argument("--policy", choices=("last", "best"), default="last", help="which policy (default: last)")
    evaluate.add_argument("--across", action="store_true", help="every agent's policy in every agent's environment")
    evaluate.add_argument("--unseen", type=int, default=0, metavar="N", help="in N environments that no agent has")
    where = "in which environments (default: as the run was evaluated)"
    evaluate.add_argument("--environments", choices=("all", "own", "registered"), help=where)
    evaluate.add_argument("--evaluation-seed", type=int, metavar="S", help="seed of the initial states")
    _takes_plugins(evaluate, MOVED)

    render = command("render", _render, "record videos of a run's policy")
    render.add_argument("run", type=Path, metavar="RUN")
    render.add_argument("--episodes", type=int, default=1, metavar="N", help="episodes (default: 1)")
    render.add_argument("--agent", type=int, default=0, metavar="K", help="whose policy and environment (default: 0)")
    render.add_argument("--policy", choices=("last", "best"), default="last", help="which policy (default: last)")
    render.add_argument("--format", choices=("mp4", "gif", "both"), default="both", help="(default: both)")
    render.add_argument("--out", type=Path, metavar="STEM", help="path without suffix (default: RUN/video)")
    _takes_plugins(render, MOVED)

    report = command("report", _report, "write one HTML report, and a figure, of several runs")
    report.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    report.add_argument("--out", type=Path, metavar="FILE", help="(default: report.html in the first run)")
    report.add_argument("--title", default="", metavar="TEXT", help="heading of the page and of the figure")

    again = "the same command goes on with what is missing"
    reproduce = command("reproduce", _reproduce, "train a published figure's runs and draw ours beside it", again)
    reproduce.add_argument("figure", metavar="FIGURE", help="see fedrax list")
    reproduce.add_argument("overrides", nargs="*", metavar="key=value")
    reproduce.add_argument("--seeds", type=int, metavar="N", help="seeds of each run")
    reproduce.add_argument("--out", type=Path, metavar="DIR", help="(default: runs/reproduce/FIGURE)")

    sweep = command("sweep", _sweep, "run named setups times seeds, several at once, or what is missing of them", again)
    sweep.add_argument("file", type=Path, metavar="FILE", help="a TOML file (python -m pydoc fedrax.sweep)")
    sweep.add_argument("--jobs", type=int, metavar="N", help="runs at once (default: as the file says)")
    sweep.add_argument("--retry", type=int, default=0, metavar="N", help="try a failed run again N times (default: 0)")
    sweep.add_argument("--dry-run", action="store_true", help="only show what would be run")

    text = "train on nodes elsewhere: start a SuperLink and the server's half of a run"
    server = command("server", _server, text, "the same command with --out {run} continues from round {rounds}")
    server.add_argument("source", metavar="PRESET", help="a preset or the path of a TOML file")
    server.add_argument("overrides", nargs="*", metavar="key=value")
    _at_superlink(server)
    server.add_argument("--out", type=Path, metavar="DIR", help="run directory; a run that is there goes on")
    server.add_argument("--quiet", action="store_true", help="no table of who answers")
    _takes_plugins(server, "load this too; of a run that goes on, " + MOVED)

    node = command("node", _node, "be one agent of a federation, in this site's environment")
    node.add_argument("overrides", nargs="*", metavar="environment.key=value", help="what is different at this site")
    _at_superlink(node)
    node.add_argument("--key", type=Path, metavar="FILE", help="this node's private key")
    node.add_argument("--environment", metavar="ID", help="this site's environment (default: as the server says)")
    node.add_argument(
        "--agent", type=int, metavar="K", help="the agent to be (default: the first that no other node is)"
    )
    node.add_argument("--data", type=Path, metavar="DIR", default=Path("node"), help="its state (default: ./node)")
    _takes_plugins(node, "this site's copy of a plugin that the run needs; no other is imported")
    node.add_argument("--fast", action="store_true", help="poll more often and answer at once, by internals of Flower")

    certificates = command("certificates", _certificates, "make a trial's certificates and keys")
    certificates.add_argument("folder", type=Path, metavar="DIR")
    certificates.add_argument("--host", action="append", metavar="NAME", help="of the server; may be repeated")
    certificates.add_argument("--nodes", type=int, default=3, metavar="N", help="keys for nodes (default: 3)")

    deploy = command("deploy", _deploy, "say, or write as a Flower app, how a preset becomes a running federation")
    deploy.add_argument("source", metavar="PRESET", help="a preset or the path of a TOML file")
    deploy.add_argument("overrides", nargs="*", metavar="key=value")
    deploy.add_argument("--app", type=Path, metavar="DIR", help="write a Flower app there, for `flwr run`")
    deploy.add_argument("--superlink", metavar="HOST:PORT", default=LOOPBACK, help=f"(default: {LOOPBACK})")

    status = command("status", _status, "who answers in a federation, how fast, and why not")
    status.add_argument("run", type=Path, metavar="RUN")

    listed = command("list", _list, "everything that can be named on the command line")
    _takes_plugins(listed, "list what this registers too")

    describe = command(
        "describe",
        _describe,
        "every option of a component, component kind, preset, joint distribution or native environment",
    )
    describe.add_argument("name", metavar="NAME", help="for example fedpg-br, krum, federation, fedpg-br/cartpole")
    _takes_plugins(describe, "what registers the name")
    return top


def _takes_plugins(command: argparse.ArgumentParser, text: str) -> None:
    command.add_argument(
        "--plugins", action="append", default=[], metavar="FILE_OR_MODULE", help=f"{text}; may be repeated"
    )


def _at_superlink(command: argparse.ArgumentParser) -> None:
    command.add_argument("--superlink", metavar="HOST:PORT", default=LOOPBACK, help=f"(default: {LOOPBACK})")
    command.add_argument("--certificates", type=Path, metavar="DIR", help="what `fedrax certificates` made")


# Commands import what they need: JAX takes a second, and `fedrax --help` should not.


def _train(options: argparse.Namespace) -> None:
    from fedrax import api

    run = api.train(
        options.source,
        options.overrides,
        seeds=options.seeds,
        out=options.out,
        progress=not options.quiet,
        plugins=options.plugins,
    )
    _print_summary(run)


def _resume(options: argparse.Namespace) -> None:
    from fedrax import api

    _print_summary(api.resume(options.run, options.overrides, progress=not options.quiet, plugins=options.plugins))


def _print_summary(run: object) -> None:
    from fedrax.api import Run

    assert isinstance(run, Run)
    summary = run.summary()

    def text(value: object) -> str:
        values = value if isinstance(value, list) else [value]
        known = [None if v != v else v for v in values]  # NaN: not measured.
        return ", ".join("-" if v is None else f"{v:,.1f}" if isinstance(v, float) else f"{v:,}" for v in known)

    seeds = summary["seeds"]
    if len(seeds) > 1:
        print(f"{'seeds':18} {', '.join(map(str, seeds))}; where a line has several values, one of each seed")
    for name in (
        "final_return",
        "final_return_worst",
        "best_return",
        "final_success",
        "rounds",
        "trajectories",
        "total_steps",
        "seconds_compile",
        "seconds_train",
    ):
        if name in summary:
            print(f"{name:18} {text(summary[name])}")
    print(f"{'evaluated in':18} {WHERE[run.config.evaluation.environments or 'registered']}")
    print(f"{'run':18} {run.path}")


def _evaluate(options: argparse.Namespace) -> None:
    from fedrax import api
    from fedrax.registry import LARGEST

    for name, value, least in (("episodes", options.episodes, 1), ("unseen", options.unseen, 0)):
        if value < least:
            raise FedraxError(f"--{name} {value} is not allowed: it must be at least {least}")
    seed = options.evaluation_seed
    if seed is not None and not 0 <= seed <= LARGEST:
        raise FedraxError(f"--evaluation-seed {seed} is not allowed: it must be between 0 and {LARGEST}")
    run = api.load(options.run, plugins=options.plugins)
    settings = {
        "episodes": options.episodes,
        "policy": options.policy,
        "evaluation_seed": options.evaluation_seed,
    }
    if options.across or options.unseen:
        for seed, result in run.evaluate_across(**settings, unseen=options.unseen).items():
            kind = "unseen environment" if options.unseen else "environment"
            print(f"seed {seed}: mean return over {options.episodes} episodes, policy by {kind}")
            means = result.returns.mean(-1)
            print("policy  " + " ".join(f"{column:>8}" for column in range(means.shape[1])) + "     mean")
            for policy, row in enumerate(means):
                print(f"{policy:<6}  " + " ".join(f"{value:8.2f}" for value in row) + f" {row.mean():8.2f}")
        return
    for seed, result in run.evaluate(**settings, environments=options.environments).items():
        print(
            f"seed {seed}: return {result.returns.mean():.2f} (deviation {result.returns.std():.2f}, "
            f"min {result.returns.min():.2f}, max {result.returns.max():.2f}), "
            f"length {result.lengths.mean():.1f} steps, {result.returns.size} episodes"
        )
        if result.success is not None:
            print(f"  success in {100 * result.success.mean():.1f} % of the episodes")
        means = result.agents
        if means is not None:
            each = ", ".join(f"{mean:.2f}" for mean in means)
            print(f"  by agent: {each}; worst {means.min():.2f}, deviation of agents {means.std():.2f}")
        if result.own is not None:
            print(f"  in its own environment: {', '.join(f'{mean:.2f}' for mean in result.own.mean(1))}")


def _render(options: argparse.Namespace) -> None:
    from fedrax.render import render

    formats = ("mp4", "gif") if options.format == "both" else (options.format,)
    paths = render(
        options.run,
        episodes=options.episodes,
        policy=options.policy,
        agent=options.agent,
        formats=formats,
        out=options.out,
        plugins=options.plugins,
    )
    for path in paths:
        print(path)


def _report(options: argparse.Namespace) -> None:
    from fedrax.report.curves import natural_axis
    from fedrax.report.figures import curves_figure
    from fedrax.report.html import write_report
    from fedrax.report.runs import difference, group_runs, load_runs, parts_of

    page = write_report(options.runs, options.out or options.runs[0] / "report.html", title=options.title)
    figure = page.with_suffix(".png")
    groups = group_runs(load_runs(options.runs))
    if said := difference(groups):
        print(said)
    for number, (_, members) in enumerate(parts_of(groups), start=1):
        # Runs that were evaluated differently have no axis in common.
        path = figure if number == 1 else page.with_name(f"{page.stem}-{number}.png")
        curves_figure(members, natural_axis(members), title=options.title).savefig(path)
        print(path)
    print(page)


def _reproduce(options: argparse.Namespace) -> None:
    from fedrax import api
    from fedrax.report.reproduce import reproduce

    def train(preset: str, overrides: list[str], seeds: int, out: Path) -> Path:
        return api.train_or_resume(preset, overrides, seeds=seeds, out=out).path

    out = options.out or Path("runs") / "reproduce" / options.figure
    print(reproduce(options.figure, out, seeds=options.seeds, train=train, overrides=options.overrides))


def _sweep(options: argparse.Namespace) -> int:
    from fedrax import api

    if options.dry_run:
        api.show_sweep(options.file, jobs=options.jobs)
        return 0
    return api.sweep(options.file, jobs=options.jobs, retry=options.retry).status


def _server(options: argparse.Namespace) -> None:
    from fedrax.api import Run
    from fedrax.runtime.flower import needed

    needed()
    from fedrax.runtime.flower.endpoint import Endpoint
    from fedrax.runtime.flower.serving import prepared, serve

    endpoint = Endpoint(options.superlink, options.certificates)
    endpoint.check()
    directory = prepared(options.source, options.overrides, options.out, plugins=options.plugins)
    with lock.held(directory.path), orderly():
        serve(directory, endpoint, progress=not options.quiet)
    _print_summary(Run(directory.path))


def _node(options: argparse.Namespace) -> None:
    from fedrax.runtime.flower import needed

    needed()
    from fedrax.plugins import located
    from fedrax.runtime.flower.endpoint import Endpoint
    from fedrax.runtime.flower.node import run_node

    own = [] if options.environment is None else [f"environment.id={options.environment}"]
    with orderly():
        run_node(
            Endpoint(options.superlink, options.certificates),
            options.data,
            key=options.key,
            agent=options.agent,
            overrides=[*own, *options.overrides],
            plugins=[located(plugin, Path.cwd()) for plugin in options.plugins],
            fast=options.fast,
            say=lambda text: print(text, flush=True),
        )


def _certificates(options: argparse.Namespace) -> None:
    from fedrax.runtime.flower import needed

    needed()
    from fedrax.runtime.flower.certificates import make_certificates

    if options.nodes < 1:
        raise FedraxError(f"--nodes {options.nodes} is not allowed: it must be at least 1")
    for path in make_certificates(options.folder, options.host or ["127.0.0.1", "localhost"], options.nodes):
        print(path)


def _deploy(options: argparse.Namespace) -> None:
    from fedrax.runtime.flower import needed

    needed()
    from fedrax.runtime.flower.deploy import deploy

    print(deploy(options.source, options.overrides, superlink=options.superlink, app=options.app))


def _status(options: argparse.Namespace) -> None:
    from fedrax.runtime.flower import needed

    needed()
    from fedrax.runtime.flower.status import show_status

    print(show_status(options.run))


def _list(options: argparse.Namespace) -> None:
    import gymnasium

    from fedrax.describe import overview

    known = set(gymnasium.registry)
    _load(options.plugins)
    print(overview(gymnasium.registry.keys() - known))


def _describe(options: argparse.Namespace) -> None:
    from fedrax.describe import describe

    _load(options.plugins)
    print(describe(options.name))


def _load(plugins: list[str]) -> None:
    from fedrax.plugins import load_plugins, located

    load_plugins(located(plugin, Path.cwd()) for plugin in plugins)


if __name__ == "__main__":
    sys.exit(main())
