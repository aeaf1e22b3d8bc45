"""The grammar of the command line: every command and its arguments."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from fedrax.errors import one_line

LOOPBACK = "127.0.0.1:9092"
"""Where the SuperLink of a trial on one machine is."""
LONGEST = 600
"""Characters of what is said of words that nobody expected."""
MOVED = "where a plugin of the run is now, if it was moved"


class Parser(argparse.ArgumentParser):
    """Whose errors are as short as all others, however long the word that is wrong."""

    def error(self, message: str) -> NoReturn:
        """Ends the process with one line: what was wrong, and the command that shows what is allowed."""
        text = one_line(message)
        text = text if len(text) <= LONGEST else f"{text[:LONGEST]}... ({len(text)} characters)"
        self.exit(2, f"{self.prog}: {text}; {self.prog} --help shows all\n")


class Version(argparse.Action):
    """``--version``: Fedrax's, Python's and JAX's, which is not imported for it."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Prints one line, and ends the process."""
        # What it needs takes as long to import as all the rest here.
        from importlib.metadata import version

        print(f"fedrax {version('fedrax')} (Python {platform.python_version()}, jax {version('jax')})")
        parser.exit()


def grammar(functions: Mapping[str, Callable[[argparse.Namespace], int | None]]) -> argparse.ArgumentParser:
    """The command line's grammar; ``functions`` are the commands' by name."""
    top = Parser(prog="fedrax", description="Federated reinforcement learning.", allow_abbrev=False)
    top.add_argument("--version", action=Version, nargs=0, help="of Fedrax, Python and JAX")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, text: str, continued: str = "") -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        added.set_defaults(command=functions[name], continued=continued, parser=added)
        return added

    resumed = "`fedrax resume {run}` continues from round {rounds}"
    train = command("train", "train a preset or a TOML file", resumed)
    train.add_argument("source", metavar="PRESET", help="a preset (fedrax list), a TOML file, or neither")
    train.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="for example attack=alie attack.agents=3"
    )
    train.add_argument("--seeds", type=_whole, metavar="N", help="train N seeds at once")
    train.add_argument("--out", type=_path, metavar="DIR", help="run directory (default: runs/NAME-TIME)")
    train.add_argument("--quiet", action="store_true", help="no progress")
    _takes_plugins(train, "load this too")

    resume = command("resume", "continue a run from its last checkpoint, or extend a finished one", resumed)
    resume.add_argument("run", type=_path, metavar="RUN")
    resume.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="what changes, for example budget.rounds=800"
    )
    resume.add_argument("--quiet", action="store_true", help="no progress")
    _takes_plugins(resume, MOVED)

    evaluate = command("evaluate", "evaluate a run's policy as evaluation.greedy says")
    evaluate.add_argument("run", type=_path, metavar="RUN")
    evaluate.add_argument("--episodes", type=_whole, default=100, metavar="N", help="of each policy (default: 100)")
    _takes_policy(evaluate)
    evaluate.add_argument("--across", action="store_true", help="every agent's policy in every agent's environment")
    evaluate.add_argument("--unseen", type=_whole, default=0, metavar="N", help="in N environments that no agent has")
    where = "in which environments (default: as the run was evaluated)"
    evaluate.add_argument("--environments", choices=("all", "own", "registered"), help=where)
    evaluate.add_argument("--yes", action="store_true", help="also if there are millions of episodes")
    evaluate.add_argument("--evaluation-seed", type=_whole, metavar="S", help="seed of the initial states")
    _takes_plugins(evaluate, MOVED)

    audit = command("audit", "attack a run's messages, and say what they reveal under its protection")
    audit.add_argument("run", type=_path, metavar="RUN")
    audit.add_argument("--attacks", metavar="A1,A2", help="which of A1 to A7 (default: all that apply)")
    canaries = "releases with and without a canary (default: 2000)"
    audit.add_argument("--repetitions", type=_whole, default=2000, metavar="N", help=canaries)
    audit.add_argument("--seed", type=_whole, default=0, metavar="S", help="of all that is drawn (default: 0)")
    audit.add_argument("--against", action="store_true", help="also under other protections in place of the run's")
    audit.add_argument("--quiet", action="store_true", help="no progress")
    _takes_plugins(audit, MOVED)

    render = command("render", "record videos of a run's policy")
    render.add_argument("run", type=_path, metavar="RUN")
    render.add_argument("--episodes", type=_whole, default=1, metavar="N", help="episodes (default: 1)")
    render.add_argument(
        "--agent", type=_whole, default=0, metavar="K", help="whose policy and environment (default: 0)"
    )
    _takes_policy(render)
    render.add_argument("--format", choices=("mp4", "gif", "both"), default="both", help="(default: both)")
    render.add_argument("--out", type=_path, metavar="STEM", help="path without suffix (default: RUN/video)")
    _takes_plugins(render, MOVED)

    text = "make a run of a TD3+HER reference's networks, to evaluate, render or train from"
    imported = command("import", text)
    imported.add_argument("source", metavar="PRESET", help="of the environment: a preset or a TOML file")
    files = "an actor's and a critic's .pth, or one of both; key=value as in train"
    imported.add_argument("files", nargs="+", metavar="FILE", help=files)
    imported.add_argument("--out", type=_path, metavar="DIR", help="run directory (default: runs/NAME-TIME)")
    imported.set_defaults(overrides=[])
    _takes_plugins(imported, "load this too")

    export = command("export", "write a run's policy as a file for other programs")
    export.add_argument("run", type=_path, metavar="RUN")
    formats = "npz, onnx, torch, safetensors, or pth as the TD3+HER reference has it"
    export.add_argument("--to", required=True, metavar="FORMAT", help=formats)
    _takes_policy(export)
    export.add_argument("--seed", type=_whole, metavar="S", help="which of the run's seeds (default: the first)")
    export.add_argument("--agent", type=_whole, metavar="K", help="whose; needed where each agent has its own")
    export.add_argument("--out", type=_path, metavar="FILE", help="(default: exported.SUFFIX in the run)")
    _takes_plugins(export, MOVED)

    report = command("report", "write one HTML report of several runs or a sweep, a figure, or a table for a paper")
    report.add_argument(
        "runs", type=_path, nargs="+", metavar="RUN", help="a run, or a folder of runs, as a sweep's is"
    )
    written = "(default: report.html in the first run; a table is printed)"
    report.add_argument("--out", type=_path, metavar="FILE", help=f".html, .csv, .tex, .pdf, .svg or .png {written}")
    alone = report.add_mutually_exclusive_group()
    alone.add_argument("--table", choices=("csv", "latex"), help="only the table of results")
    alone.add_argument("--figure", choices=("pdf", "svg", "png"), help="only the learning curves")
    crossed = "of the table: a row for each value of this setting (several: KEY,KEY), such as aggregator.kind"
    report.add_argument("--rows", metavar="KEY", help=crossed)
    report.add_argument("--columns", metavar="KEY", help="of the table: a column for each value, such as attack.kind")
    report.add_argument("--title", default="", metavar="TEXT", help="heading of the page and of the figure")
    means = "draw every point of a curve as the mean of a seed's last N evaluations (default: 1)"
    report.add_argument("--smoothing", type=_whole, metavar="N", help=means)

    again = "the same command goes on with what is missing"
    reproduce = command("reproduce", "train a published figure's runs and draw ours beside it", again)
    reproduce.add_argument("figure", metavar="FIGURE", help="see fedrax list")
    reproduce.add_argument("overrides", nargs="*", default=[], metavar="key=value")
    reproduce.add_argument("--seeds", type=_whole, metavar="N", help="seeds of each run")
    reproduce.add_argument("--out", type=_path, metavar="DIR", help="(default: runs/reproduce/FIGURE)")

    sweep = command("sweep", "run named setups times seeds, several at once, or what is missing of them", again)
    sweep.add_argument("file", type=_path, metavar="FILE", help="a TOML file (fedrax describe sweep)")
    sweep.add_argument("--jobs", type=_whole, metavar="N", help="runs at once (default: as the file says)")
    sweep.add_argument(
        "--retry", type=_whole, default=0, metavar="N", help="try a failed run again N times (default: 0)"
    )
    sweep.add_argument("--yes", action="store_true", help="also if there are thousands of runs")
    sweep.add_argument("--dry-run", action="store_true", help="only show what would be run")

    text = "train on nodes elsewhere: start a SuperLink and the server's half of a run"
    server = command("server", text, "the same command with --out {run} continues from round {rounds}")
    server.add_argument("source", metavar="PRESET", help="a preset or the path of a TOML file")
    server.add_argument("overrides", nargs="*", default=[], metavar="key=value")
    _at_superlink(server)
    server.add_argument("--out", type=_path, metavar="DIR", help="run directory; a run that is there goes on")
    server.add_argument("--quiet", action="store_true", help="no table of who answers")
    _takes_plugins(server, "load this too; of a run that goes on, " + MOVED)

    node = command("node", "be one agent of a federation, in this site's environment")
    node.add_argument(
        "overrides", nargs="*", default=[], metavar="environment.key=value", help="what is different at this site"
    )
    _at_superlink(node)
    node.add_argument("--key", type=_path, metavar="FILE", help="this node's private key")
    node.add_argument(
        "--peers",
        type=_path,
        metavar="DIR",
        help="public keys (*.pub) of all nodes: take part in secure sums alone, with those whose keys these signed",
    )
    node.add_argument("--environment", metavar="ID", help="this site's environment (default: as the server says)")
    node.add_argument(
        "--agent", type=_whole, metavar="K", help="the agent to be (default: the first that no other node is)"
    )
    node.add_argument("--data", type=_path, metavar="DIR", default=Path("node"), help="its state (default: ./node)")
    _takes_plugins(node, "this site's copy of a plugin that the run needs; no other is imported")
    node.add_argument(
        "--shared-seeds", action="store_true", help="agree to draw from the run's seed, which the server knows"
    )
    node.add_argument("--stay", action="store_true", help="wait for other runs when one is over, in place of ending")
    node.add_argument("--fast", action="store_true", help="poll more often and answer at once, by internals of Flower")

    certificates = command("certificates", "make a trial's certificates and keys")
    certificates.add_argument("folder", type=_path, metavar="DIR")
    certificates.add_argument("--host", action="append", metavar="NAME", help="of the server; may be repeated")
    certificates.add_argument("--nodes", type=_whole, default=3, metavar="N", help="keys for nodes (default: 3)")

    deploy = command("deploy", "say, or write as a Flower app, how a preset becomes a running federation")
    deploy.add_argument("source", metavar="PRESET", help="a preset or the path of a TOML file")
    deploy.add_argument("overrides", nargs="*", default=[], metavar="key=value")
    deploy.add_argument("--app", type=_path, metavar="DIR", help="write a Flower app there, for `flwr run`")
    deploy.add_argument("--superlink", metavar="HOST:PORT", default=LOOPBACK, help=f"(default: {LOOPBACK})")

    text = "how far a run is, or a folder's runs, such as a sweep's; of a federation also who answers, and why not"
    status = command("status", text)
    status.add_argument("run", type=_path, metavar="RUN")
    status.add_argument("--watch", action="store_true", help="refresh until nothing trains any more")

    text = "print what lets a shell complete commands, presets, names and keys"
    completion = command("completion", text)
    how = 'eval "$(fedrax completion bash)" in ~/.bashrc; zsh the same; fedrax completion fish | source'
    completion.add_argument("shell", choices=("bash", "zsh", "fish", "powershell"), help=how)

    watch = command("watch", "a page of a run's curves, or of a folder's runs, that follows them while they train")
    watch.add_argument("run", type=_path, metavar="RUN", help="a run, or a folder with runs, such as a sweep's")
    watch.add_argument("--port", type=_whole, default=0, metavar="N", help="of 127.0.0.1 (default: a free one)")
    watch.add_argument("--open", action="store_true", help="open a browser")

    listed = command("list", "everything that can be named on the command line")
    _takes_plugins(listed, "list what this registers too")

    describe = command(
        "describe",
        "every option of a component, component kind, table, joint distribution or environment, or, as TOML, of what a "
        "preset or file describes",
    )
    describe.add_argument("name", metavar="NAME", help="for example fedpg-br, krum, federation, fedpg-br/cartpole")
    describe.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="of a preset or file, as in train"
    )
    _takes_plugins(describe, "what registers the name")
    return top


def _whole(text: str) -> int:
    """A whole number."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None


def _path(text: str) -> Path:
    """A path; the empty one would be taken for the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("'' is no path; give one, such as . for this folder")
    return Path(text)


def _policy(text: str) -> str | int:
    """``last``, ``best``, or a number of rounds."""
    if text in ("last", "best"):
        return text
    if text.isdecimal():
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is none of last, best and a number of rounds")


def _takes_policy(command: argparse.ArgumentParser) -> None:
    text = "last, best, or that after so many rounds, where it was kept (default: last)"
    command.add_argument("--policy", type=_policy, default="last", metavar="WHICH", help=text)


def _takes_plugins(command: argparse.ArgumentParser, text: str) -> None:
    command.add_argument(
        "--plugins", action="append", default=[], metavar="FILE_OR_MODULE", help=f"{text}; may be repeated"
    )


def _at_superlink(command: argparse.ArgumentParser) -> None:
    command.add_argument("--superlink", metavar="HOST:PORT", default=LOOPBACK, help=f"(default: {LOOPBACK})")
    command.add_argument("--certificates", type=_path, metavar="DIR", help="what `fedrax certificates` made")
