"""Layers of a configuration's tables as one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fedrax.environments.distributions import joint_distributions
from fedrax.environments.metaworld import spelled_out
from fedrax.loggers.base import DEFAULT, by_name
from fedrax.plugins import plugins_of, split_id
from fedrax.registry import options_of
from fedrax.sources import merge


def merge_settings(layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The layers' plain settings as one table.

    Short forms of environments are spelled out. Plugins add up, and a module before the environment's id is one of
    them; heterogeneity as in :func:`merge_heterogeneity`, loggers as in :func:`merge_loggers`.
    """
    layers = list(layers)
    # What is said above the first layer is said by one user: a task there, and another id, contradict each other.
    spelled_out(merge(layer["environment"] for layer in layers[1:] if isinstance(layer.get("environment"), Mapping)))
    layers = [
        {**layer, "environment": spelled_out(layer["environment"])}
        if isinstance(layer.get("environment"), Mapping)
        else layer
        for layer in layers
    ]
    merged = merge(layers)
    merged["plugins"] = [plugin for layer in layers for plugin in plugins_of(layer)]
    if isinstance(merged.get("records"), Mapping):
        records = [layer.get("records") for layer in layers]
        merged["records"] = {**merged["records"], "loggers": merge_loggers(records)}
    if not isinstance(merged.get("environment"), Mapping):
        return merged
    environment = merged["environment"] = dict(merged["environment"])
    module, id = split_id(str(environment.get("id", "")))
    if module:
        merged["plugins"].append(module)
        environment["id"] = id
    environments = [layer["environment"] for layer in layers if isinstance(layer.get("environment"), Mapping)]
    tables = [table["heterogeneity"] for table in environments if "heterogeneity" in table]
    if tables:
        environment["heterogeneity"] = merge_heterogeneity(tables)
    return merged


def merge_heterogeneity(tables: Iterable[Any]) -> Any:
    """The heterogeneity tables of several layers as one.

    ``"none"`` in place of a table removes what earlier layers said. A layer that names a joint
    distribution, or ``distribution = "none"``, removes an earlier layer's together with its options, which mean nothing
    without it.
    """
    merged: dict[str, Any] = {}
    for table in tables:
        if not isinstance(table, Mapping):
            if table != "none":
                return table  # The configuration's model refuses it.
            merged = {}
            continue
        earlier = merged.get("distribution")
        if earlier is not None and table.get("distribution", earlier) != earlier:
            dropped = {
                "distribution",
                *(options_of(joint_distributions[earlier]) if earlier in joint_distributions else ()),
            }
            merged = {key: value for key, value in merged.items() if key not in dropped}
        merged = merge([merged, table])
        if merged.get("distribution") == "none":
            del merged["distribution"]
    return merged


def merge_loggers(records: Iterable[Any]) -> Any:
    """``records.loggers`` of several layers' ``records``, of which the first is a preset's or a file's.

    Names take the place of what earlier layers said, and so does all that the first layer says; a table of a later
    layer adds its loggers and options.
    """
    merged: Any = DEFAULT
    for index, table in enumerate(records):
        if isinstance(table, Mapping) and "loggers" in table:
            said = by_name(table["loggers"])
            adds = index > 0 and isinstance(table["loggers"], Mapping) and isinstance(merged, Mapping)
            merged = merge([merged, said]) if adds else said
    return merged
