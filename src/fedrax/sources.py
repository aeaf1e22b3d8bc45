"""Where a configuration comes from: presets, TOML files and ``key=value``. Reading them needs no JAX."""

from __future__ import annotations

import re
import tomllib
import typing
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from fedrax.arguments import takes
from fedrax.errors import LONGEST, FedraxError, shown, suggestions
from fedrax.kinds import DEFAULT_KINDS
from fedrax.migration import is_recorded, present_keys
from fedrax.other_names import component_called, registered_names
from fedrax.parsing import DEEPEST, parsed_toml, text_of

AN_ENVIRONMENT = re.compile(r"-v\d+$")
"""What ids of environments end with."""


@takes()
def presets() -> list[str]:
    """The names of the published experiments that ship with the package."""
    root = resources.files("fedrax") / "presets"
    return sorted(
        f"{family.name}/{preset.name.removesuffix('.toml')}"
        for family in root.iterdir()
        if family.is_dir()
        for preset in family.iterdir()
        if preset.name.endswith(".toml")
    )


def read_source(source: str | Path) -> dict[str, Any]:
    """The raw tables of a preset's name or of a TOML file's path."""
    if str(source) in presets():
        text = (resources.files("fedrax") / "presets" / f"{source}.toml").read_text(encoding="utf-8")
        label = str(source)
    elif Path(source).is_file():
        text, label = _text_of(Path(source)), str(source)
    elif AN_ENVIRONMENT.search(str(source)):
        raise FedraxError(
            f"no preset and no file is called {shown(str(source))}; if that is an environment, give environment.id="
            f"{str(source)[:LONGEST]} in its place, or after a preset or a file"
        )
    elif said := component_called(str(source), registered_names()):
        where = " in its place, or after a preset or a file" if "; set " in said else ""
        raise FedraxError(f"no preset and no file is called {shown(str(source))}: {said}{where}")
    else:
        raise FedraxError(
            f"no preset and no file is called {shown(str(source))}{suggestions(str(source), presets(), 'fedrax list')}"
        )
    try:
        tables = parsed_toml(text)
    except tomllib.TOMLDecodeError as error:
        raise FedraxError(f"{label} is not valid TOML: {error}") from None
    return present_keys(tables) if is_recorded(Path(source)) else tables


def as_setting(word: str) -> str:
    """``environment.id=CartPole-v1`` of ``CartPole-v1``, ``learner=ppo`` of ``ppo``; empty of what may be anything."""
    if AN_ENVIRONMENT.search(word):
        return f"environment.id={word}"
    _, _, meant = component_called(word, registered_names()).partition("; set ")
    return meant if meant.count("=") == 1 else ""


def _text_of(path: Path) -> str:
    try:
        return text_of(path)
    except OSError as error:
        raise FedraxError(f"cannot read {path}: {error.strerror}; mend its permissions, or give another file") from None
    except ValueError as error:
        raise FedraxError(f"{path} is not valid TOML: {error}") from None


def parse_override(text: str) -> dict[str, Any]:
    """``"attack.agents=3"`` as ``{"attack": {"agents": 3}}``; ``attack=NAME`` is short for ``attack.kind=NAME``.

    A value is read as TOML where it is TOML (numbers, booleans, lists, tables), else as a bare word, and so is each
    item of a list, whose quotes a shell takes away; ``none`` unsets an option that may be unset.
    """
    key, separator, value = text.partition("=")
    key, value = key.strip(), value.strip()
    bare = key.replace("'", "").replace('"', "")
    if separator and bare and {key[0], key[-1]} & {"'", '"'}:
        # Of quotes that a shell leaves, those around the whole setting end in its value.
        value = value if key[-1] in "'\"" else value.removesuffix(key[0])
        raise FedraxError(f"{shown(text)} is not of the form key=value: leave out the quotes, {bare}={value}")
    if not separator or not all(key.split(".")) or key.count(".") > DEEPEST:
        meant = "" if separator else as_setting(text)
        example = f"; if that is what it names, give {meant}" if meant else ", for example federation.agents=20"
        raise FedraxError(f"{shown(text)} is not of the form key=value{example}")
    parsed = _value(value)
    for part in reversed(key.split(".")):
        parsed = {part: parsed}
    return in_tables(typing.cast(dict[str, Any], parsed))


def _value(text: str) -> Any:
    """The value of an override."""
    try:
        return parsed_toml(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        pass
    items = [item.strip() for item in text[1:-1].split(",")]
    # Lists in lists, tables and texts with quotes are TOML or nothing.
    if text[:1] == "[" and text[-1:] == "]" and all(items) and not set(text[1:-1]) & set("[]{}'\""):
        return [_value(item) for item in items]
    return text


def in_tables(layer: Mapping[str, Any]) -> dict[str, Any]:
    """The layer with a name alone in place of a component's, the runtime's or the environment's table spelled out."""
    named = {**dict.fromkeys([*DEFAULT_KINDS, "runtime"], "kind"), "environment": "id"}
    return {
        key: {named[key]: value} if key in named and isinstance(value, str) else value for key, value in layer.items()
    }


def merge(layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Tables merged key by key, later layers winning."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            below = merged.get(key)
            merged[key] = merge([below, value]) if isinstance(value, Mapping) and isinstance(below, Mapping) else value
    return merged
