"""From a run to a file that other programs read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from fedrax.arguments import PLUGINS, takes, text, whole
from fedrax.arguments import path as a_path
from fedrax.errors import FedraxError, unknown
from fedrax.exchange.formats import FORMATS, Exported
from fedrax.run import WHICH, Run, Which


@takes(run=a_path(), to=text(), policy=WHICH, seed=whole(), agent=whole(), out=a_path(), plugins=PLUGINS)
def export(
    run: Path | str,
    to: str,
    *,
    policy: Which = "last",
    seed: int | None = None,
    agent: int | None = None,
    out: Path | None = None,
    plugins: Iterable[str] = (),
) -> Path:
    """Writes one policy of a run as a file of another program; returns its path.

    Args:
        run: its directory.
        to: the format, one of :data:`~fedrax.exchange.formats.FORMATS`.
        policy: the last one, that of the best evaluation, or that after so many rounds, where it was kept.
        seed: which of the run's seeds; unset, the first.
        agent: whose policy; needed where each agent has its own.
        out: the file; unset, ``exported`` in the run's directory, with the format's suffix.
        plugins: as in :func:`fedrax.load`.

    Raises:
        FedraxError: one line: there is no such policy, one per agent and no agent named, or the format has no networks
            of its form.
    """
    if to not in FORMATS:
        raise unknown("format", to, FORMATS)
    loaded = Run(run, plugins=plugins)
    config = loaded.config
    chosen = loaded.chosen(policy, seed=seed, agent=agent)
    format = FORMATS[to]
    usual = f"exported{format.suffix}"
    path = Path(out) if out is not None else loaded.path / usual
    for each in format.files(path):
        _check_free(each, each.name if path.name == usual else "")
    format.write(Exported(chosen.params, chosen.spaces, config, chosen.seed, chosen.agent, str(policy)), path)
    return path


def _check_free(path: Path, usual: str) -> None:
    """Raises :class:`FedraxError` where ``path`` is no file's, or one that a run needs."""
    if path.is_dir():
        raise FedraxError(f"{path} is a directory; give a file in it")
    whole = Path(os.path.realpath(path))
    blocked = next((parent for parent in whole.parents if parent.is_file()), None)
    if blocked is not None:
        raise FedraxError(f"{blocked} is a file, and no folder to write in; choose another file")
    if whole.exists() and whole.name != usual and any((parent / "config.toml").is_file() for parent in whole.parents):
        raise FedraxError(f"{path} is there already, in a run's directory; choose another file")
