"""What can be named in a configuration, read from the source without running it.

Components are found where they are registered, ``@learners.register("ppo")``, and their options where they are
declared: running that would import JAX, which takes seconds, and whoever asks for names or completes a word should not
wait for it. What plugins register is not here (:mod:`fedrax.describe`).
"""

from __future__ import annotations

import ast
import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fedrax.kinds import DEFAULT_KINDS
from fedrax.wording import plain

ROOT = Path(__file__).parent
PACKAGES = ("learners", "strategies", "aggregators", "attacks", "compression", "environments", "loggers")
"""Where components are."""
LOGGERS, ENVIRONMENTS, DISTRIBUTIONS = "loggers", "native_environments", "joint_distributions"
"""What the registries are called in the source whose components have no table of their kind."""
TABLES = ("config_tables.py", "config.py")
"""Where the plain tables of a configuration are."""


class Setting(NamedTuple):
    """A field of a class as it stands in the source."""

    annotation: str
    """Its type, with names of the file's own, ``Bounds = Literal[...]``, written out."""
    is_option: bool
    """Whether it is declared by ``option(...)``."""

    @property
    def values(self) -> list[str]:
        """The words that it takes, where its type says which."""
        tree = ast.parse(self.annotation, mode="eval")
        constants = [each.value for each in ast.walk(tree) if isinstance(each, ast.Constant)]
        words = list(dict.fromkeys(value for value in constants if isinstance(value, str)))
        flags = ["false", "true"] if self.annotation == "bool" else []
        return [*flags, *words, *(["none"] if (words or flags) and "None" in self.annotation else [])]


@dataclasses.dataclass(frozen=True)
class Source:
    """A class as it stands in the source."""

    name: str
    registry: str
    """The registry it is in, by the variable's name; empty where it is in none."""
    registered: str
    """Its name there."""
    summary: str
    """The first line of its docstring."""
    bases: tuple[str, ...]
    fields: dict[str, Setting]


def plural(component_kind: str) -> str:
    """``strategies`` of ``strategy``: what a registry is called in the source, and in lists."""
    return component_kind[:-1] + "ies" if component_kind.endswith("y") else component_kind + "s"


def components() -> dict[str, dict[str, str]]:
    """What is registered, by registry (``learners``, ``native_environments``) and name: the first line on each."""
    registries = [*map(plural, DEFAULT_KINDS), LOGGERS, ENVIRONMENTS, DISTRIBUTIONS]
    found: dict[str, dict[str, str]] = {registry: {} for registry in registries}
    for source in _registered():
        if source.registry in found:
            found[source.registry][source.registered] = source.summary
    return {registry: dict(sorted(names.items())) for registry, names in found.items()}


def options(component_kind: str) -> dict[str, Setting]:
    """The options of all components of a kind; of some that are declared several times, their types together."""
    classes = {source.name: source for source in _classes()}
    found: dict[str, Setting] = {}
    for source in classes.values():
        if source.registry == plural(component_kind):
            for name, setting in _options_of(source, classes).items():
                other = found.setdefault(name, setting)
                if setting.annotation not in other.annotation:
                    found[name] = Setting(f"{other.annotation} | {setting.annotation}", is_option=True)
    return dict(sorted(found.items()))


def owners(component_kind: str) -> dict[str, list[str]]:
    """The components of a kind that have an option, by option: ``{"buffer_size": ["sac", "sac-discrete", "td3"]}``."""
    classes = {source.name: source for source in _classes()}
    found: dict[str, list[str]] = {}
    for source in sorted(classes.values(), key=lambda source: source.registered):
        if source.registry == plural(component_kind):
            for name in _options_of(source, classes):
                found.setdefault(name, []).append(source.registered)
    return found


def plain_keys() -> dict[str, Setting]:
    """Every key that is no component's: ``seeds``, ``federation.agents``, ``runtime.flower.quorum``."""
    return dict(_keys_in("Config", _tables(), ""))


def plain_tables() -> list[str]:
    """The tables of a configuration that hold plain settings rather than a choice of component."""
    tables = _tables()
    return [name for name, setting in tables["Config"].fields.items() if setting.annotation in tables]


def _options_of(source: Source, classes: dict[str, Source]) -> dict[str, Setting]:
    found: dict[str, Setting] = {}
    for base in source.bases:
        if base in classes:
            found |= _options_of(classes[base], classes)
    return found | {name: setting for name, setting in source.fields.items() if setting.is_option}


def _keys_in(table: str, tables: dict[str, Source], prefix: str) -> Iterator[tuple[str, Setting]]:
    for name, setting in tables[table].fields.items():
        if setting.annotation in tables:
            yield from _keys_in(setting.annotation, tables, f"{prefix}{name}.")
        elif name not in DEFAULT_KINDS:
            yield f"{prefix}{name}", setting


@functools.cache
def _registered() -> tuple[Source, ...]:
    """The classes of the files that register something: fewer than all."""
    return tuple(source for path in _files() for source in _read(path, only=".register("))


@functools.cache
def _classes() -> tuple[Source, ...]:
    return tuple(source for path in _files() for source in _read(path, only="class "))


@functools.cache
def _tables() -> dict[str, Source]:
    return {source.name: source for name in TABLES for source in _read(ROOT / name, only="class ")}


def _files() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def _read(path: Path, *, only: str) -> Iterator[Source]:
    """The classes of a file that holds this text."""
    text = path.read_text(encoding="utf-8")
    if only not in text:
        return
    written_out = _WrittenOut(path)
    for node in _tree(path).body:
        if isinstance(node, ast.ClassDef):
            registry, registered = next(filter(None, map(_registration, node.decorator_list)), ("", ""))
            summary = plain(ast.get_docstring(node) or "").split("\n")[0]
            bases = tuple(base.id for base in node.bases if isinstance(base, ast.Name))
            yield Source(node.name, registry, registered, summary, bases, dict(_fields(node, written_out)))


def _registration(decorator: ast.expr) -> tuple[str, str] | None:
    """The registry and the name of ``@learners.register("ppo")``."""
    if (
        isinstance(decorator, ast.Call)
        and isinstance(decorator.func, ast.Attribute)
        and decorator.func.attr == "register"
        and isinstance(decorator.func.value, ast.Name)
        and decorator.args
        and isinstance(decorator.args[0], ast.Constant)
    ):
        return decorator.func.value.id, str(decorator.args[0].value)
    return None


def _fields(node: ast.ClassDef, written_out: _WrittenOut) -> Iterator[tuple[str, Setting]]:
    for each in node.body:
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
            value = each.value if isinstance(each.value, ast.Call) else None
            is_option = value is not None and isinstance(value.func, ast.Name) and value.func.id == "option"
            yield each.target.id, Setting(ast.unparse(written_out.visit(each.annotation)), is_option)


class _WrittenOut(ast.NodeTransformer):
    """Types with names that stand for listed words, ``Bounds = Literal[...]``, written out."""

    def __init__(self, path: Path) -> None:
        """Names mean what they do in the file."""
        self._path = path

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """What the name stands for, or itself."""
        literals, imported = _named(self._path)
        if node.id in imported:
            literals = _named(imported[node.id])[0]
        return literals.get(node.id, node)


@functools.cache
def _named(path: Path) -> tuple[dict[str, ast.expr], dict[str, Path]]:
    """A file's own names for types of listed words, and where it imports which names of this package from."""
    literals: dict[str, ast.expr] = {}
    imported: dict[str, Path] = {}
    for node in _tree(path).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fedrax."):
            source = ROOT.parent.joinpath(*str(node.module).split(".")).with_suffix(".py")
            if source.is_file():  # Packages define no types.
                imported |= {name.asname or name.name: source for name in node.names}
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript):
            of, target = node.value.value, node.targets[0]
            if isinstance(target, ast.Name) and isinstance(of, ast.Name) and of.id == "Literal":
                literals[target.id] = node.value
    return literals, imported


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))
