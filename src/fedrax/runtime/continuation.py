"""Whether what lies in a directory is this run, and what of its configuration may change when it goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedrax.config import Config, read_source, resolve
from fedrax.environments.registry import code_of
from fedrax.environments.spaces import written
from fedrax.errors import FedraxError
from fedrax.migration import present_keys
from fedrax.parsing import parsed_toml
from fedrax.plugin_code import SHOWN
from fedrax.plugins import digests, short_name
from fedrax.records.checkpoint import latest_round
from fedrax.records.files import write_json
from fedrax.records.manifest import read_manifest, write_manifest
from fedrax.records.rundir import RunDirectory
from fedrax.records.summary import read_summary
from fedrax.runtime.annealing import rising
from fedrax.runtime.draws import all_draws, divergence, engines, runs_native, spaces_of, task_ids
from fedrax.sources import parse_override

logger = logging.getLogger(__name__)

CHANGEABLE = (
    *("name", "plugins", "budget.rounds", "budget.trajectories", "budget.steps", "budget.steps_per_agent"),
    *("evaluation.every", "evaluation.aggregation", "checkpoint.every", "checkpoint.keep_policies"),
    *("video.every", "video.agent"),
    *("environment.threads", "runtime.agents_per_batch", "runtime.compiling", "records.loggers"),
    *("runtime.flower.quorum", "runtime.flower.deadline", "runtime.flower.gather"),
    *("runtime.flower.max_norm", "runtime.flower.max_failures"),
    *("runtime.flower.save_every", "runtime.flower.fast"),
)
"""What may differ from one part of a run to the next: when it ends, how often it is looked at, and what carries it out.

Everything else would make it another experiment.
"""

SECURE_SUMS = {
    "simulation": "simulated: quantised sum, no cryptography",
    "flower": "masked by the nodes; sums.jsonl says who was in each, and whether keys were authenticated",
}
"""What stands for a secure sum in a run, by runtime."""

RESTARTS = "checkpoint.every"
"""Changeable only where environments are in JAX: others start anew at every checkpoint, so it changes what they do."""


def leaves(config: Config) -> dict[str, Any]:
    """A configuration as ``section.key -> value``."""

    def walk(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for key, value in tree.items():
            if isinstance(value, Mapping):
                yield from walk(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", value

    # A plugin is the same wherever it lies.
    plugins = [short_name(plugin) for plugin in config.plugins]
    return dict(walk({**config.model_dump(mode="json"), "plugins": plugins}, ""))


def differences(before: Config, after: Config) -> dict[str, tuple[Any, Any]]:
    """Every key whose value differs, with both values; None where a configuration has no such key."""
    one, other = leaves(before), leaves(after)
    keys = dict.fromkeys([*one, *other])
    return {key: (one.get(key), other.get(key)) for key in keys if one.get(key) != other.get(key)}


def may_change(key: str, allowed: Iterable[str] = CHANGEABLE) -> bool:
    """Whether it is one of these keys, or in a table of them."""
    return any(key == one or key.startswith(f"{one}.") for one in allowed)


def changeable(config: Config) -> tuple[str, ...]:
    """The keys that may change while this run goes on."""
    return tuple(key for key in CHANGEABLE if key != RESTARTS or runs_native(config))


def configuration(directory: RunDirectory, overrides: Iterable[str] = (), *, plugins: Iterable[str] = ()) -> Config:
    """The configuration in a run's directory under these overrides.

    Raises:
        FedraxError: one line; where ``config.toml`` is not what the run wrote, it says so.
    """
    try:
        return resolve(directory.config, overrides, plugins=plugins)
    except FedraxError as error:
        if _as_written(directory):
            raise
        raise FedraxError(
            f"{directory.config} is not what the run wrote, and cannot be used: {error}; restore it, from 'config' in "
            f"{directory.manifest.name} if need be"
        ) from None


def warn_of_edits(directory: RunDirectory, config: Config) -> None:
    """A warning where the run was trained with another configuration than its directory has now, or other plugins."""
    manifest = _manifest(directory)
    for plugin in _edited_plugins(manifest, config):
        logger.warning(
            "%s is not what %s was trained with; what is computed now is by its new content", plugin, directory.path
        )
    before = manifest.get("config")
    if not isinstance(before, Mapping):
        return
    try:
        found = differences(_recorded(before, config), config)
    except FedraxError:  # Recorded by an earlier version.
        return
    foreign = {key: values for key, values in found.items() if not may_change(key)}
    if foreign:
        logger.warning("%s was edited since the run was trained: %s", directory.config, _listed(foreign))


def _code(config: Config) -> dict[str, dict[str, str]]:
    """What a manifest says of the code in plugins, which this process has loaded."""
    native, plugins = config.environment.native, config.plugins
    codes = {id: code_of(id, plugins, native=native) for id in task_ids(config)}
    return {
        "plugins": digests(plugins),
        "environment_code": {id: code for id, code in codes.items() if code is not None},
    }


def _edited_plugins(manifest: Mapping[str, Any], config: Config) -> list[str]:
    """One text for each plugin whose content is not what the manifest says; runs of earlier versions do not say."""
    before = manifest.get("plugins") or {}
    now = digests(config.plugins)
    return [
        f"plugin {plugin} ({now[name][:SHOWN]}, before {before[name][:SHOWN]})"
        for plugin in config.plugins
        if (name := short_name(plugin)) in now and before.get(name, now[name]) != now[name]
    ]


def _as_written(directory: RunDirectory) -> bool:
    """Whether ``config.toml`` is what the manifest says, as far as can be told."""
    recorded = _manifest(directory).get("config")
    try:
        return recorded is None or bool(parsed_toml(directory.config.read_text(encoding="utf-8")) == recorded)
    except (OSError, ValueError):
        return False


def _manifest(directory: RunDirectory) -> dict[str, Any]:
    """The manifest; empty where there is none that can be read."""
    try:
        return read_manifest(directory)
    except FedraxError:
        return {}


def changed(directory: RunDirectory) -> bool:
    """Whether ``config.toml`` is not what the run was started, or last resumed, with."""
    manifest = read_manifest(directory) if directory.manifest.exists() else {}
    now = configuration(directory)
    return "config" in manifest and bool(differences(_recorded(manifest["config"], now), now))


def continued(directory: RunDirectory, overrides: Iterable[str] = ()) -> tuple[Config, str]:
    """The configuration that a run goes on with under these ``key=value`` overrides, and what changes, in a line
    or two; empty where nothing does.

    What changes is recorded before it counts: the former configuration and summary in the manifest's ``history``, then
    the new ``config.toml``. Whoever calls this holds the directory's lock.

    Raises:
        FedraxError: the overrides, or ``config.toml`` as somebody edited it, would make the run another experiment.
    """
    manifest = read_manifest(directory) if directory.manifest.exists() else {}
    there = configuration(directory)
    # Runs of earlier versions did not record what they were started with.
    before = _recorded(manifest["config"], there) if "config" in manifest else there
    overrides = list(overrides)
    try:
        after = resolve(directory.config, overrides)
    except FedraxError:
        _check_overrides(directory, before, overrides)
        raise
    changes = differences(before, after)
    edited_plugins = _edited_plugins(manifest, after)
    if edited_plugins and (changes or not directory.summary.exists()):
        logger.warning("%s goes on with other code than before: %s", directory.path, ", ".join(edited_plugins))
    if not changes:
        if not directory.summary.exists():
            manifest = _with_engines(directory, manifest, after)
        if edited_plugins and not directory.summary.exists():
            write_json(
                directory.manifest, {**manifest, "history": _with_former(directory, manifest, before), **_code(after)}
            )
        return after, ""
    allowed = changeable(before)
    edited = differences(before, there)
    for key, values in changes.items():
        if not may_change(key, allowed):
            raise _another_experiment(directory, key, values, edited=key in edited, allowed=allowed)
    if directory.summary.exists():
        _check_budget(directory, before, after)
    manifest = _with_engines(directory, manifest, after)
    if manifest:
        _record(directory, manifest, before, after)
    else:
        directory.write_config(after.to_toml())
    told = [f"{directory.path} goes on with {_listed(changes)}", rising(directory, before, after)]
    return after, "\n".join(filter(None, told))


def _with_engines(directory: RunDirectory, manifest: dict[str, Any], after: Config) -> dict[str, Any]:
    """The manifest, written anew where somebody else steps the environments from here on; people are warned."""
    known = manifest.get("engines")
    now = _engines(after)
    changed = {id: known[id] for id in now if known and id in known and known[id].split(", then ")[-1] != now[id]}
    if not changed:
        return manifest
    told = ", ".join(f"{id} by {now[id]} ({former})" for id, former in changed.items())
    logger.warning("%s goes on with environments stepped by others than before: %s", directory.path, told)
    each = {**now, **{id: f"{former}, then {now[id]}" for id, former in changed.items()}}
    write_json(directory.manifest, {**manifest, "engines": each})
    return {**manifest, "engines": each}


def _engines(config: Config) -> dict[str, str]:
    """:func:`engines` as far as this process can know: nodes have their own."""
    elsewhere = config.runtime.kind == "flower" and config.evaluation.environments == "own"
    return {} if elsewhere else engines(config)


def _check_budget(directory: RunDirectory, before: Config, after: Config) -> None:
    """Raises for a limit below what a finished run has done.

    A run goes past a limit by less than a round, and may keep that limit.
    """
    summary = read_summary(directory)
    done = {
        "rounds": (summary["rounds"], 1, "rounds"),
        "trajectories": (summary["trajectories"], 1, "trajectories per agent"),
        "steps": (summary["total_steps"], 1, "environment steps"),
        "steps_per_agent": (summary["agent_steps"], before.federation.agents, "environment steps of each agent"),
    }
    for name, (counts, share, words) in done.items():
        most = getattr(after.budget, name)
        count = max(counts if isinstance(counts, list) else [counts]) // share
        if most is not None and most != getattr(before.budget, name) and most < count:
            raise FedraxError(
                f"budget.{name} = {most} is not allowed: {directory.path} has done {count} {words}, which are not "
                "taken back; give more, or train a new run"
            )


def _check_overrides(directory: RunDirectory, before: Config, overrides: Iterable[str]) -> None:
    """Raises for the first that may not change: that it contradicts the run's other settings is no news then."""
    values = leaves(before)
    for override in overrides:
        key = override.partition("=")[0].strip()
        value: Any = parse_override(override)
        for part in key.split("."):
            value = value[part]
        if key in values and not may_change(key, changeable(before)):
            raise _another_experiment(directory, key, (values[key], value), edited=False, allowed=changeable(before))


def _record(directory: RunDirectory, manifest: Mapping[str, Any], before: Config, after: Config) -> None:
    """Keeps what was, then makes the change: killed anywhere in between, the run is one of the two."""
    history = _with_former(directory, manifest, before)
    write_json(directory.manifest, {**manifest, "history": history})
    # Without its summary the run is not finished. Until its configuration changes, it would come to the same one again.
    directory.summary.unlink(missing_ok=True)
    directory.write_config(after.to_toml())
    write_json(
        directory.manifest,
        {
            **manifest,
            "history": history,
            "config": table(after),
            "config_hash": after.digest(),
            **(_code(after) if "plugins" in manifest else {}),
        },
    )


def _with_former(directory: RunDirectory, manifest: Mapping[str, Any], before: Config) -> list[dict[str, Any]]:
    """The manifest's history with what the run is until it changes."""
    history = list(manifest.get("history", []))
    former = {
        "config": table(before),
        "summary": read_summary(directory) if directory.summary.exists() else None,
        "rounds": latest_round(directory.checkpoints) or 0,
        "time": datetime.now(UTC).isoformat(),
        **{key: manifest[key] for key in ("plugins", "environment_code") if key in manifest},
    }
    if not history or any(history[-1].get(key) != former.get(key) for key in ("config", "plugins")):
        return [*history, former]
    if former["summary"] is not None:  # A process was killed while it recorded the same change.
        return [*history[:-1], former]
    return history


def _another_experiment(
    directory: RunDirectory, key: str, values: tuple[Any, Any], *, edited: bool, allowed: Sequence[str]
) -> FedraxError:
    before, after = (_text(value) for value in values)
    if edited:
        return FedraxError(
            f"{directory.config} was edited: the run was started with {key} = {before}, and there it is {after}; set it"
            f" back to resume the run, or train a new one; only {', '.join(allowed)} may change"
        )
    return FedraxError(
        f"{key} = {after} would make {directory.path} another experiment (it has {before}): train a new run; "
        f"what may change is {', '.join(allowed)}"
    )


def note_restart(directory: RunDirectory, rounds: Collection[int], every: int) -> None:
    """Says, and adds to the latest entry of the history, that environments start anew where a finished run goes on.

    Args:
        directory: of the run.
        rounds: how many its seeds have done.
        every: rounds after which environments start anew in any run.
    """
    text = (
        f"goes on after round {', '.join(map(str, sorted(rounds)))}, where its environments start anew: from there on "
        f"it is not the same as one uninterrupted run, as it would be after a multiple of checkpoint.every = {every}"
    )
    logger.warning("%s %s", directory.path, text)
    manifest = _manifest(directory)
    history = list(manifest.get("history", []))
    if history and text not in (notes := history[-1].get("notes", [])):
        history[-1] = {**history[-1], "notes": [*notes, text]}
        write_json(directory.manifest, {**manifest, "history": history})


def begin_manifest(directory: RunDirectory, config: Config, *, files: Sequence[Path], imported: bool = False) -> None:
    """Writes a run's manifest; ``files`` and ``imported`` as in :func:`write_manifest`."""
    code = _code(config)
    write_manifest(
        directory,
        config=table(config),
        config_hash=config.digest(),
        seeds=list(config.all_seeds),
        draws=all_draws(config),
        divergence=divergence(config),
        files=files,
        imported=imported,
        secure_sum=SECURE_SUMS[config.runtime.kind] if config.privacy.secure_sum else None,
        engines=_engines(config),
        spaces={id: written(spaces) for id, spaces in spaces_of(config).items()},
        plugins=code["plugins"],
        environment_code=code["environment_code"],
    )


def table(config: Config) -> dict[str, Any]:
    """A configuration as the tables of its ``config.toml``."""
    return parsed_toml(config.to_toml())


def accepting(config: Config) -> Callable[[Path, Mapping[str, Any]], bool]:
    """A check of checkpoints' meta, for :func:`~fedrax.records.checkpoint.load_checkpoint`.

    It accepts those of the run that ``config`` describes, whatever of :data:`CHANGEABLE` has changed since, and those
    of earlier versions, which do not say; another run's raises :class:`FedraxError`.
    """
    own = table(config)

    def accept(path: Path, meta: Mapping[str, Any]) -> bool:
        if meta.get("config", own) == own:
            return True
        found = differences(_recorded(meta["config"], config), config)
        foreign = {key: values for key, values in found.items() if not may_change(key)}
        if foreign:
            key, (other, ours) = next(iter(foreign.items()))
            raise FedraxError(
                f"{path} is of another run: it has {key} = {_text(other)}, and this run {_text(ours)}; "
                "move it away and resume again"
            )
        return True

    return accept


def _recorded(tables: Mapping[str, Any], now: Config) -> Config:
    """A configuration as it was recorded, with the plugins from where they are now: their files may have been moved.

    Raises:
        FedraxError: what was recorded is no configuration.
    """
    if not isinstance(tables, Mapping):
        raise FedraxError(
            f"the recorded configuration is damaged: it is {tables!r} in place of tables; restore manifest.json, or "
            "delete it and resume the run"
        )
    return resolve({**present_keys(tables), "plugins": list(now.plugins)})


def _listed(changes: Mapping[str, tuple[Any, Any]]) -> str:
    return ", ".join(f"{key} = {_text(after)} (before: {_text(before)})" for key, (before, after) in changes.items())


def _text(value: Any) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def move_plugins(directory: RunDirectory, plugins: Iterable[str]) -> None:
    """Writes into a run's configuration where its plugins are now, if ``plugins`` says that they were moved."""
    given = list(plugins)
    if not given:
        return
    config = resolve(directory.config, plugins=given)
    if list(config.plugins) != read_source(directory.config).get("plugins", []):
        directory.write_config(config.to_toml())
