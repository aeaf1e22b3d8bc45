"""Flower in a hurry: shorter waits between looks for messages, by means internal to the versions named here.

Flower's processes wait between looks: a SuperNode three seconds, every pull of an array one and more. Between processes
that do seconds of work that hardly matters; ``runtime.fast`` is for when it does.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import time
from types import FunctionType, SimpleNamespace

TESTED = ("1.41", "1.42")
"""Versions of Flower whose insides these are."""
LONGEST_WAIT = 0.02
"""Seconds."""


def is_tested() -> bool:
    """Whether the installed Flower is one whose insides are known."""
    return importlib.metadata.version("flwr").rsplit(".", 1)[0] in TESTED


def hurry_pulls() -> None:
    """Lets this process look for arrays that have not arrived yet every few milliseconds."""
    if not is_tested():
        return
    module = importlib.import_module("flwr.supercore.inflatable.inflatable_utils")
    quick = {"initial_backoff": LONGEST_WAIT, "backoff_cap": LONGEST_WAIT * 10}
    for function in vars(module).values():
        if isinstance(function, FunctionType) and quick.keys() & inspect.signature(function).parameters.keys():
            _set_defaults(function, quick)


def _set_defaults(function: FunctionType, values: dict[str, float]) -> None:
    """Changes what a function's parameters are where its caller does not say."""
    positional = [p for p in inspect.signature(function).parameters.values() if p.kind is not p.KEYWORD_ONLY]
    known = [p for p in positional if p.default is not p.empty]
    function.__defaults__ = tuple(values.get(p.name, p.default) for p in known) or None
    if function.__kwdefaults__:
        function.__kwdefaults__ |= {name: value for name, value in values.items() if name in function.__kwdefaults__}


def main() -> None:
    """``flower-supernode`` that never waits for long."""
    command = importlib.import_module("flwr.supernode.cli.flower_supernode")
    if is_tested():
        hurry_pulls()
        loop = importlib.import_module("flwr.supernode.start_client_internal")
        clock = SimpleNamespace(**{name: getattr(time, name) for name in dir(time) if not name.startswith("_")})
        clock.sleep = lambda seconds: time.sleep(min(seconds, LONGEST_WAIT))
        vars(loop)["time"] = clock
    command.flower_supernode()


if __name__ == "__main__":
    main()
