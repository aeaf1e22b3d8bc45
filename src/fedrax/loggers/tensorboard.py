"""TensorBoard's event files, in the run's directory."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary

from fedrax.loggers.base import LoggedRun, Logger, Point, Stream, loggers

FOLDER = "tensorboard"
FLUSH_SECONDS = 5.0
"""How far TensorBoard may lag: flushing its file to the disk every round would cost milliseconds each."""


class EventFile(Stream):
    """One event file, made anew."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # Not SummaryWriter: its thread dies unseen when the disk is full, and the next rows wait for ever.
        self._events = EventsWriter(str(folder / "events"))
        self._flushed = time.monotonic()

    def log(self, points: Sequence[Point]) -> None:
        """An event for each row; on the disk some seconds later."""
        for point in points:
            values = [Summary.Value(tag=name, simple_value=value) for name, value in point.values.items()]
            self._events.write_event(Event(wall_time=point.time, step=point.x, summary=Summary(value=values)))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes the events to the disk."""
        self._events.flush()
        self._flushed = time.monotonic()

    def close(self, *, finished: bool) -> None:
        """Writes the events to the disk and closes the file."""
        self._events.close()


@loggers.register("tensorboard")
class TensorBoard(Logger):
    """Event files for TensorBoard: `tensorboard --logdir RUN`, or a folder of runs; each seed is a run there."""

    remote = False

    def open(self, run: LoggedRun) -> Stream:
        """``RUN/tensorboard/seed_S`` with one new event file in place of earlier ones."""
        folder = run.folder / FOLDER / f"seed_{run.seed}"
        # Earlier versions wrote all seeds to one file beside the folders.
        for old in (*folder.glob("events.out.tfevents.*"), *folder.parent.glob("events.out.tfevents.*")):
            with contextlib.suppress(FileNotFoundError):
                old.unlink()
        return EventFile(folder)
