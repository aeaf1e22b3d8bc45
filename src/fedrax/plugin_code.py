"""What a plugin consists of: its file and those beside it that it imports, as one digest.

The files are found by reading, not by running: which modules a process has imported by now depends on whatever else it
did, and the digest must not.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

SHOWN = 8
"""Characters of a digest that tell plugins apart in words."""


@dataclasses.dataclass(frozen=True)
class Code:
    """A plugin as it was when this process imported it."""

    digest: str
    files: frozenset[Path]
    environments: frozenset[str] = frozenset()
    """Ids that importing it registered with Gymnasium."""


def read_code(file: Path, *, alone: bool = False) -> Code:
    """The code in a plugin's file and in the files of its folder that it imports, directly or through another.

    What it imports from elsewhere, such as installed packages, is no part of it; nor are files that are not Python.

    Args:
        file: of the plugin; that of a package is its ``__init__.py``.
        alone: that of a module which is installed beside others: of these, only its own package's are part of it.
    """
    file = Path(os.path.realpath(file))
    top = file.parent
    while (top / "__init__.py").is_file():
        top = top.parent
    package = None if top == file.parent else file.relative_to(top).parts[0]
    found: dict[Path, bytes] = {}
    waiting = [file]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        try:
            found[path] = path.read_bytes()
        except OSError:  # Gone since it was found; whoever imports it says so.
            continue
        for name in _imported(path, found[path], top):
            if not alone or (package is not None and name.partition(".")[0] == package):
                waiting += [each for root in {top, file.parent} for each in _files(root, name)]
    digest = hashlib.sha256()
    # By place beside the plugin, so that moving the folder changes nothing.
    for name, content in sorted((os.path.relpath(path, file.parent), content) for path, content in found.items()):
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return Code(digest.hexdigest(), frozenset(found))


def _imported(path: Path, content: bytes, top: Path) -> Iterator[str]:
    """The full names of modules, and of what may be modules, that a file imports anywhere in it."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError):  # Importing it says what is wrong.
        return
    folders = path.parent.relative_to(top).parts if path.is_relative_to(top) else ()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = folders[: len(folders) - (node.level - 1)] if node.level else ()
            base = [*above, *([node.module] if node.module else [])]
            yield from (".".join([*base, alias.name]) for alias in node.names)


def _files(root: Path, name: str) -> Iterator[Path]:
    """The files in ``root`` that importing this name runs: the module, and the packages that it is in."""
    if name.partition(".")[0] == __package__:  # A plugin may lie beside this package's source.
        return
    place = root
    for part in name.split("."):
        place = place / part
        for path in (place / "__init__.py", place.with_name(f"{part}.py")):
            if path.is_file():
                yield Path(os.path.realpath(path))
                break
