"""TOML and JSON as people, nodes and damaged files give it."""

from __future__ import annotations

import json
import tomllib
from typing import Any


def parsed_toml(text: str) -> dict[str, Any]:
    """The tables in a TOML text.

    Raises:
        tomllib.TOMLDecodeError: it is none, also where Python gives up on it for other reasons: brackets in thousands
            of brackets, or a number of thousands of digits.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError:
        raise tomllib.TOMLDecodeError("it is nested too deeply") from None
    except ValueError as error:
        raise tomllib.TOMLDecodeError(str(error)) from None


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
