"""Words that a shell completes: commands, options, presets, runs, names, keys and their values, without importing JAX.

``fedrax completion SHELL`` prints what a shell is to run once; from then on it starts ``fedrax`` with
``_ARGCOMPLETE`` set whenever a word is to be completed, and :func:`complete` answers.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

from fedrax import names
from fedrax.kinds import DEFAULT_KINDS
from fedrax.sources import presets


def script(shell: str) -> str:
    """The shell's code that lets it complete ``fedrax``."""
    from argcomplete.shell_integration import shellcode

    return shellcode(["fedrax"], shell=shell)


def complete(parser: argparse.ArgumentParser) -> None:
    """Answers a shell, and ends the process; does nothing where none asks."""
    import argcomplete

    for command, subparser in commands_of(parser).items():
        for action in subparser._actions:
            completer = completer_of(command, action.dest)
            if completer is not None:
                vars(action)["completer"] = completer
    argcomplete.autocomplete(parser, always_complete_options=False)


def commands_of(parser: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    """The commands' parsers by name."""
    return next(action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))


Completer = Callable[..., list[str]]


def completer_of(command: str, argument: str) -> Completer | None:
    """What completes an argument of a command; None: files, or what its parser says."""
    if argument == "source":
        return lambda prefix, **_: presets()
    if argument == "overrides":
        return lambda prefix, **_: key_values(prefix)
    if argument == "figure":
        return lambda prefix, **_: figures()
    if (command, argument) == ("describe", "name"):
        return lambda prefix, **_: describable(prefix)
    return None


def figures() -> list[str]:
    """Published figures."""
    from fedrax.report.experiments import FIGURES

    return sorted(FIGURES)


def key_values(prefix: str) -> list[str]:
    """``key=value`` that begin so: keys, and of a key that stands there the values that are words.

    Of keys with a dot, those of a table whose name has been begun.
    """
    key, separator, _ = prefix.partition("=")
    if separator:
        return [f"{key}={value}" for value in values_of(key)]
    found = [f"{component_kind}=" for component_kind in (*DEFAULT_KINDS, "environment", "runtime")]
    found += [f"{key}=" for key in names.plain_keys() if prefix or "." not in key]
    for component_kind in DEFAULT_KINDS:
        if (prefix and f"{component_kind}.".startswith(prefix)) or prefix.startswith(f"{component_kind}."):
            found += [f"{component_kind}.{option}=" for option in names.options(component_kind)]
    return found


def values_of(key: str) -> list[str]:
    """The words that a key takes: names of components and environments, and what its type lists."""
    table, _, name = key.rpartition(".")
    kind = key if not table else table if name == "kind" else ""
    if kind in DEFAULT_KINDS:
        return list(names.components()[names.plural(kind)])
    if key in ("environment", "environment.id"):
        return list(names.components()[names.ENVIRONMENTS])
    key = "runtime.kind" if key == "runtime" else key
    setting = names.options(table).get(name) if table in DEFAULT_KINDS else names.plain_keys().get(key)
    return [] if setting is None else setting.values


def describable(prefix: str) -> list[str]:
    """What ``fedrax describe`` explains: presets, components, kinds, tables; keys where one has been begun."""
    found = [*presets(), *DEFAULT_KINDS, *names.plain_tables(), "sweep", *figures()]
    found += [name for registry in names.components().values() for name in registry]
    if prefix:
        found += [key.removesuffix("=") for key in key_values(prefix) if "=" not in prefix]
    return list(dict.fromkeys(found))
