"""From checkpoints of another program to a run's directory that holds their policy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fedrax.arguments import OVERRIDES, PLUGINS, path, several, takes
from fedrax.arguments import source as a_source
from fedrax.config import Config, resolve
from fedrax.errors import FedraxError
from fedrax.exchange.td3_her import Networks, networks_in, to_params
from fedrax.exchange.torch_files import read_torch
from fedrax.federation import Federation
from fedrax.learners.td3 import TD3
from fedrax.records.checkpoint import save_policy
from fedrax.records.lock import held
from fedrax.records.rundir import RunDirectory, default_directory
from fedrax.run import Run
from fedrax.runtime.continuation import begin_manifest
from fedrax.runtime.draws import describe_run
from fedrax.runtime.make import make_federation


@takes(source=a_source(), files=several(path()), overrides=OVERRIDES, out=path(), plugins=PLUGINS)
def import_networks(
    source: str | Path | Mapping[str, Any],
    files: Sequence[Path],
    overrides: Iterable[str] | Mapping[str, Any] = (),
    *,
    out: Path | None = None,
    plugins: Iterable[str] = (),
) -> Run:
    """Makes a run of the networks in these files of the TD3+HER reference, to evaluate, render, and train from.

    Nothing was trained in the run: it has a configuration, a manifest and a policy, the same for all seeds and agents.

    Args:
        source: a preset or a TOML file, which says the environment; the widths of the networks, and what the reference
            has no option for, follow from the files.
        files: of an actor and of a critic, or of both (``model_round_N.pth``).
        overrides: ``key=value``, or a table of values by key.
        out: the run's directory; unset, ``runs/NAME-TIME``.
        plugins: files and modules to load.

    Raises:
        FedraxError: one line: a file is not what it says, or the networks are not of this environment.
    """
    networks = networks_in([(str(path), read_torch(path)) for path in files])
    return import_arrays(networks, source, overrides, files=files, out=out, plugins=plugins)


def import_arrays(
    networks: Networks,
    source: str | Path | Mapping[str, Any],
    overrides: Iterable[str] = (),
    *,
    files: Sequence[Path] = (),
    out: Path | None = None,
    plugins: Iterable[str] = (),
) -> Run:
    """As :func:`import_networks`, of networks that were read; ``files`` says from where, for the manifest."""
    overrides, plugins = list(overrides), list(plugins)
    config = resolve(source, overrides, plugins=plugins)
    config = resolve(source, [*overrides, *_options(config, networks)], plugins=plugins)
    described, _ = describe_run(config)
    federation = make_federation(config, described.spaces, described.horizon(config.environment.horizon))
    fresh = federation.learner.init_params(jax.random.key(0), federation.spaces)
    params = _placed(to_params(networks, fresh, federation.spaces, described.id), config, federation)
    directory = RunDirectory.create(out if out is not None else default_directory(config.name))
    with held(directory.path):
        directory.check_new()
        save_policy(directory.policy, params)
        save_policy(directory.best_policy, params)
        begin_manifest(directory, config, files=files, imported=True)
        # Last: with it the directory is a run.
        directory.write_config(config.to_toml())
    return Run(directory.path, plugins=plugins)


def _options(config: Config, networks: Networks) -> list[str]:
    """What follows from the networks, as overrides."""
    learner = config.component("learner")
    if not isinstance(learner, TD3):
        raise FedraxError(
            f"the TD3+HER reference's networks need learner td3, not {learner.name!r}; choose a preset like "
            "td3-her/push"
        )
    if config.component("critic").attends:
        raise FedraxError("the TD3+HER reference's critics attend over nothing; set critic=mlp")
    actor, critic = networks.widths
    depth = min(len(learner.feature_layers), len(critic))
    return [
        f"learner.actor_layers={list(actor)}",
        f"learner.feature_layers={list(critic[:depth])}",
        f"learner.head_layers={list(critic[depth:])}",
        "learner.activation=relu",
        "learner.normalise=false",
        "learner.initial=none",
    ]


def _placed(params: Any, config: Config, federation: Federation) -> Any:
    """The same networks for all seeds, and for all agents where each hands out its own."""
    axes = (config.seeds, federation.agents) if federation.personal else (config.seeds,)
    return jax.tree.map(lambda x: np.broadcast_to(np.asarray(x), (*axes, *x.shape)), params)
