"""TOML and JSON as people, nodes and damaged files give it."""

from __future__ import annotations

import codecs
import errno
import json
import os
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DEEPEST = 100
"""Tables and lists within each other in a TOML text."""
LARGEST_FILE = 16 << 20
"""Bytes of a file that people write; it would be read for minutes otherwise."""
NOT_UTF_8 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class DecodeError(ValueError):
    """Bytes that are not what they should be."""


def text_of(path: Path) -> str:
    """The text of a file that people write: UTF-8 whatever the locale, with or without a byte order mark.

    Raises:
        OSError: it cannot be read. Pipes and devices, which may never end, are not opened.
        ValueError: it is larger than :data:`LARGEST_FILE`, or no text in UTF-8.
    """
    found = path.stat()
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    if found.st_size > LARGEST_FILE:
        raise ValueError(f"it has {found.st_size} bytes, and at most {LARGEST_FILE} are read")
    data = path.read_bytes()
    if data.startswith(NOT_UTF_8):
        raise ValueError("it is UTF-16 text; save it as UTF-8")
    if b"\0" in data:
        raise ValueError("it is not UTF-8 text: it holds bytes of value 0; save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 text (byte {error.start}); save it as UTF-8") from None


def parsed_toml(text: str) -> dict[str, Any]:
    """The tables in a TOML text.

    Raises:
        tomllib.TOMLDecodeError: it is none, also where Python gives up on it for other reasons: brackets in thousands
            of brackets, or a number of thousands of digits; or what it holds lies more than :data:`DEEPEST` deep.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError:
        raise tomllib.TOMLDecodeError("it is nested too deeply") from None
    except ValueError as error:
        raise tomllib.TOMLDecodeError(str(error)) from None
    if is_deep(tables):
        raise tomllib.TOMLDecodeError("it is nested too deeply")
    return tables


def is_deep(value: Any) -> bool:
    """Whether tables and lists lie more than :data:`DEEPEST` deep in it, or in themselves: too deep for the stack."""
    level = [value]
    for _ in range(DEEPEST):
        inner = [
            each
            for outer in level
            if isinstance(outer, (Mapping, list, tuple))
            for each in (outer.values() if isinstance(outer, Mapping) else outer)
        ]
        # What is held twice is looked at once: of what holds itself twice there would be more at every level.
        level = list({id(each): each for each in inner}.values())
        if not level:
            return False
    return True


def parsed_json(text: str | bytes) -> Any:
    """The value in a JSON text.

    Raises:
        ValueError: it is none, also where Python gives up on it: brackets in thousands of brackets, or bytes that are
            no text.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
