"""Reference pages, read off the program: commands, components with every option, tables, environments, presets."""

from __future__ import annotations

import contextlib
import io
import os
import re
from importlib import resources

from fedrax.cli import COMMANDS, main
from fedrax.config import COMPONENT_KINDS, DEFAULT_KINDS, presets, resolve
from fedrax.describe import describe
from fedrax.environments.distributions import joint_distributions
from fedrax.environments.native import native_environments
from fedrax.loggers.base import loggers
from fedrax.names import plain_tables

TITLES = {
    "learner": "Learners",
    "critic": "Critics",
    "strategy": "Strategies",
    "aggregator": "Aggregators",
    "preaggregator": "Pre-aggregators",
    "attack": "Attacks",
    "compression": "Compressions",
}
OPTION = re.compile(r"^  (\S+) = (.*?)   \[(.*)\]$")
BOUND = re.compile(r"(>=|<=|>|<) ")


def reference_pages() -> dict[str, str]:
    """The pages' Markdown, by path."""
    return {
        "reference/commands.md": _commands(),
        "reference/configuration.md": _configuration(),
        **{f"reference/{kind}.md": _component_kind(kind) for kind in COMPONENT_KINDS},
        "reference/loggers.md": _loggers(),
        "reference/environments.md": _environments(),
        **{f"reference/presets/{family}.md": _presets(family) for family in _families()},
    }


def _commands() -> str:
    parts = ["# Commands", "What `fedrax COMMAND --help` says, command by command."]
    for name in ("", *COMMANDS):
        parts += [f"## fedrax {name}".rstrip(), f"```text\n{_help(name)}\n```"]
    return "\n\n".join(parts)


def _help(name: str) -> str:
    said = io.StringIO()
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100"
    try:
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            main([*([name] if name else []), "--help"])
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
    return said.getvalue().rstrip()


def _configuration() -> str:
    parts = [
        "# Configuration",
        "The tables that hold plain settings. On the command line a setting is `table.key=value`, in a TOML file a "
        "line `key = value` below `[table]`. Components have options of their own, on the pages that follow.",
    ]
    for name in plain_tables():
        parts += [f"## {name}", _body(describe(name), name)]
    return "\n\n".join(parts)


def _component_kind(kind: str) -> str:
    default = DEFAULT_KINDS[kind]
    parts = [
        f"# {TITLES.get(kind, kind.capitalize())}",
        f"Chosen by `{kind}=NAME`" + (f"; without it, `{default}`." if isinstance(default, str) else "."),
    ]
    for name in COMPONENT_KINDS[kind]:
        parts += [f"## {name}", _body(_section(name, f"{kind} {name}"), f"{kind} {name}")]
    return "\n\n".join(parts)


def _loggers() -> str:
    parts = [
        "# Loggers",
        "Chosen by `records.loggers=NAME`, or by several names; each is given every row of a run while it trains "
        "([watching runs](../watching.md)).",
    ]
    for name in loggers:
        parts += [f"## {name}", _body(_section(name, f"logger {name}"), f"logger {name}")]
    return "\n\n".join(parts)


def _section(name: str, title: str) -> str:
    """Of all that ``fedrax describe`` says of a name, what it says under one title."""
    titles = [title, *(f"{kind} {name}" for kind in COMPONENT_KINDS), f"joint distribution {name}", f"figure {name}"]
    text, ends = describe(name), "|".join(re.escape(other) for other in titles)
    found = re.search(rf"(?ms)^{re.escape(title)}$\n(.*?)(?=^(?:{ends})[ :]*$|\Z)", text)
    if found is None:
        raise ValueError(f"fedrax describe {name} has no section {title!r}")
    return found[1]


def _environments() -> str:
    parts = [
        "# Environments in JAX",
        "Every environment of Gymnasium can be named too ([environments of your own](../environments.md)). Those below "
        "are compiled with the rest of a round, and each of their parameters may differ between agents.",
    ]
    for name in native_environments:
        # The lines on spaces and defaults are columns already.
        paragraphs = describe(name).split("\n", 1)[1].strip("\n").split("\n\n")
        parts.append(f"## {name}")
        parts += [f"```text\n{text}\n```" if text.startswith("  ") else _prose(text) for text in paragraphs]
    parts += ["# Joint distributions", "How the physics of all agents are drawn together."]
    for name in joint_distributions:
        title = f"joint distribution {name}"
        parts += [f"## {name} (draws)", _body(_section(name, title), title)]
    return "\n\n".join(parts)


def _families() -> list[str]:
    return sorted({name.split("/")[0] for name in presets()})


def _presets(family: str) -> str:
    parts = [f"# Presets {family}", "Each as its file says it, and with every option written out."]
    for name in presets():
        if name.split("/")[0] == family:
            file = resources.files("fedrax").joinpath("presets", *f"{name}.toml".split("/")).read_text()
            full = "\n".join(f"    {line}".rstrip() for line in resolve(name).to_toml().splitlines())
            parts += [f"## {name}", f"```toml\n{file.strip()}\n```"]
            parts += [f'??? note "With every option"\n\n    ```toml\n{full}\n    ```']
    return "\n\n".join(parts)


def _body(text: str, title: str) -> str:
    """A description of ``fedrax describe`` in Markdown: its text, and a table of its options."""
    prose, rows = [], []
    lines = iter(text.removeprefix(title).strip("\n").split("\n"))
    for line in lines:
        if match := OPTION.match(line):
            key, default, values = match.groups()
            # On a narrow screen a key breaks at its dots.
            name = f"<code>{key.replace('.', '.<wbr>')}</code>"
            rows.append((name, _cell(next(lines).strip()), f"`{default}`", _cell(values)))
        else:
            prose.append(line)
    parts = [_prose("\n".join(prose))]
    if rows:
        table = ["| option | meaning | default | values |", "|---|---|---|---|"]
        parts.append("\n".join([*table, *(f"| {' | '.join(row)} |" for row in rows)]))
    return "\n\n".join(part for part in parts if part) or "No options."


def _cell(text: str) -> str:
    return BOUND.sub(lambda match: f"{match[1]} ".replace("<", "&lt;").replace(">", "&gt;"), text).replace(
        " | ", " or "
    )


def _prose(text: str) -> str:
    """A docstring as Markdown: roles are names, and what looks like HTML or emphasis outside of code is neither."""
    text = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", text)
    pieces = re.split(r"(``?[^`]+``?)", text)
    pieces[::2] = [re.sub(r"([*_<\\])", r"\\\1", piece) for piece in pieces[::2]]
    return "".join(pieces).strip()
