"""Every key of a configuration in words: read off the same declarations that validate it."""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any

from fedrax.config import COMPONENT_KINDS, Config
from fedrax.config_tables import Model
from fedrax.errors import SOME
from fedrax.registry import options_of
from fedrax.wording import documentation


def plain_table(name: str) -> type[Model] | None:
    """The table of plain settings at a dotted name (``federation``, ``runtime.flower``); None where there is none."""
    model: type[Model] = Config
    for part in name.split("."):
        inner = _table_in(model, part)
        if inner is None:
            return None
        model = inner
    return model


def described_keys(name: str) -> list[str]:
    """What there is to say of a key: ``seeds``, ``runtime.flower.quorum``, ``strategy.minibatch``.

    A name without its table (``quorum``) stands for every key that ends in it. Empty where no key is called so.
    """
    keys = [name] if name in all_keys() else [key for key in all_keys() if key.rpartition(".")[2] == name]
    said = [text for key in keys for text in _key(key)]
    if len(said) > SOME:
        said = [*said[:SOME], f"and {len(said) - SOME} more keys called {name}"]
    return said


def all_keys() -> list[str]:
    """Every key of a configuration, dotted; those of all components."""
    found = list(_plain_keys(Config, ""))
    for component_kind, registry in COMPONENT_KINDS.items():
        found.append(f"{component_kind}.kind")
        options = {key for component in registry for key in options_of(registry[component])}
        found += [f"{component_kind}.{key}" for key in sorted(options)]
    return found


def component_text(title: str, table: str, component: type) -> str:
    """A component's documentation and options, which a configuration has in ``table``."""
    lines = [title, "", documentation(component), ""]
    for key in options_of(component):
        lines += _component_option(table, key, component)
    return "\n".join(lines).rstrip()


def table_text(name: str, model: type[Model]) -> str:
    """A table's documentation and settings, those of tables in it too."""
    return "\n".join([name, "", documentation(model), "", *_settings(name, model)]).rstrip()


def _plain_keys(model: type[Model], prefix: str) -> Iterator[str]:
    for name in model.model_fields:
        inner = _table_in(model, name)
        if inner is not None:
            yield from _plain_keys(inner, f"{prefix}{name}.")
        elif name not in COMPONENT_KINDS:
            yield f"{prefix}{name}"


def _table_in(model: type[Model], name: str) -> type[Model] | None:
    annotation = model.model_fields[name].annotation if name in model.model_fields else None
    return annotation if inspect.isclass(annotation) and issubclass(annotation, Model) else None


def _key(key: str) -> Iterator[str]:
    table, _, name = key.rpartition(".")
    if table in COMPONENT_KINDS:
        registry = COMPONENT_KINDS[table]
        if name == "kind":
            yield f"  {key}   [text]\n      which {table}: one of {', '.join(registry)}"
            return
        # Components that declare an option alike are named together.
        alike: dict[str, list[str]] = {}
        for component in registry:
            if name in options_of(registry[component]):
                alike.setdefault("\n".join(_component_option(table, name, registry[component])), []).append(component)
        for text, components in alike.items():
            of = f"every {table}" if len(components) == len(list(registry)) else ", ".join(components)
            yield f"{text}\n      of {of}"
        return
    model = (plain_table(table) if table else None) or Config
    yield "\n".join(_setting(key, model, name))


def _component_option(table: str, key: str, component: type) -> list[str]:
    field, declared, annotation = options_of(component)[key]
    limits = [
        f"{sign} {bound:g}" for sign, bound in ((">=", declared.minimum), ("<=", declared.maximum)) if bound is not None
    ]
    return _option(f"{table}.{key}", declared.meaning, annotation, field.default, limits, declared.unit)


def _settings(name: str, model: type[Model]) -> list[str]:
    lines = []
    for key in model.model_fields:
        inner = _table_in(model, key)
        lines += _setting(f"{name}.{key}", model, key) if inner is None else _settings(f"{name}.{key}", inner)
    return lines


def _setting(key: str, model: type[Model], name: str) -> list[str]:
    field = model.model_fields[name]
    limits = [
        f"{sign} {getattr(bound, attribute):g}"
        for bound in field.metadata
        for attribute, sign in (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<="))
        if hasattr(bound, attribute)
    ]
    default = field.get_default(call_default_factory=True)
    return _option(key, field.description or "", field.annotation, default, limits)


def _option(
    key: str,
    meaning: str,
    annotation: Any,
    default: Any,
    limits: list[str],
    unit: str = "",
) -> list[str]:
    kind = ", ".join([_type_name(annotation), *limits])
    shown = "none" if default is None else json.dumps(default)
    return [f"  {key} = {shown}   [{kind}{', ' + unit if unit else ''}]", f"      {meaning}"]


def _type_name(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return " | ".join(map(str, arguments))
    if origin in (typing.Union, UnionType):
        return " | ".join("none" if part is NoneType else _type_name(part) for part in arguments)
    if origin is Annotated:
        return _type_name(arguments[0])
    if origin in (tuple, list):
        return f"list of {_type_name(arguments[0])}"
    names = {int: "integer", float: "number", bool: "true | false", str: "text", NoneType: "none"}
    return names.get(annotation, "table")
