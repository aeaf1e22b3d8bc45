"""The command line: one thin function per command over :mod:`fedrax.api`."""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from fedrax import cli_federation
from fedrax.cli_checks import check_audit, check_crossing, check_effort, check_evaluation, check_smoothing, check_title
from fedrax.cli_grammar import grammar
from fedrax.cli_words import apart, is_file, unexpected
from fedrax.errors import FedraxError, one_line, shown
from fedrax.records import lock
from fedrax.records.files import append_traceback, reason
from fedrax.signals import Interrupted, stopping

if TYPE_CHECKING:
    from fedrax.run import Run
    from fedrax.runtime.library import Programs


Command = Callable[[argparse.Namespace], int | None]

LONGEST = 400
"""Characters shown of an error that may be pages long, as those of a compiler are."""


def main(arguments: list[str] | None = None, *, library: Programs | None = None) -> int:
    """Runs one command; returns the exit status: 0, 1 for a mistake a user can mend, 128 + signal when interrupted.

    Args:
        arguments: of the command line, unless it is this process's own.
        library: compiled programs of earlier runs of this process.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name in another encoding than the terminal's is shown as far as it can be.
            stream.reconfigure(errors="backslashreplace")
    if "_ARGCOMPLETE" in os.environ:
        # A shell asks what may follow: see fedrax.completion, which is imported for nobody else.
        from fedrax.completion import complete

        complete(_grammar(tuple(COMMANDS.items())))
    options = parsed(arguments)
    options.library = library

    def interrupted() -> str:
        return one_line(f"fedrax: interrupted{_how_to_continue(options.continued)}")

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
    except BaseException as error:
        # Also a plugin's `sys.exit()`. The line is as long as what is foreseen may be.
        print(f"fedrax: {FedraxError(_unforeseen(error, options.continued))}", file=sys.stderr)
        return 1
    return status or 0


def _unforeseen(error: BaseException, continued: str) -> str:
    """One line for what no command foresees, such as an error in a plugin's own code, with its traceback in a file."""
    from fedrax.plugins import described, loaded, where_own

    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {reason(error)}; mend that, or give another path"
    if isinstance(error, UnicodeEncodeError):
        return (
            f"{ascii(error.object)[:LONGEST]} cannot be written in this system's encoding, {error.encoding}; set "
            "PYTHONUTF8=1, or give another name"
        )
    written = [folder for folder in lock.written_folders() if folder.is_dir()]
    path = append_traceback(written[-1] if written else Path(tempfile.mkdtemp(prefix="fedrax-")), error)
    place, text = where_own(error), described(error)
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
    advice = "mend it" if place else "please report it with that file"
    if not place and loaded():
        advice += f", unless it comes from {', '.join(loaded())}"
    return f"{place}{text}; the traceback is in {path}; {advice}{_how_to_continue(continued)}"


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
    known = _grammar(tuple(COMMANDS.items()))
    words = sys.argv[1:] if arguments is None else arguments
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        from fedrax.other_calls import command_hint

        known.error(f"unknown command {shown(words[0])}{command_hint(words[0], COMMANDS)}")
    options, rest = known.parse_known_args(arguments)
    settings = hasattr(options, "overrides")
    if rest and (not settings or any(word.startswith("-") for word in rest)):
        options.parser.error(unexpected(rest, words, options))
    if rest:
        options.overrides = [*options.overrides, *rest]
    if settings and (said := apart([*_before(options), *options.overrides])):
        options.parser.error(said)
    if options.command is _describe:
        options.source = options.name
    if options.command in (_train, _describe) and "=" in options.source and not is_file(options.source):
        # Nothing but key=value: the defaults are the source.
        options.source, options.overrides = None, [options.source, *options.overrides]
    return options


def _before(options: argparse.Namespace) -> list[str]:
    """The words before the settings, the first of which argparse may have taken for one of these."""
    if options.command is _import:
        return [options.source, *options.files]
    return [options.name] if options.command is _describe else [str(getattr(options, "source", ""))]


@functools.cache
def _grammar(commands: tuple[tuple[str, Command], ...]) -> argparse.ArgumentParser:
    return grammar(dict(commands))


# Commands import what they need: JAX takes a second, and `fedrax --help` should not.


def _train(options: argparse.Namespace) -> None:
    from fedrax.opening import opening

    if not options.quiet:
        print(opening(options.source, options.overrides), flush=True)
    from fedrax import api

    run = api.train(
        options.source,
        options.overrides,
        seeds=options.seeds,
        out=options.out,
        progress=not options.quiet,
        plugins=options.plugins,
        library=options.library,
    )
    _print_summary(run)


def _resume(options: argparse.Namespace) -> None:
    from fedrax.opening import opening

    config = options.run / "config.toml"
    if not options.quiet and is_file(config):
        # A damaged file is refused below, in words that know what the run wrote.
        with contextlib.suppress(FedraxError):
            print(opening(config, options.overrides), flush=True)
    from fedrax import api

    run = api.resume(
        options.run,
        options.overrides,
        progress=not options.quiet,
        plugins=options.plugins,
        library=options.library,
    )
    _print_summary(run)


def _evaluate(options: argparse.Namespace) -> None:
    from fedrax import api
    from fedrax.printing import across_lines, best_line, evaluation_lines
    from fedrax.records.across import rounds_done, write_across

    check_evaluation(options)
    run = api.load(options.run, plugins=options.plugins)
    settings = {
        "episodes": options.episodes,
        "policy": options.policy,
        "evaluation_seed": options.evaluation_seed,
    }
    personal, config = run.config.hands_out_own(), run.config
    check_effort(
        options.episodes,
        (config.federation.agents if personal else 1) * config.seeds,
        (options.unseen or config.federation.agents) if options.across or options.unseen else 1,
        agreed=options.yes,
    )
    if options.across or options.unseen:
        # Before: the run may go on meanwhile.
        rounds = rounds_done(run.directory)
        results = run.evaluate_across(**settings, unseen=options.unseen)
        for seed, result in results.items():
            _print(across_lines(seed, result, episodes=options.episodes, unseen=options.unseen > 0))
        if not options.unseen:
            means = {seed: result.returns.mean(-1) for seed, result in results.items()}
            write_across(run.path, means, episodes=options.episodes, policy=options.policy, rounds=rounds)
        return
    for seed, result in run.evaluate(**settings, environments=options.environments).items():
        tasks = config.environment.tasks
        _print(evaluation_lines(seed, result, personal=personal, asked=options.episodes, tasks=tasks))
    if options.policy == "best" and (line := best_line(run, options.evaluation_seed)):
        print(line)


def _audit(options: argparse.Namespace) -> None:
    from fedrax import api
    from fedrax.audit.base import Effort
    from fedrax.printing import audit_lines

    check_audit(options)
    record = api.audit(
        options.run,
        plugins=options.plugins,
        attacks=[] if options.attacks is None else options.attacks.split(","),
        effort=Effort(repetitions=options.repetitions),
        seed=options.seed,
        against=options.against,
        progress=not options.quiet,
    )
    _print(audit_lines(record))


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


def _print_summary(run: Run) -> None:
    from fedrax.printing import summary_lines

    _print(summary_lines(run))


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


def _import(options: argparse.Namespace) -> None:
    from fedrax.sources import parse_override

    changes = [word for word in options.files if "=" in word and not Path(word).exists()]
    for change in changes:
        # Before what else is missing is asked for.
        parse_override(change)
    from fedrax.exchange.imports import import_networks

    run = import_networks(
        options.source,
        [Path(word) for word in options.files if word not in changes],
        [*changes, *options.overrides],
        out=options.out,
        plugins=options.plugins,
    )
    print(run.path)


def _export(options: argparse.Namespace) -> None:
    from fedrax.exchange.exports import export

    path = export(
        options.run,
        options.to,
        policy=options.policy,
        seed=options.seed,
        agent=options.agent,
        out=options.out,
        plugins=options.plugins,
    )
    print(path)


def _report(options: argparse.Namespace) -> None:
    from fedrax.report.outputs import suffix_of, write_outputs

    check_title(options.title)
    suffix = suffix_of(options.out, options.table, options.figure)
    check_smoothing(options, suffix)
    check_crossing(options, suffix)
    crossing = None if options.rows is None else (options.rows, options.columns)
    smoothing = options.smoothing or 1
    _print(
        write_outputs(options.runs, suffix, options.out, title=options.title, smoothing=smoothing, crossing=crossing)
    )


def _reproduce(options: argparse.Namespace) -> None:
    from fedrax import api
    from fedrax.report.reproduce import reproduce

    def train(preset: str, overrides: list[str], seeds: int, out: Path) -> Path:
        return api.train_or_resume(preset, overrides, seeds=seeds, out=out).path

    out = options.out or Path("runs") / "reproduce" / options.figure
    print(reproduce(options.figure, out, seeds=options.seeds, train=train, overrides=options.overrides))


def _sweep(options: argparse.Namespace) -> int:
    from fedrax.opening import sweep_opening

    print(sweep_opening(options.file), flush=True)
    from fedrax import api

    if options.dry_run:
        api.show_sweep(options.file, jobs=options.jobs)
        return 0
    return api.sweep(options.file, jobs=options.jobs, retry=options.retry, many=options.yes).status


def _completion(options: argparse.Namespace) -> None:
    from fedrax.completion import script

    print(script(options.shell))


def _list(options: argparse.Namespace) -> None:
    from fedrax.listing import listed

    print(listed(options.plugins))


def _describe(options: argparse.Namespace) -> None:
    from fedrax.describe import configuration
    from fedrax.explain import explained

    if options.source is None:
        print(configuration(None, options.overrides, plugins=options.plugins))
    else:
        print(explained(options.source, options.overrides, plugins=options.plugins))


COMMANDS: dict[str, Command] = {
    "train": _train,
    "resume": _resume,
    "evaluate": _evaluate,
    "audit": _audit,
    "render": _render,
    "import": _import,
    "export": _export,
    "report": _report,
    "reproduce": _reproduce,
    "sweep": _sweep,
    "server": cli_federation.server,
    "node": cli_federation.node,
    "certificates": cli_federation.certificates,
    "deploy": cli_federation.deploy,
    "status": cli_federation.status,
    "completion": _completion,
    "watch": cli_federation.watch,
    "list": _list,
    "describe": _describe,
}


if __name__ == "__main__":
    sys.exit(main())
