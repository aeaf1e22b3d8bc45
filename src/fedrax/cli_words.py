"""What is said of words that the command line's grammar does not have, or that a shell has taken apart."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedrax.errors import SOME, FedraxError, near

if TYPE_CHECKING:
    from fedrax.config import Config

_KEY = re.compile(r"[A-Za-z][\w-]*(\.[\w-]+)*")


def unexpected(rest: Sequence[str], words: Sequence[str], options: argparse.Namespace) -> str:
    """The error for words that a command does not take: what is meant, as far as that can be told.

    Args:
        rest: those words.
        words: all words of the command line.
        options: what else they say; ``parser`` is the command's, and it has ``overrides`` where settings are taken.
    """
    said = _as_settings(rest, words, options) if hasattr(options, "overrides") else ""
    if not said:
        parser: argparse.ArgumentParser = options.parser
        known = [name for action in parser._actions for name in action.option_strings]  # argparse has no other way.
        given = [word.partition("=")[0] for word in rest if word.startswith("--")]
        meant = [found for option in given for found in near(option, known)[:1]]
        said = f" (did you mean {' or '.join(dict.fromkeys(meant))}?)" if meant else _on_a_device(given)
    return f"unrecognized arguments: {' '.join(rest)}{said}"


def _on_a_device(given: Sequence[str]) -> str:
    """How a device is chosen, where one of these options does that elsewhere."""
    from fedrax.other_names import DEVICE, other_way

    return f"; {DEVICE}" if any(other_way(option[2:]) == DEVICE for option in given) else ""


def _as_settings(rest: Sequence[str], words: Sequence[str], options: argparse.Namespace) -> str:
    """How ``--seed 3``, which is no argument, is written as a setting, or how ``--device cuda`` is done."""
    from fedrax.other_names import component_called, is_of_some, keys_called, other_way, registered_names, whose

    source, base, said, ways = _source(options), None, [], []
    given = list(_given(rest, words, source))
    components = [component_called(value, registered_names()).partition("; set ")[2] for _, value in given]
    for (key, value), component in zip(given, components, strict=True):
        table, _, name = key.rpartition(".")
        keys = keys_called(name)
        keys = [each for each in keys if each.rpartition(".")[0] == table] or keys
        settable = [each for each in keys if not _kept(each, options)]
        if not settable:
            ways.append(_kept(keys[0], options) if keys else other_way(key))
        elif component.partition("=")[0] in settable:
            # Of several kinds, as `--algo ppo` may mean, that which has it.
            said.append(component)
        else:
            chosen = [each for each in components if each.count("=") == 1]
            base = base or _Base(source, options, words, chosen, [value for _, value in given])
            if known := [each for each in settable if each in base.keys or not is_of_some(each)]:
                said.append(" or ".join(base.setting(each, value) for each in known[:SOME]))
            else:
                ways.append(whose(settable))
    settings = [f"settings are given as {', '.join(said)}"] if said else []
    return "".join(f"; {text}" for text in [*settings, *dict.fromkeys(filter(None, ways))])


def _given(rest: Sequence[str], words: Sequence[str], source: str) -> Iterator[tuple[str, str]]:
    """The options among ``rest`` without their dashes, each with its value, which is empty where it has none."""
    for place, word in enumerate(words):
        if word not in rest or not word.startswith("--"):
            continue
        key, _, value = word[2:].partition("=")
        following = list(words[place + 1 :])
        if not value and following and following[0] != source and not _is_setting(following[0]):
            value = _value(following)
        elif _is_open(value):
            value = _value([value, *following])
        yield key, value


def _value(words: Sequence[str]) -> str:
    """The value that begins these words: one of them, or as many as close its brackets; empty before an option."""
    value = ""
    for word in words:
        if word.startswith("--") or (value and not _is_open(value)):
            break
        value = f"{value} {word}".strip()
    return value


def _is_setting(word: str) -> bool:
    key, separator, _ = word.partition("=")
    return bool(separator) and _KEY.fullmatch(key.strip()) is not None


def _source(options: argparse.Namespace) -> str:
    """The preset or the file that the command is given; empty where there is none.

    Another word may stand in its place: in ``--lr 0.1 P``, argparse takes the value of an option that it does not know.
    """
    from fedrax.sources import presets

    if run := getattr(options, "run", ""):
        config = Path(run) / "config.toml"
        return str(config) if is_file(config) else ""
    words = [getattr(options, "source", None), getattr(options, "name", None)]
    words += [*options.overrides, *getattr(options, "files", [])]
    known = presets()
    return next((word for word in words if word and (word in known or is_file(word))), "")


def _kept(key: str, options: argparse.Namespace) -> str:
    """Why the command does not set a key that others do; empty where it does."""
    if options.parser.prog.endswith(" node") and not key.startswith("environment"):
        return f"a node sets environment.KEY=VALUE alone, and {key} is the server's to say"
    if options.parser.prog.endswith(" resume"):
        from fedrax.runtime.continuation import may_change

        if not may_change(key):
            return f"{key} stays as it is when a run goes on: another value makes another experiment"
    return ""


class _Base:
    """The configuration without the options that are no arguments."""

    def __init__(
        self,
        source: str,
        options: argparse.Namespace,
        words: Sequence[str],
        chosen: Sequence[str],
        values: Sequence[str],
    ) -> None:
        """Reads it: what is wrong with it by itself is not asked about, and left out.

        Args:
            source: of the command; empty where there is none.
            options: of the command.
            words: all words of the command line.
            chosen: settings that choose the components which options name.
            values: those of the options, which are no settings.
        """
        settings = [word for word in words if _is_setting(word) and word not in values]
        # A node loads what it is told to, and only once the server asks for it.
        self._plugins = [] if options.parser.prog.endswith(" node") else list(getattr(options, "plugins", []))
        self._layers: tuple[str | None, list[str]] = (None, ["budget.rounds=1"])
        start = [] if source else self._layers[1]
        for each in ([*settings, *chosen], settings, []):
            layers = (source or None, [*start, *each])
            if config := self._resolved(*layers):
                self._layers = layers
                break
        else:
            config = self._resolved(*self._layers)
        tables = {} if config is None else config.model_dump(include={*_kinds()})
        self.keys = [f"{kind}.{option}" for kind, table in tables.items() for option in table]
        """Those of the options of its components."""

    def setting(self, key: str, value: str) -> str:
        """``KEY=VALUE`` as a shell takes it; ``KEY=...`` where the value is not allowed."""
        source, settings = self._layers
        setting = f"{key}={value}"
        # A plugin would be run to see whether it is allowed.
        allowed = value and key != "plugins" and self._resolved(source, [*settings, setting]) is not None
        return shlex.quote(setting) if allowed else f"{key}=..."

    def _resolved(self, source: str | None, settings: Sequence[str]) -> Config | None:
        # Only here, where its seconds to import JAX answer somebody.
        from fedrax.config import resolve

        try:
            return resolve(source, list(settings), plugins=self._plugins)
        except (FedraxError, OSError):
            return None


def _kinds() -> list[str]:
    from fedrax.kinds import DEFAULT_KINDS

    return list(DEFAULT_KINDS)


def apart(words: Sequence[str]) -> str:
    """What is wrong with a setting that stands in several words, as a shell makes of spaces; empty where none does.

    Args:
        words: ``["learner.hidden", "=", "[64,", "64]"]``, all that stand where settings may.
    """
    for place, word in enumerate(words):
        key, separator, value = word.partition("=")
        begin, end = place, place + 1
        if not separator:
            continue
        if not key and place:  # After the key: "=" or "=0.9".
            begin, key = place - 1, words[place - 1]
        if not _is_of_a_table(key):
            # A preset, a file or a run before a sign that belongs to nothing.
            continue
        if not value and end < len(words) and not _is_setting(words[end]):
            value, end = words[end], end + 1
        while _is_open(value) and end < len(words):
            value, end = f"{value} {words[end]}", end + 1
        # Signs that follow one another, as in "seed == 3" or "seed = = 3", are no part of a value.
        signs = value.startswith("=")
        while signs and end < len(words) and not _is_setting(words[end]):
            end += 1
        if end - begin > 1:
            return _together(words[begin:end], key, "" if signs else value)
    return ""


def _together(words: Sequence[str], key: str, value: str) -> str:
    """That these are one setting, and how it is given; ``value`` is empty where nobody can tell it."""
    given = f"{' '.join(words)} is {len(words)} words; give one, without spaces or in quotes: "
    if not _is_key(key):
        return f"{given}KEY=VALUE"
    return f"{given}{shlex.quote(f'{key}={value}') if value.strip() else f'{key}=...'}"


def _is_of_a_table(key: str) -> bool:
    """Whether a word is a key, or what somebody may take for one, and no preset, file or run."""
    from fedrax import names
    from fedrax.other_names import keys_called

    if not _KEY.fullmatch(key):
        return False
    tables = [*names.plain_tables(), *_kinds()]
    return key.partition(".")[0] in tables or bool(keys_called(key.rpartition(".")[2]))


def _is_key(key: str) -> bool:
    """Whether it is a key of a configuration, or within one that is a table: ``environment.kwargs.size``."""
    from fedrax import names

    kind, _, option = key.partition(".")
    if kind in _kinds():
        return option in ("", "kind") or option in names.options(kind)
    known = ["environment", "runtime", *names.plain_keys()]
    return key in known or any(key.startswith(f"{each}.") for each in names.plain_keys())


def _is_open(value: str) -> bool:
    """Whether a list or a table in it is not closed."""
    return any(value.count(opening) > value.count(closing) for opening, closing in ("[]", "{}"))


def is_file(name: str | Path) -> bool:
    """Whether there is such a file; none has a name that the system finds too long."""
    try:
        return Path(name).is_file()
    except OSError:
        return False
