"""Writing files so that a crash, a power cut or a full disk leaves either the old content or the new."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedrax.errors import FedraxError
from fedrax.records.encoding import decoded, encoded

if TYPE_CHECKING:
    import pydantic

PRIVATE = 0o600
"""The mode of files that only their owner may read."""
ERRORS = "error.txt"
"""Tracebacks, in a folder of what they are about."""


def reason(error: OSError) -> str:
    """What the operating system said, without the number and the path: ``No space left on device``."""
    return error.strerror or (str(error).splitlines() or [type(error).__name__])[0]


def owner_only(path: str | os.PathLike[str], flags: int) -> int:
    """For :func:`open` as its ``opener``: only the owner may read the file, also one that others could read before."""
    descriptor = os.open(path, flags, PRIVATE)
    keep_private(descriptor)
    return descriptor


def keep_private(file: Path | int) -> None:
    """Lets only its owner read a file; another's file, and one on a file system without modes, stays as it is."""
    with contextlib.suppress(PermissionError):
        os.chmod(file, PRIVATE)


@contextlib.contextmanager
def replacing(path: Path, *, private: bool = False) -> Iterator[Path]:
    """A temporary path beside ``path``; what the block writes there replaces ``path`` if the block ends well.

    The file gets the mode that any new file in the folder gets, whoever wrote it; a ``private`` one, that which lets
    only its owner read it. The replacement survives a power cut. When the block fails, the temporary file is removed
    and ``path`` is as it was. The temporary name is always the same, so a killed process leaves at most one, which the
    next write to ``path`` uses up.

    Raises:
        FedraxError: the operating system refused (disk full, no permission ...), or ``path`` is a device or the like.
    """
    check_kind(path)
    temporary = path.with_name(f".{path.stem}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb", opener=owner_only if private else None) as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        yield temporary
        # What the block uses may have made a file of its own there, which only its owner may read.
        os.chmod(temporary, mode)
        flush_to_disk(temporary)
        os.replace(temporary, path)
        # The rename itself is durable only once the folder is.
        flush_to_disk(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise FedraxError(
                f"cannot write {path}: {reason(error)}; what was there before is kept; "
                "free space or mend the permissions, then resume"
            ) from error
        raise


def write_atomic(path: Path, content: bytes | str, *, private: bool = False) -> None:
    """Makes ``content`` (text as UTF-8) the whole content of ``path``, or leaves ``path`` as it was.

    Only the owner may read it where it is ``private``, whatever the mode was.

    Raises:
        FedraxError: as :func:`replacing`.
    """
    with replacing(path, private=private) as temporary, open(temporary, "wb", buffering=0) as file:
        write_all(file.fileno(), content.encode() if isinstance(content, str) else content)


def check_kind(path: Path) -> None:
    """Raises :class:`FedraxError` where something lies at ``path`` that a file must not replace, such as a device."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise FedraxError(f"{path} is there already and is no regular file; give another path")


def check_writable(path: Path) -> None:
    """Raises :class:`FedraxError` where no file can be written at ``path``, before somebody computes what to write."""
    check_kind(path)
    new = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = not path.exists()
        with path.open("ab"):
            pass
    except OSError as error:
        raise FedraxError(f"cannot write {path}: {reason(error)}; mend that, or give another path") from None
    if new:
        path.unlink()


def append_traceback(folder: Path, error: BaseException) -> Path:
    """Adds the error's traceback, with the time, to :data:`ERRORS` in ``folder``, and returns that file's path.

    An error's text may show anything: only the owner may read the file.
    """
    path = folder / ERRORS
    text = "".join(traceback.format_exception(error))
    with (
        contextlib.suppress(OSError),
        open(path, "a", encoding="utf-8", errors="backslashreplace", opener=owner_only) as file,
    ):
        # A full disk must not hide the error under way.
        file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}\n{text}\n")
    return path


def write_json(path: Path, value: Any, *, private: bool = False) -> None:
    """Writes ``value``, :func:`encoded` and indented, as :func:`write_atomic` does."""
    write_atomic(path, encoded(value, indent=2) + "\n", private=private)


def read_json(path: Path, what: str, shape: type[pydantic.BaseModel] | None = None) -> dict[str, Any]:
    """The JSON object in ``path``, as :func:`write_json` was given it.

    Args:
        path: the file.
        what: names it in messages.
        shape: what it must be, where it is read far from here; keys that this lacks may hold anything.

    Raises:
        FedraxError: the file is missing or damaged.
    """
    try:
        value = decoded(path.read_bytes())
    except OSError as error:
        raise FedraxError(
            f"cannot read the {what} {path}: {reason(error)}; give the directory of a run that was started"
        ) from None
    except ValueError:
        raise FedraxError(f"the {what} {path} is damaged: it is not JSON; delete it and resume the run") from None
    if not isinstance(value, dict):
        raise FedraxError(f"the {what} {path} is damaged: it is not a JSON object; delete it and resume the run")
    if shape is not None and (wrong := misfit(value, shape)) is not None:
        raise FedraxError(f"the {what} {path} is damaged: {wrong}; delete it, or restore it")
    return value


def misfit(value: Any, shape: type[pydantic.BaseModel]) -> str | None:
    """Where a value of JSON is not of a shape, and why; None where it is."""
    from pydantic import ValidationError  # Of this module's users most need no shapes.

    try:
        shape.model_validate(value, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])[:80]
        return f"at {place}: {first['msg'].lower()}"
    return None


def write_all(descriptor: int, data: bytes) -> None:
    """Writes all of ``data``; the operating system may take it in pieces."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def flush_to_disk(path: Path) -> None:
    """Makes a file's content, or a folder's names, survive a power cut; the latter not on Windows, which has no way."""
    if sys.platform == "win32" and path.is_dir():
        return
    # Windows flushes only what may be written to.
    descriptor = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
