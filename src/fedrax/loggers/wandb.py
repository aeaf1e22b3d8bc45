"""Weights & Biases: each seed is a run there, all of one group."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal

from fedrax.errors import FedraxError
from fedrax.loggers.base import AXES, LoggedRun, Logger, Point, Stream, loggers
from fedrax.registry import option

OFFLINE = ("offline", "dryrun", "disabled")
"""Values of ``WANDB_MODE`` with which nothing leaves the machine."""


class WandbRun(Stream):
    """A run of Weights & Biases."""

    def __init__(self, run: Any, axis: str) -> None:
        self._run, self._axis, self.id = run, axis, str(run.id)
        run.define_metric(axis)
        run.define_metric("*", step_metric=axis)

    def log(self, points: Sequence[Point]) -> None:
        """Hands the rows to the service's own process, which sends them.

        They count as logged from then on: what that process cannot send is in ``RUN/wandb``, for ``wandb sync``, and no
        resume gives it again.
        """
        for point in points:
            self._run.log({**point.values, self._axis: point.x})

    def close(self, *, finished: bool) -> None:
        """Waits until what was logged is sent, or written where nothing is sent."""
        self._run.finish(exit_code=0 if finished else 1)


@loggers.register("wandb")
class Wandb(Logger):
    """Weights & Biases (`pip install 'fedrax[wandb]'`): each seed is a run of the group that is named as the run."""

    package = "wandb"

    project: str = option("fedrax", "the project")
    entity: str | None = option(None, "the user or team; unset, the default one of who is logged in")
    mode: Literal["online", "offline"] | None = option(
        None, "offline: write to RUN/wandb, for `wandb sync`; unset, as WANDB_MODE says"
    )

    def check(self) -> None:
        """Also that somebody is logged in, where rows are sent."""
        super().check()
        if (self.mode or os.environ.get("WANDB_MODE", "online")) in OFFLINE:
            return
        import wandb

        if not wandb.api.api_key:
            raise FedraxError(
                "records.loggers.wandb: nobody is logged in to Weights & Biases; run `wandb login`, or set "
                "records.loggers.wandb.mode=offline"
            )

    def open(self, run: LoggedRun) -> Stream:
        """A new run, or the one with this id."""
        import wandb

        started = wandb.init(
            project=self.project,
            entity=self.entity,
            group=run.name,
            name=f"{run.name}, seed {run.seed}",
            id=run.id,
            resume=None if run.id is None else "allow",
            mode=self.mode,
            dir=str(run.folder),
            config={**run.config, "seed": run.seed},
            # Several seeds train in one process.
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True, disable_git=True, disable_code=True),
        )
        return WandbRun(started, AXES[self.axis])
