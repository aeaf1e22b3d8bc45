"""What is said of words that the command line's grammar does not have, or that a shell has taken apart."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence

from fedrax.errors import SOME, near


def unexpected(rest: Sequence[str], words: Sequence[str], parser: argparse.ArgumentParser, *, settings: bool) -> str:
    """The error for words that a command does not take: what is meant, as far as that can be told.

    Args:
        rest: those words.
        words: all words of the command line.
        parser: the command's.
        settings: whether the command takes settings, ``key=value``.
    """
    said = _as_settings(rest, words) if settings else ""
    if not said:
        known = [name for action in parser._actions for name in action.option_strings]  # argparse has no other way.
        given = [word.partition("=")[0] for word in rest if word.startswith("--")]
        meant = [found for option in given for found in near(option, known)[:1]]
        said = f" (did you mean {' or '.join(dict.fromkeys(meant))}?)" if meant else ""
    return f"unrecognized arguments: {' '.join(rest)}{said}"


def _as_settings(rest: Sequence[str], words: Sequence[str]) -> str:
    """How ``--seed 3``, which is no argument, is written as a setting, or how ``--device cuda`` is done."""
    from fedrax.other_names import component_called, keys_called, other_way, registered_names

    said, ways = [], []
    for option in rest:
        if not option.startswith("--"):
            continue
        key, _, value = option[2:].partition("=")
        following = list(words[words.index(option) + 1 :])
        if not value and following and not following[0].startswith("--"):
            value = following[0]
        table, _, name = key.rpartition(".")
        keys = keys_called(name)
        _, _, meant = component_called(value, registered_names()).partition("; set ")
        if meant.partition("=")[0] in keys:
            # Of several kinds, as `--algo ppo` may mean, that which has it.
            said.append(meant)
        elif keys := [each for each in keys if each.rpartition(".")[0] == table] or keys:
            said.append(" or ".join(f"{each}={value or '...'}" for each in keys[:SOME]))
        elif way := other_way(key):
            ways.append(way)
    settings = [f"settings are given as {', '.join(said)}"] if said else []
    return "".join(f"; {text}" for text in [*settings, *dict.fromkeys(ways)])


def apart(words: Sequence[str]) -> str:
    """What is wrong with a setting that stands in several words, as a shell makes of spaces; empty where none does.

    Args:
        words: ``["learner.hidden", "=", "[64,", "64]"]``, all that stand where settings may.
    """
    for place, word in enumerate(words):
        key, separator, value = word.partition("=")
        begin, end = place, place + 1
        following = end < len(words) and "=" not in words[end]
        if not separator or (not key and place == 0):
            continue
        if not key:  # After the key: "=" or "=0.9".
            begin, key = place - 1, words[place - 1]
        if not value and following:
            value, end = words[end], end + 1
        while _is_open(value) and end < len(words):
            value, end = f"{value} {words[end]}", end + 1
        if end - begin > 1 and "=" not in key:
            given, whole = " ".join(words[begin:end]), shlex.quote(f"{key}={value}")
            return f"{given} is {end - begin} words; give one, without spaces or in quotes: {whole}"
    return ""


def _is_open(value: str) -> bool:
    """Whether a list or a table in it is not closed."""
    return any(value.count(opening) > value.count(closing) for opening, closing in ("[]", "{}"))
