"""Frames to a video."""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import imageio.v2
import numpy as np

from fedrax.errors import FedraxError
from fedrax.records.files import replacing


def write_video(frames: Iterable[np.ndarray], path: Path, fps: float) -> None:
    """Writes a video, H.264 in ``.mp4`` or a looping ``.gif``, whole or not at all.

    An ``.mp4`` is written frame by frame, its odd sides lengthened by one pixel, which the codec demands.
    In a ``.gif``, equal frames in a row become one that is shown longer.

    Args:
        frames: ``uint8[height, width, 3]``, all of one size; at least one.
        path: ends in ``.mp4`` or ``.gif``.
        fps: frames per second; a ``.gif`` shows at most 50, and each for whole hundredths of a second.

    Raises:
        FedraxError: another ending, no frames, a wrong frame, or a file that cannot be written.
    """
    path = Path(path)
    highest = {".mp4": 240, ".gif": 50}.get(path.suffix)
    if highest is None:
        raise FedraxError(f"cannot write a video as {path.name!r}; allowed endings: .gif, .mp4")
    if not 0 < fps <= highest:
        raise FedraxError(f"fps = {fps!r} is not allowed for {path.suffix}: it must be above 0 and at most {highest}")
    checked = _checked(frames)
    first = next(checked, None)
    if first is None:
        raise FedraxError(f"there are no frames to write to {path}; record at least one step")
    with replacing(path) as temporary, _encoder(temporary, fps) as encoder:
        for frame in itertools.chain([first], checked):
            encoder.append_data(frame if path.suffix == ".gif" else _even(frame))


@contextlib.contextmanager
def _encoder(path: Path, fps: float) -> Iterator[Any]:
    settings: dict[str, Any] = {"fps": fps, "macro_block_size": 2}
    if path.suffix == ".gif":
        settings = {"duration": 1000 / fps, "loop": 0}
    with warnings.catch_warnings():
        # The encoder is a child process. JAX warns of any fork, but this one only starts another program.
        warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called", category=RuntimeWarning)
        encoder = imageio.v2.get_writer(path, mode="I", **settings)
        # As a context manager it would leave its child process running after an error.
        with contextlib.closing(encoder):
            yield encoder


def _checked(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    shape: tuple[int, ...] | None = None
    for index, frame in enumerate(frames):
        frame = np.asarray(frame)
        shape = frame.shape if shape is None else shape
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.shape != shape:
            raise FedraxError(
                f"frame {index} is {frame.dtype}{list(frame.shape)}; "
                "frames must be uint8[height, width, 3], all of one size"
            )
        yield frame


def _even(frame: np.ndarray) -> np.ndarray:
    height, width, _ = frame.shape
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
