"""What the arguments of Fedrax's own functions may be: all are checked in one way, before anything is done with them.

A function says a :class:`Rule` for each of its parameters::

    @takes(episodes=whole(1, MOST_EPISODES), policy=either(one_of("last", "best"), whole()))
    def evaluate(self, *, episodes: int = 100, policy: Which = "last") -> ...

What breaks one is a :class:`FedraxError` in one line: the argument, its value, and what is allowed. So are arguments
that the function does not have, has been given twice, or lacks. None may be given wherever it is the default.
"""

from __future__ import annotations

import functools
import inspect
import json
import operator
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

from fedrax.errors import FedraxError, nearest, shown
from fedrax.parsing import is_deep
from fedrax.wording import counted

P = ParamSpec("P")
R = TypeVar("R")

_NO_DEFAULT = inspect.Parameter.empty
LONGEST_NAME, LONGEST_PATH = 255, 4095
"""Bytes of a file's name and of a whole path, that file systems take."""


class Rule(NamedTuple):
    """What an argument may be."""

    allowed: str
    """In words, after "give"."""
    read: Callable[[Any], Any]
    """The value as the function is given it; raises TypeError or ValueError, perhaps with a better word."""


def takes(**rules: Rule) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator of a function whose arguments are checked by these rules, one for each of its parameters.

    Parameters without a name of their own (``**options``) are checked by whom they are passed on to.

    Raises:
        TypeError: when decorating, where the rules are not those of the function's parameters.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        named = {name for name, each in signature.parameters.items() if each.kind not in variable and name != "self"}
        if named != rules.keys():
            raise TypeError(f"{function.__qualname__} needs a rule for each of {', '.join(sorted(named))}")

        @functools.wraps(function)
        def call(*positional: P.args, **by_name: P.kwargs) -> R:
            try:
                bound = signature.bind(*positional, **by_name)
            except TypeError:
                raise _unbound(function, signature, positional, by_name, rules) from None
            for name, value in bound.arguments.items():
                optional = value is None and signature.parameters[name].default is None
                if name in rules and not optional:
                    bound.arguments[name] = read_argument(name, value, rules[name])
            return function(*bound.args, **bound.kwargs)

        return call

    return decorate


def read_argument(name: str, value: Any, rule: Rule) -> Any:
    """The value as the rule reads it.

    Raises:
        FedraxError: it breaks the rule.
    """
    try:
        return rule.read(value)
    except (TypeError, ValueError) as error:
        # What Python says of a type or a conversion helps less than the rule's own words.
        why = str(error) if type(error) is _Refused else f"give {rule.allowed}"
        given = shown(os.fspath(value) if isinstance(value, os.PathLike) else value)
        # An array is printed in several lines.
        raise FedraxError(f"{name} = {' '.join(given.split())} is not allowed: {why}") from None


def _unbound(
    function: Callable[..., Any],
    signature: inspect.Signature,
    positional: tuple[Any, ...],
    by_name: Mapping[str, Any],
    rules: Mapping[str, Rule],
) -> FedraxError:
    """The error for arguments that the function does not have, has been given twice, or cannot do without."""
    called = function.__qualname__.removesuffix(".__init__")
    ordered = [name for name, each in signature.parameters.items() if each.kind is each.POSITIONAL_OR_KEYWORD]
    given = [name for name in ordered[: len(positional)] if name in rules]
    takes_only = f"{called} takes {', '.join(rules) or 'nothing'}"
    strange = [name for name in by_name if name not in rules]
    if strange and not any(each.kind is each.VAR_KEYWORD for each in signature.parameters.values()):
        text = f"{called} has no argument {', '.join(map(shown, strange))}"
        advice = _advice({name: by_name[name] for name in strange}) if "overrides" in rules else ""
        if "file" in rules:
            advice = "; what a sweep runs, and where to, is said in its file (fedrax describe sweep)"
        # Of a setting under its own name, such as seed, nothing else is meant.
        if advice and all(_is_setting(name) for name in strange):
            return FedraxError(f"{text}{advice}")
        return FedraxError(f"{text}{_meant(strange[0], rules)}{advice}; {takes_only}")
    if len(positional) > len(ordered):
        own, count = [name for name in ordered if name in rules], len(positional) - (len(ordered) - len(given))
        further = [name for name in rules if name not in own]
        by_position = f"{', '.join(own) or 'nothing'} by position, not {counted(count, 'value')}"
        by_name_alone = f"; give {', '.join(further)} by name" if further else ""
        return FedraxError(f"{called} takes {by_position}{by_name_alone}")
    if twice := [name for name in given if name in by_name]:
        return FedraxError(f"{called} is given {twice[0]} twice, by position and by name; give it once")
    missing = [
        name for name in rules if name not in {*given, *by_name} and signature.parameters[name].default is _NO_DEFAULT
    ]
    needed = "; ".join(f"{name}: {rules[name].allowed}" for name in missing)
    return FedraxError(f"{called} needs {' and '.join(missing)}; give {needed}")


def _meant(name: str, rules: Iterable[str]) -> str:
    """``" (did you mean 'episodes'?)"``: the argument that is misspelt, or called so elsewhere."""
    from fedrax.other_calls import argument_called

    other = argument_called(name, rules)
    return nearest(name, rules) or (f" (did you mean {other!r}?)" if other else "")


def _is_setting(name: str) -> bool:
    """Whether a setting of a configuration has this very name, without its table."""
    from fedrax.other_names import keys_called

    return any(key.rpartition(".")[2] == name for key in keys_called(name))


def _advice(arguments: Mapping[str, Any]) -> str:
    """What those are here that are settings, here or elsewhere: ``budget.rounds=3`` of ``num_rounds=3``."""
    from fedrax.names import plain_tables
    from fedrax.other_names import other_way

    tables = [name for name in arguments if name in plain_tables() and not isinstance(arguments[name], Mapping)]
    arguments = dict(each for name, value in arguments.items() for each in _dotted({name: value}))
    called = [(_called(name), value) for name, value in arguments.items()]
    settings = [f"{key}={_in_override(value)}" for keys, value in called for key in keys]
    said = [f"settings go into overrides: overrides={json.dumps(settings)}"] if settings else []
    # Several names may stand for one thing.
    ways = dict.fromkeys(other_way(name) for name, (keys, _) in zip(arguments, called, strict=True) if not keys)
    said += [f"{name} is a table of settings, which go into overrides (fedrax describe {name})" for name in tables]
    return "".join(f"; {text}" for text in [*said, *filter(None, ways)])


def _called(name: str) -> list[str]:
    """The key that an argument, or what is within one that is a table, ``learner.lr``, is most likely to mean."""
    from fedrax.kinds import DEFAULT_KINDS
    from fedrax.names import plain_tables
    from fedrax.other_names import keys_called

    table, _, last = name.rpartition(".")
    keys = keys_called(last)
    if table.partition(".")[0] not in (*plain_tables(), *DEFAULT_KINDS):
        return keys[:1]
    return [key for key in keys if key.rpartition(".")[0] == table][:1] or [name]


def _in_override(value: Any) -> str:
    """The value as an override has it, as far as it can be told; else dots."""
    if value is None:
        return "none"
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value)
    except (TypeError, ValueError):
        return "..."


class _Refused(ValueError):
    """Why a value is not allowed, where that is more than its rule."""


def whole(least: int | None = None, most: int | None = None) -> Rule:
    """Whole numbers, of Python, NumPy or JAX, between these bounds."""

    def read(value: Any) -> int:
        if _is_flag(value):
            raise TypeError
        number = operator.index(value)
        if (least is not None and number < least) or (most is not None and number > most):
            raise ValueError
        return number

    bounds = "" if least is None else f" from {least}" + ("" if most is None else f" to {most}")
    return Rule(f"a whole number{bounds}", read)


def flag() -> Rule:
    """True or False."""

    def read(value: Any) -> bool:
        if not _is_flag(value):
            raise TypeError
        return bool(value)

    return Rule("True or False", read)


def _is_flag(value: Any) -> bool:
    """Whether it is a truth value of Python or of NumPy, which takes long to import and so is not for this alone."""
    kind = type(value)
    return kind is bool or (kind.__module__ == "numpy" and kind.__name__ in ("bool", "bool_"))


def text() -> Rule:
    """A text."""
    return instance(str, "a text")


def texts(what: str = "texts") -> Rule:
    """Several texts, or paths as texts, and no single one, whose characters would be taken for them."""

    def read(value: Any) -> list[str]:
        if isinstance(value, (str, bytes, Mapping, os.PathLike)):
            raise TypeError
        return [_text_of(each) for each in value]

    return Rule(f"a list of {what}", read)


def one_of(*words: str) -> Rule:
    """One of these."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or value not in words:
            raise ValueError
        return value

    return Rule(", ".join(map(repr, words[:-1])) + f" or {words[-1]!r}" if words[1:] else repr(words[0]), read)


def several(rule: Rule) -> Rule:
    """A list of what the rule allows."""

    def read(value: Any) -> list[Any]:
        if isinstance(value, (str, bytes, Mapping)):
            raise TypeError
        return [rule.read(each) for each in value]

    return Rule(f"a list, each {rule.allowed}", read)


def path() -> Rule:
    """Where a file or a folder is, or can be made."""

    def read(value: Any) -> Path:
        return Path(_path_of(value))

    return Rule("a path", read)


def instance(kind: type, what: str) -> Rule:
    """An object of this class."""

    def read(value: Any) -> Any:
        if not isinstance(value, kind):
            raise TypeError
        return value

    return Rule(what, read)


def either(one: Rule, other: Rule) -> Rule:
    """What one of two rules allows."""

    def read(value: Any) -> Any:
        try:
            return one.read(value)
        except (TypeError, ValueError):
            return other.read(value)

    return Rule(f"{one.allowed}, or {other.allowed}", read)


def source() -> Rule:
    """Where a configuration comes from: a preset's name, a TOML file's path, a table, or None for the defaults."""

    def read(value: Any) -> Any:
        if isinstance(value, Mapping):
            if is_deep(value):
                raise _Refused("it is nested too deeply, or contains itself; give a table as in TOML")
            if not _has_text_keys(value):
                raise _Refused("it has keys that are no texts; give a table as in TOML")
            return value
        if value is None:
            return None
        return _path_of(value) if isinstance(value, str) else Path(_path_of(value))

    return Rule("a preset's name, a TOML file's path, a table, or None", read)


def settings() -> Rule:
    """Settings as texts, ``"key=value"``, or as a table of values by key: ``{"learner.discount": 0.9}``."""
    listed = texts('"key=value"')

    def read(value: Any) -> list[str]:
        if not isinstance(value, Mapping):
            return listed.read(value)
        if is_deep(value):
            raise _Refused("it is nested too deeply, or contains itself; give a table of values by key")
        return [f"{key}={_toml(each)}" for key, each in _dotted(value)]

    return Rule(f'{listed.allowed}, or a table such as {{"budget.rounds": 3}}', read)


PLUGINS, OVERRIDES = texts("files and modules"), settings()


def _dotted(table: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values in a table and in those within it, by dotted key."""
    for key, value in table.items():
        if not isinstance(key, str):
            raise _Refused("it has keys that are no texts; give a table of values by key")
        if isinstance(value, Mapping) and value:
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _toml(value: Any) -> str:
    """The value as an override has it, so that it is read back the same: a text that looks like a number stays one."""
    if value is None:
        return "none"
    if hasattr(value, "tolist"):  # Of NumPy or JAX.
        value = value.tolist()
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, (bool, str)):
        # DEL is the one character that TOML escapes and JSON does not.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(each)}" for key, each in value.items()) + "}"
    raise TypeError


def _text_of(value: Any) -> str:
    found = os.fspath(value)
    if not isinstance(found, str):
        raise TypeError
    return found


def _path_of(value: Any) -> str:
    found = _text_of(value)
    encoded = os.fsencode(found)
    if not found:
        raise ValueError
    if b"\0" in encoded:
        raise _Refused("no path has a character of value 0; give another one")
    if len(encoded) > LONGEST_PATH or any(len(part) > LONGEST_NAME for part in encoded.split(os.fsencode(os.sep))):
        raise _Refused(
            f"names have at most {LONGEST_NAME} bytes, and paths {LONGEST_PATH}; this one has {len(encoded)}; give a "
            "shorter one"
        )
    return found


def _has_text_keys(tables: Mapping[Any, Any]) -> bool:
    """Of the tables and of the settings in them; what a setting holds is checked as the setting."""
    within = [key for table in tables.values() if isinstance(table, Mapping) for key in table]
    return all(isinstance(key, str) for key in (*tables, *within))
