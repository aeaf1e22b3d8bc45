"""Plugins: a user's Python files and modules, and those of installed packages, that register what a run may name.

A plugin is written as the path of a ``.py`` file or as the name of a module. A file is imported as Python imports it
when a script beside it does: its folder is importable, it has one module in ``sys.modules``, and it runs once in a
process, however often and under whichever of its names it is asked for.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import importlib.metadata
import inspect
import logging
import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from fedrax.errors import FedraxError, shown
from fedrax.plugin_code import Code, read_code

GROUP = "fedrax.plugins"
"""The entry points by which an installed package offers its plugin: a module, or a function that is called."""

PATHS = {"learner": "initial", "strategy": "saved"}
"""Options of components that are the path of an earlier run, by kind of component."""

logger = logging.getLogger(__name__)

_loaded: dict[str, None] = {}
_codes: dict[str, Code] = {}
"""What loaded plugins were when this process imported them, by :func:`_key`."""


def loaded() -> list[str]:
    """The plugins that this process was told to load and has loaded."""
    return list(_loaded)


def is_file(plugin: str) -> bool:
    """Whether a plugin is the path of a file rather than the name of a module."""
    return plugin.endswith(".py")


def located(plugin: str, folder: Path) -> str:
    """The plugin as any process can find it, whatever its current folder.

    Args:
        plugin: a path, relative to ``folder``, or a module.
        folder: where the plugin was named: a file's folder, or the current one.

    Returns:
        The absolute path of a file, also for a module that lies in ``folder``; else the module's name.

    Raises:
        FedraxError: the name is empty.
    """
    if not plugin.strip():
        raise FedraxError("a plugin's name is empty; give a .py file or a module")
    if not is_file(plugin) and not all(part.isidentifier() for part in plugin.split(".")):
        raise FedraxError(f"plugins: {shown(plugin)} is no .py file and no module's name")
    if is_file(plugin):
        return os.path.abspath(folder / Path(plugin).expanduser())
    base = folder.absolute().joinpath(*plugin.split("."))
    for path in (base.with_name(f"{base.name}.py"), base / "__init__.py"):
        if path.is_file():
            known = sys.modules.get(plugin)
            # A module that is imported already from elsewhere, such as an installed package's, is the one meant.
            return plugin if known is not None and not _is_of(known, path) else os.path.normpath(path)
    return plugin


def located_in(table: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A configuration's table with its plugins, the module before its environment's id, and the paths of the networks
    that it starts from (:data:`PATHS`), :func:`located`.

    Raises:
        FedraxError: ``plugins`` is no list of texts.
    """
    changed = dict(table)
    if "plugins" in table:
        changed["plugins"] = [located(plugin, folder) for plugin in plugins_of(table)]
    environment = table.get("environment")
    if isinstance(environment, Mapping) and isinstance(environment.get("id"), str):
        module, id = split_id(environment["id"])
        if module:
            changed["environment"] = {**environment, "id": f"{located(module, folder)}:{id}"}
    for kind, name in PATHS.items():
        if isinstance(table.get(kind), Mapping):
            changed[kind] = _with_absolute(name, table[kind], folder)
    return changed


def _with_absolute(name: str, table: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A component's table, and the tables in it of components by name, with an absolute path in this option."""
    changed = {
        key: _with_absolute(name, value, folder) if isinstance(value, Mapping) else value
        for key, value in table.items()
    }
    path = changed.get(name)
    if isinstance(path, str) and path not in ("", "none"):
        changed[name] = os.path.abspath(folder / Path(path).expanduser())
    return changed


def plugins_of(table: Mapping[str, Any]) -> list[str]:
    """What a table's ``plugins`` lists; one alone may stand without a list."""
    value = table.get("plugins", [])
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, (list, tuple)) or not all(isinstance(plugin, str) and plugin for plugin in listed):
        raise FedraxError(f"plugins = {value!r} is not allowed: give a list of .py files or modules")
    return list(listed)


def split_id(id: str) -> tuple[str, str]:
    """``module:Id-v0`` as Gymnasium reads it: the module or file that registers the environment, and its id."""
    module, _, name = id.rpartition(":")
    return module, name


def short_name(plugin: str) -> str:
    """What stays of a plugin's name when it moves: the last part of its module's name."""
    if not is_file(plugin):
        return plugin.rpartition(".")[2]
    path = Path(plugin)
    return path.parent.name if path.stem == "__init__" else path.stem


def relocated(plugins: Iterable[str], given: Iterable[str]) -> list[str]:
    """``plugins``, each replaced by the ``given`` one of its :func:`short_name`; then the rest of ``given``."""
    here = {short_name(plugin): plugin for plugin in given}
    found = [here.get(short_name(plugin), plugin) for plugin in plugins]
    return list(dict.fromkeys([*found, *here.values()]))


def load_plugins(plugins: Iterable[str]) -> None:
    """Imports :func:`located` plugins, each once in this process.

    Raises:
        FedraxError: one line that names the file and the line at fault.
    """
    for plugin in plugins:
        if is_file(plugin):
            _load_file(plugin)
        else:
            with _in_one_line(plugin, None), _recorded(plugin, None):
                importlib.import_module(plugin)
        _loaded[plugin] = None


def digests(plugins: Iterable[str]) -> dict[str, str]:
    """By :func:`short_name`, digests of loaded plugins as they were when this process imported them.

    A module that is no Python source has none.
    """
    return {short_name(plugin): code.digest for plugin in plugins if (code := _codes.get(_key(plugin)))}


def registering(id: str, plugins: Iterable[str], file: str | None = None) -> dict[str, str]:
    """The :func:`digests` of those plugins that registered this environment with Gymnasium, or that hold ``file``."""
    path = None if file is None else Path(os.path.realpath(file))
    codes = {plugin: code for plugin in plugins if (code := _codes.get(_key(plugin)))}
    return digests(plugin for plugin, code in codes.items() if id in code.environments or path in code.files)


@contextlib.contextmanager
def _recorded(plugin: str, file: Path | None) -> Iterator[None]:
    """Keeps what a plugin is when it is imported here; one that was imported before stays what it was.

    A module says only once it is imported which file it is (None).
    """
    imported = plugin in sys.modules if file is None else any(_is_of(one, file) for one in list(sys.modules.values()))
    if imported and _key(plugin) in _codes:
        yield
        return
    registry = getattr(sys.modules.get("gymnasium"), "registry", None)
    before = None if registry is None else dict(registry)
    # Read first: an edit while it runs must not pass for what runs.
    code = None if file is None else read_code(file)
    yield
    if file is None:
        source = getattr(sys.modules[plugin], "__file__", None) or ""
        code = read_code(Path(source), alone=True) if is_file(source) else None
    if code is not None and before is not None and registry is not None:
        own = frozenset(id for id, spec in registry.items() if before.get(id) is not spec)
        code = dataclasses.replace(code, environments=own)
    if code is not None:
        _codes[_key(plugin)] = code


def _key(plugin: str) -> str:
    """A file by its one path, whichever way it was spelled."""
    return os.path.realpath(plugin) if is_file(plugin) else plugin


def _load_file(plugin: str) -> None:
    path = Path(os.path.realpath(plugin))
    if not path.is_file():
        raise FedraxError(
            f"there is no plugin {plugin}; mend its path, or say where the file is now with --plugins FILE "
            f"(in Python plugins=[FILE]), which takes the place of any plugin called {path.name}"
        )
    with _recorded(plugin, path):
        _import_file(plugin, path)


def _import_file(plugin: str, path: Path) -> None:
    name, root = _module_name(path)
    module = next((each for each in list(sys.modules.values()) if _is_of(each, path)), None)
    if module is None:
        taken = sys.modules.get(name)
        if taken is not None:
            origin = getattr(taken, "__file__", None) or "Python itself"
            raise FedraxError(
                f"plugin {plugin} cannot be imported as {name!r}: this process has another module of that name, from "
                f"{origin}; rename one of the two files"
            )
        importlib.invalidate_caches()
        with _first_on_path(root), _in_one_line(plugin, root):
            module = importlib.import_module(name)
        if not _is_of(module, path):
            raise FedraxError(f"plugin {plugin} has the name of Python's own module {name!r}; rename the file")
    # However a registration spells the module (`entry_point="corridor:Corridor"`), it is this one.
    for spelling in (name, path.stem):
        sys.modules.setdefault(spelling, module)
    for folder in (str(root), str(path.parent)):
        if folder not in sys.path:
            sys.path.append(folder)


def _module_name(path: Path) -> tuple[str, Path]:
    """The name that imports a file, and the folder to import it from: that of its package, where it is in one."""
    parts = [] if path.stem == "__init__" else [path.stem]
    root = path.parent
    while (root / "__init__.py").is_file():
        parts.insert(0, root.name)
        root = root.parent
    known = sys.modules.get(parts[0])
    foreign = len(parts) > 1 and known is not None and not _is_of(known, root / parts[0] / "__init__.py")
    if foreign or not all(part.isidentifier() for part in parts[:-1]):
        parts, root = [path.stem], path.parent
    if "." in parts[-1]:
        raise FedraxError(f"plugin {path} has no name that Python can import; rename it without the inner dot")
    return ".".join(parts), root


def _is_of(module: ModuleType, path: Path) -> bool:
    """Whether the module was made from this file; odd objects in ``sys.modules`` were not."""
    file = getattr(module, "__dict__", {}).get("__file__")
    if not isinstance(file, str) or os.path.basename(file) != path.name:
        return False
    with contextlib.suppress(OSError):
        return os.path.samefile(file, path)
    return False


@contextlib.contextmanager
def _first_on_path(folder: Path) -> Iterator[None]:
    """While a plugin runs its folder goes before all others, so that its own helpers are those it finds."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))


@contextlib.contextmanager
def _in_one_line(plugin: str, folder: Path | None) -> Iterator[None]:
    """Whatever the plugin raises, as one line."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if isinstance(error, ModuleNotFoundError) and error.name == plugin.partition(".")[0] and folder is None:
            raise FedraxError(f"there is no plugin module {plugin!r}; give a .py file or a module") from None
        place = where(error, folder)
        known = place.startswith(f"{plugin}, ")
        raise FedraxError(
            f"plugin {place if known else f'{plugin} cannot be imported: {place}'}{described(error)}"
        ) from error


def where(error: BaseException, folder: Path | None = None) -> str:
    """``"FILE, line N: "`` of an exception: its last line in ``folder``, else the last that is not of an import."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}: "
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen") and frame.filename not in (__file__, importlib.__file__)
    ]
    own = [frame for frame in frames if folder is not None and Path(frame.filename).is_relative_to(folder)]
    last = next(reversed(own or frames), None)
    return "" if last is None else f"{last.filename}, line {last.lineno}: "


def where_own(error: BaseException) -> str:
    """``"FILE, line N: "`` of an exception's last line that is neither this package's nor an installed one's."""
    package = Path(__file__).parent
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if os.path.isfile(frame.filename)
        and "site-packages" not in frame.filename
        and not Path(frame.filename).is_relative_to(package)
        and not Path(frame.filename).is_relative_to(Path(os.__file__).parent)
    ]
    return f"{own[-1].filename}, line {own[-1].lineno}: " if own else ""


def check_component(component_kind: str, name: str, component: type) -> None:
    """Raises :class:`FedraxError` for a plugin's component that Fedrax could not call: it is no class, lacks methods,
    or has one that does not take what is given to the one that it stands for.
    """
    what = f"{component_kind} {name!r}"
    if not inspect.isclass(component):
        raise FedraxError(f"{what} is no class; register a class that is derived from its kind's (docs/extending.md)")
    if component.__module__.partition(".")[0] == __package__:
        return
    missing = sorted(getattr(component, "__abstractmethods__", ()))
    if missing:
        raise FedraxError(f"{what} lacks {', '.join(missing)}; define them (docs/extending.md)")
    for method in vars(component):
        base = next((base for base in component.__mro__[1:] if method in vars(base)), None)
        if (
            base is not None
            and base.__module__.partition(".")[0] == __package__
            and (method == "__call__" or not method.startswith("__"))
        ):
            _check_method(what, method, getattr(component, method), getattr(base, method))


def _check_method(what: str, method: str, own: object, former: object) -> None:
    if not (inspect.isroutine(own) and inspect.isroutine(former)):
        return
    mine, called = inspect.signature(own), inspect.signature(former)
    given = [one for one in called.parameters.values() if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    keywords = {one.name: None for one in given if one.kind is one.KEYWORD_ONLY}
    try:
        mine.bind(*(one.name for one in given if one.name not in keywords), **keywords)
    except TypeError:
        place = getattr(inspect.unwrap(own), "__code__", None)
        line = f" in line {place.co_firstlineno}" if place else ""
        raise FedraxError(
            f"{what} defines {method}{_bare(mine)}{line}, which is called as {method}{_bare(called)}; "
            "let it take these arguments"
        ) from None


def _bare(signature: inspect.Signature) -> str:
    """The signature without annotations."""
    parameters = [one.replace(annotation=one.empty) for one in signature.parameters.values()]
    return str(signature.replace(parameters=parameters, return_annotation=signature.empty))


def described(error: BaseException) -> str:
    """An exception in one line: its type, unless the package raised it on purpose, and its text."""
    text = " ".join((error.msg if isinstance(error, SyntaxError) else str(error)).split())
    return text if isinstance(error, FedraxError) else f"{type(error).__name__}: {text}".removesuffix(": ")


@functools.cache
def _waiting() -> list[importlib.metadata.EntryPoint]:
    """The plugins of installed packages that were not loaded yet."""
    return list(importlib.metadata.entry_points(group=GROUP))


def load_installed() -> None:
    """Loads the plugins of installed packages, once in this process, also where one of them asks for it.

    A broken one is warned of in one line that names its package: it must not stop a run that does not need it.
    """
    waiting = _waiting()
    while waiting:
        point = waiting.pop(0)
        try:
            loaded = point.load()
            if inspect.isroutine(loaded):
                loaded()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            package = point.dist.name if point.dist is not None else "an installed package"
            logger.warning(
                "the plugin %r of package %s is passed over: %s%s", point.name, package, where(error), described(error)
            )
