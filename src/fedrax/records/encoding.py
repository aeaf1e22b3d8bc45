"""Values as JSON and back: what is written is what is read, NaN and infinities included.

JSON has no such numbers. They are written as protocol buffers write them, as the texts ``"NaN"``, ``"Infinity"`` and
``"-Infinity"`` (https://protobuf.dev/programming-guides/json), so that every JSON reader can read the files; a text
that happens to read so gets a backslash in front.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from fedrax.parsing import parsed_json

NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
AMBIGUOUS = re.compile(rf"\\*({'|'.join(NUMBERS)})")
"""Texts that could be taken for one of the numbers, or for such a text with backslashes in front."""


def encoded(value: Any, indent: int | None = None) -> str:
    """``value`` as JSON that :func:`decoded` reads back.

    NumPy and JAX values become numbers or lists, tuples lists, keys texts.

    Raises:
        TypeError: a value of any other kind than numbers, texts, None, mappings and sequences.
    """
    return json.dumps(_converted(value, _number_as_text, _text), indent=indent, allow_nan=False)


def decoded(text: str | bytes) -> Any:
    """What was :func:`encoded`.

    Raises:
        ValueError: the text is not JSON.
    """
    return _revived(parsed_json(text))


def plain(value: Any) -> Any:
    """``value`` as JSON can hold it, for rows that other programs read: NaN and infinities become ``None``, missing.

    Integers stay integers. Mappings and sequences are converted throughout; keys become strings.

    Raises:
        TypeError: a value of any other kind.
    """
    return _converted(value, lambda number: None, lambda text: text)


def _converted(value: Any, unwritable: Callable[[float], Any], text: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return text(value)
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else unwritable(value)
    if isinstance(value, Mapping):
        return {str(key): _converted(item, unwritable, text) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_converted(item, unwritable, text) for item in value]
    if hasattr(value, "tolist"):
        return _converted(value.tolist(), unwritable, text)
    raise TypeError(f"a {type(value).__name__} cannot be recorded")


def _number_as_text(number: float) -> str:
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def _text(text: str) -> str:
    return f"\\{text}" if AMBIGUOUS.fullmatch(text) else text


def _revived(value: Any) -> Any:
    if isinstance(value, str):
        if value in NUMBERS:
            return NUMBERS[value]
        return value[1:] if AMBIGUOUS.fullmatch(value) else value
    if isinstance(value, dict):
        return {key: _revived(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_revived(item) for item in value]
    return value
