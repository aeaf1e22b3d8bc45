"""``fedrax describe``: whatever has a name, in words or as TOML."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fedrax import sweeps
from fedrax.describe import configuration, describe
from fedrax.describe_keys import all_keys
from fedrax.errors import FedraxError, shown
from fedrax.plugins import load_plugins, located
from fedrax.sources import presets
from fedrax.sweeps.plan import KEYS
from fedrax.wording import documentation

SWEEP = "sweep"
"""What the file of a sweep is called."""


def explained(name: str, overrides: Iterable[str] = (), *, plugins: Iterable[str] = ()) -> str:
    """What a preset or a file describes (:func:`configuration`), or what is called ``name`` (:func:`describe`).

    ``sweep``, and the keys of a sweep's file (``jobs``, ``sweep.seeds``), are that file's description.

    Raises:
        FedraxError: nothing is called so, or the configuration cannot run, in one line.
    """
    overrides, plugins = list(overrides), list(plugins)
    if overrides and not any("=" in text for text in overrides):
        raise FedraxError(
            f"fedrax describe takes one name, and settings as key=value after a preset or a file; {name!r} is "
            f"followed by {shown(' '.join(overrides))}: describe one after the other"
        )
    if overrides or name in presets() or Path(name).is_file():
        return configuration(name, overrides, plugins=plugins)
    load_plugins(located(plugin, Path.cwd()) for plugin in plugins)
    if name in KEYS and name in all_keys():
        return f"{describe(name)}\n\n{name} is a key of a sweep's file too: fedrax describe {SWEEP}"
    if name == SWEEP or name.removeprefix(f"{SWEEP}.") in KEYS:
        return documentation(sweeps)
    return describe(name)
