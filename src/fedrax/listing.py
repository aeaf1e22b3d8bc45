"""``fedrax list``: everything that has a name, without importing JAX unless plugins are to be listed too."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Mapping
from pathlib import Path

from fedrax import names
from fedrax.kinds import DEFAULT_KINDS
from fedrax.plugins import GROUP, load_plugins, located
from fedrax.report.experiments import FIGURES
from fedrax.sources import presets, read_source

TITLES = {
    names.ENVIRONMENTS: "native environments",
    names.DISTRIBUTIONS: "joint distributions of heterogeneity",
}
"""What registries are called whose name in the source is not what to say."""


def listed(plugins: Iterable[str] = ()) -> str:
    """Every preset, component, native environment and published figure, by kind, with a line on each.

    Args:
        plugins: to load, whose components and environments are listed too, as are those of installed packages.

    Raises:
        FedraxError: a plugin that cannot be loaded, in one line.
    """
    plugins = list(plugins)
    if not plugins and not importlib.metadata.entry_points(group=GROUP):
        return overview(names.components())
    import gymnasium

    from fedrax.describe import registered

    known = set(gymnasium.registry)
    load_plugins(located(plugin, Path.cwd()) for plugin in plugins)
    return overview(registered(), gymnasium.registry.keys() - known)


def overview(components: Mapping[str, Mapping[str, str]], environments: Iterable[str] = ()) -> str:
    """The list as text.

    Args:
        components: by registry and name, a line on each (:func:`fedrax.names.components`).
        environments: ids of Gymnasium that plugins registered.
    """
    environments = sorted(environments)
    sections = {
        "presets": {name: str(read_source(name).get("name", "")) for name in presets()},
        **{TITLES.get(registry, registry): found for registry, found in components.items()},
        "figures": {name: figure.title for name, figure in sorted(FIGURES.items())},
        **({"environments of plugins": dict.fromkeys(environments, "")} if environments else {}),
    }
    lines = []
    for title, found in sections.items():
        lines += [title, *(f"  {name:32}{summary}".rstrip() for name, summary in found.items()), ""]
    lines.append(
        "Any Gymnasium id with observations of a Box (or Dict of Boxes) and Discrete or Box actions is one too."
    )
    lines.append(
        "fedrax describe NAME explains a name or a key; component kinds and tables: "
        + ", ".join([*DEFAULT_KINDS, "logger", *names.plain_tables(), "sweep"])
        + "; keys without a table: "
        + ", ".join(key for key in names.plain_keys() if "." not in key)
    )
    return "\n".join(lines)
