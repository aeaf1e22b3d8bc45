"""Videos that play, and a CartPole that shows its state."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from pathlib import Path

import imageio.v2
import numpy as np
import pytest

from fedrax.environments.drawing import HEIGHT, METRES, WIDTH, draw_cartpole
from fedrax.errors import FedraxError
from fedrax.records.video import write_video


def frames(count: int, height: int = 48, width: int = 64) -> Iterator[np.ndarray]:
    """A bright column that wanders right over a dark ground."""
    for index in range(count):
        frame = np.full((height, width, 3), 20, np.uint8)
        frame[:, 4 * index : 4 * index + 8] = 220
        yield frame


def read(path: Path) -> list[np.ndarray]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The reader starts a child process, and JAX warns of that.
        with imageio.v2.get_reader(path) as reader:
            return [np.asarray(frame)[..., :3] for frame in reader]


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_a_video_holds_its_frames_in_order(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"video{suffix}"
    write_video(frames(7), path, fps=25)
    found = read(path)
    assert len(found) == 7
    for index, frame in enumerate(found):
        brightness = frame.mean(axis=(0, 2))
        assert abs(int(brightness[4 * index : 4 * index + 8].mean()) - 220) < 25
        assert np.argmax(np.convolve(brightness, np.ones(8), "valid")) == pytest.approx(4 * index, abs=1)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_odd_sizes_are_lengthened_for_the_codec(tmp_path: Path) -> None:
    write_video(frames(3, height=41, width=61), tmp_path / "video.mp4", fps=30)
    assert [frame.shape for frame in read(tmp_path / "video.mp4")] == [(42, 62, 3)] * 3


def test_a_gif_has_the_asked_rate(tmp_path: Path) -> None:
    write_video(frames(4), tmp_path / "video.gif", fps=25)
    with imageio.v2.get_reader(tmp_path / "video.gif") as reader:
        assert reader.get_meta_data()["duration"] == 40


@pytest.mark.filterwarnings("error")
def test_writing_does_not_warn(tmp_path: Path) -> None:
    write_video(frames(2), tmp_path / "video.mp4", fps=30)


def test_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(FedraxError, match=r"cannot write a video as 'video\.avi'; allowed endings: \.gif, \.mp4"):
        write_video(frames(2), tmp_path / "video.avi", fps=30)
    with pytest.raises(FedraxError, match="there are no frames to write"):
        write_video([], tmp_path / "video.gif", fps=30)
    with pytest.raises(FedraxError, match=r"fps = 0 is not allowed for \.mp4"):
        write_video(frames(2), tmp_path / "video.mp4", fps=0)
    with pytest.raises(FedraxError, match=r"fps = 60 is not allowed for \.gif: it must be above 0 and at most 50"):
        write_video(frames(2), tmp_path / "video.gif", fps=60)
    for wrong in (np.zeros((4, 6, 3)), np.zeros((4, 6), np.uint8), np.zeros((4, 8, 3), np.uint8)):
        with pytest.raises(FedraxError, match=r"frame 1 is .*; frames must be uint8\[height, width, 3\]"):
            write_video([np.zeros((4, 6, 3), np.uint8), wrong], tmp_path / "video.mp4", fps=30)
    (tmp_path / "file").touch()
    with pytest.raises(FedraxError, match=r"cannot write .*Not a directory|cannot write .*File exists"):
        write_video(frames(2), tmp_path / "file" / "video.mp4", fps=30)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def pole(picture: np.ndarray) -> np.ndarray:
    """Pixels (row, column) of the pole, by its colour."""
    return np.argwhere(np.abs(picture.astype(int) - [224, 159, 62]).sum(axis=2) < 30)


def cart(picture: np.ndarray) -> np.ndarray:
    return np.argwhere(np.abs(picture.astype(int) - [45, 59, 80]).sum(axis=2) < 10)


def draw(x: float = 0.0, angle: float = 0.0, length: float = 0.5) -> np.ndarray:
    return draw_cartpole(np.array([x, 0.0, angle, 0.0], np.float32), {"length": length})


def test_the_picture_is_a_frame() -> None:
    picture = draw()
    assert (picture.shape, picture.dtype) == ((HEIGHT, WIDTH, 3), np.uint8)


@pytest.mark.parametrize("x", [-2.0, 0.0, 1.5])
def test_the_cart_is_where_the_state_says(x: float) -> None:
    columns = cart(draw(x))[:, 1]
    assert (columns.min() + columns.max()) / 2 == pytest.approx(WIDTH / 2 + x * WIDTH / METRES, abs=1.5)


@pytest.mark.parametrize("angle", [-0.2, 0.0, 0.2])
def test_a_positive_angle_leans_right_by_that_much(angle: float) -> None:
    pixels = pole(draw(angle=angle))
    middle = pixels.mean(axis=0)
    assert math.atan2(middle[1] - (WIDTH - 1) / 2, 276 - middle[0]) == pytest.approx(angle, abs=0.02)


def test_a_longer_pole_is_drawn_longer() -> None:
    extent = [np.ptp(pole(draw(length=length))[:, 0]) for length in (0.25, 0.5)]
    assert extent[1] - extent[0] == pytest.approx(2 * 0.25 * WIDTH / METRES, abs=2)
