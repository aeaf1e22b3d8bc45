"""What a run was made with: versions, machine, commit, seeds and draws; enough to make it again."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import pydantic

from fedrax.errors import FedraxError
from fedrax.records.files import read_json, reason, write_json
from fedrax.records.lock import command_line
from fedrax.records.rundir import RunDirectory

PACKAGES = ("fedrax", "jax", "jaxlib", "equinox", "optax", "gymnasium", "numpy", "envpool")


class Change(pydantic.BaseModel):
    """What a run was before it changed."""

    config: dict[str, Any]
    summary: dict[str, Any] | None
    rounds: int
    time: str
    plugins: dict[str, str] | None = None
    """Digests as in the manifest, before the change; None in runs of earlier versions."""
    environment_code: dict[str, str] | None = None
    notes: list[str] = []
    """What else must be known of how the run went on from here."""


class Manifest(pydantic.BaseModel):
    """What of a manifest must be right wherever it is read; :func:`write_manifest` says what it is."""

    config: dict[str, Any] = {}
    history: list[Change] = []
    divergence: dict[str, float] | None = None
    engines: dict[str, str] | None = None
    networks_from: dict[str, str] = {}
    started: str = ""
    plugins: dict[str, str] | None = None
    environment_code: dict[str, str] | None = None


def write_manifest(
    rundir: RunDirectory,
    *,
    config: Mapping[str, Any],
    config_hash: str,
    seeds: Sequence[int],
    draws: Any,
    divergence: Mapping[str, float],
    files: Sequence[Path] = (),
    imported: bool = False,
    secure_sum: str | None = None,
    engines: Mapping[str, str] | None = None,
    spaces: Mapping[str, Any] | None = None,
    plugins: Mapping[str, str] | None = None,
    environment_code: Mapping[str, str] | None = None,
    command: str | Sequence[str] | None = None,
) -> None:
    """Writes ``manifest.json`` at the start of a run.

    Args:
        rundir: the run.
        config: the resolved configuration, as its ``config.toml`` has it: a later edit of that file is noticed.
        config_hash: its digest.
        seeds: every seed trained.
        draws: from heterogeneity, for each draw one entry per agent; NumPy and JAX numbers are allowed.
        divergence: how much the agents' environments differ, by parameter.
        files: what networks were read from, which are recorded with their digests.
        imported: whether these are all there is, and nothing was trained.
        secure_sum: what stands for a secure sum in the run; None where there is none.
        engines: who steps each environment, by its id (``jax``, ``envpool`` or ``gymnasium``).
        spaces: of every environment, so that policies can act where it is not installed
            (:mod:`fedrax.environments.spaces`); none: they are not known.
        plugins: digests of the plugins' code, by their names without folder.
        environment_code: of those plugins alone that an environment is of, by its id.
        command: what was run; unset, this process's own command line.

    Raises:
        FedraxError: the file cannot be written.
    """
    arguments = command_line() if command is None else command
    devices = jax.devices()
    write_json(
        rundir.manifest,
        {
            "command": arguments if isinstance(arguments, str) else shlex.join(arguments),
            "config": dict(config),
            "config_hash": config_hash,
            "seeds": seeds,
            "draws": draws,
            "divergence": dict(divergence),
            **({"networks_from": {str(path): _digest(path) for path in files}} if files else {}),
            **({"imported": True} if imported else {}),
            **({} if secure_sum is None else {"secure_sum": secure_sum}),
            "engines": dict(engines or {}),
            **({} if spaces is None else {"spaces": dict(spaces)}),
            "plugins": dict(plugins or {}),
            "environment_code": dict(environment_code or {}),
            "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
            "commit": commit_of(Path(__file__).resolve().parent.parent),
            "platform": platform.platform(),
            "device": {
                "platform": devices[0].platform,
                "kind": devices[0].device_kind,
                "count": len(devices),
            },
            "cpus": os.cpu_count(),
            "threads": _threads(),
            "started": _now().isoformat(),
            "ended": None,
            "seconds": None,
        },
    )


def finish_manifest(rundir: RunDirectory) -> None:
    """Adds when the run ended, and the wall time in seconds since it was started, interruptions included.

    Raises:
        FedraxError: the manifest is missing or damaged, or cannot be written.
    """
    manifest = read_manifest(rundir)
    ended = _now()
    seconds = (ended - datetime.fromisoformat(manifest["started"])).total_seconds()
    write_json(rundir.manifest, manifest | {"ended": ended.isoformat(), "seconds": seconds})


def read_manifest(rundir: RunDirectory) -> dict[str, Any]:
    """The manifest of a run, finished or not.

    Raises:
        FedraxError: it is missing or damaged.
    """
    return read_json(rundir.manifest, "manifest", Manifest)


def commit_of(package: Path) -> str | None:
    """The commit of the checkout that ``package`` is the source of, ending in ``-dirty`` if changed since.

    ``None`` when there is none: not a checkout, no git, or a package installed somewhere inside another
    project's checkout, whose commit would say nothing about it.
    """
    try:
        root = Path(_git(package, "rev-parse", "--show-toplevel"))
        if package != root / "src" / package.name:
            return None
        return _git(package, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    # Without optional locks git leaves the index alone, so a git command of the user's never meets ours.
    environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}
    command = ["git", "-C", str(folder), *arguments]
    result = subprocess.run(command, capture_output=True, check=True, timeout=10, env=environment)
    return os.fsdecode(result.stdout).strip()


def check_unchanged(rundir: RunDirectory, files: Sequence[Path]) -> None:
    """Raises :class:`FedraxError` where networks that a run was begun with are others by now."""
    recorded = read_manifest(rundir).get("networks_from", {}) if rundir.manifest.exists() else {}
    for path in files:
        if recorded.get(str(path), digest := _digest(path)) != digest:
            raise FedraxError(
                f"{path}, which {rundir.path} started from, has changed since, and there is no checkpoint to "
                "go on from; restore it, or start a new run"
            )


def _digest(path: Path) -> str:
    """SHA-256 of a file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FedraxError(f"cannot read {path}: {reason(error)}; mend that, or give another file") from None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _threads() -> int | None:
    """Processors this process may run on, which is what bounds XLA's thread pool."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _now() -> datetime:
    return datetime.now(UTC)
