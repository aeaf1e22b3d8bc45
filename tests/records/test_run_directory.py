"""Whether a run can live in a directory is settled before it is trained."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from fedrax.errors import FedraxError
from fedrax.records.files import check_writable, write_atomic
from fedrax.records.rundir import MEBIBYTE, RunDirectory


def test_a_device_or_pipe_is_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for write in (lambda: write_atomic(pipe, "text"), lambda: check_writable(pipe)):
        with pytest.raises(FedraxError, match=r"pipe is there already and is no regular file; give another path"):
            write()
    assert pipe.is_fifo()


def test_a_new_directory_becomes_a_run_with_its_configuration(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "runs" / "first", free_mebibytes=1)
    assert list(run.path.iterdir()) == []
    (tmp_path / "x.log").write_text("")
    with pytest.raises(FedraxError, match=r"x\.log is not a run: it is a file; give the directory"):
        RunDirectory.open(tmp_path / "x.log")
    with pytest.raises(FedraxError, match=r"is not a run: it holds no config\.toml"):
        RunDirectory.open(run.path)
    run.write_config("seed = 1\n")
    with pytest.raises(FedraxError, match=rf"is not a run: .*; give one of the runs in it, such as {run.path}"):
        RunDirectory.open(run.path.parent)
    assert RunDirectory.open(run.path) == run
    assert run.config.read_text() == "seed = 1\n"


def test_paths(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    assert {
        name: getattr(run, name).relative_to(tmp_path).as_posix()
        for name in (
            "config",
            "manifest",
            "metrics_jsonl",
            "metrics_csv",
            "checkpoints",
            "summary",
        )
    } == {
        "config": "config.toml",
        "manifest": "manifest.json",
        "metrics_jsonl": "metrics.jsonl",
        "metrics_csv": "metrics.csv",
        "checkpoints": "checkpoints",
        "summary": "summary.json",
    }
    assert (run.policy.name, run.best_policy.name) == ("policy.safetensors", "best.safetensors")


def test_a_run_is_only_entered_to_resume_it(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, free_mebibytes=1)
    run.write_config("")
    with pytest.raises(FedraxError, match="already holds a run; resume that run"):
        RunDirectory.create(tmp_path, free_mebibytes=1)
    assert RunDirectory.create(tmp_path, resume=True, free_mebibytes=1) == run
    assert [p.name for p in tmp_path.iterdir()] == ["config.toml"]


@pytest.mark.parametrize("resume", [False, True])
def test_a_directory_with_something_else_is_refused(tmp_path: Path, resume: bool) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(FedraxError, match="is not empty and holds no run"):
        RunDirectory.create(tmp_path, resume=resume)


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FedraxError, match=r"is not a directory; choose another path"):
        RunDirectory.create(tmp_path / "file")
    with pytest.raises(FedraxError, match=r"cannot make the run directory .*: Not a directory"):
        RunDirectory.create(tmp_path / "file" / "run")


def test_a_missing_run_is_guessed(tmp_path: Path) -> None:
    RunDirectory(tmp_path / "cartpole-1").write_config("")
    with pytest.raises(FedraxError, match=r"it does not exist \(did you mean 'cartpole-1'\?\)"):
        RunDirectory.open(tmp_path / "cartpol-1")
    with pytest.raises(FedraxError, match=r"it does not exist$"):
        RunDirectory.open(tmp_path / "nowhere" / "cartpole-1")


@pytest.mark.parametrize(
    ("number", "said", "advice"),
    [
        (errno.EACCES, "Permission denied", "choose another directory or mend the permissions"),
        (errno.EROFS, "Read-only file system", "choose another directory or mend the permissions"),
    ],
)
def test_an_unwritable_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str, advice: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, said)

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(FedraxError, match=f"cannot write to the run directory .*: {said}; {advice}"):
        RunDirectory.create(tmp_path)


def test_too_little_space(tmp_path: Path) -> None:
    # Twice what is free, so that others who free space meanwhile change nothing.
    needed = 2 * shutil.disk_usage(tmp_path).free // MEBIBYTE + 1
    with pytest.raises(FedraxError, match=rf"\d+ MiB are free; a run needs {needed} MiB free; free space or choose"):
        RunDirectory.create(tmp_path, free_mebibytes=needed)
    assert list(tmp_path.iterdir()) == [], "the probe must not stay behind"


@pytest.mark.parametrize(("blocks", "enough"), [(3 * 256, True), (3 * 256 - 1, False)])
def test_what_counts_is_the_space_free_for_this_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks: int, enough: bool
) -> None:
    """A file system keeps some blocks of those free for root; 256 of 4 KiB are one MiB."""
    reported = os.statvfs_result((4096, 4096, 10**6, 10**5, blocks, 10**5, 10**5, 10**5, 0, 255))
    monkeypatch.setattr("os.statvfs", lambda _: reported)
    if enough:
        RunDirectory.create(tmp_path, free_mebibytes=3)
    else:
        with pytest.raises(FedraxError, match=r": 2 MiB are free; a run needs 3 MiB free"):
            RunDirectory.create(tmp_path, free_mebibytes=3)


def test_a_quota_used_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file system reports space, and yet the first byte is refused."""

    def refuse(*_: object) -> int:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    with monkeypatch.context() as patch:
        patch.setattr("os.write", refuse)
        with pytest.raises(FedraxError, match="Disk quota exceeded; a run needs 64 MiB free; free space or choose"):
            RunDirectory.create(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_asking_for_space_writes_next_to_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written, write = [], os.write

    def count(descriptor: int, data: bytes) -> int:
        written.append(len(data))
        return write(descriptor, data)

    def refuse(*_: object) -> None:
        raise AssertionError("waits for the disk")

    with monkeypatch.context() as patch:
        patch.setattr("os.write", count)
        patch.setattr("os.fsync", refuse)
        RunDirectory.create(tmp_path)
    assert written == [1]


def test_an_atomic_write_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "summary.json"
    write_atomic(path, "ä\n")
    assert path.read_bytes() == "ä\n".encode()

    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.write", refuse)
        with pytest.raises(FedraxError, match=r"cannot write .*summary\.json: No space left on device; what was there"):
            write_atomic(path, b"new")
    assert [p.name for p in path.parent.iterdir()] == ["summary.json"]
    assert path.read_bytes() == "ä\n".encode()
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"


def test_an_interrupted_atomic_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "a.json", b"new")
    assert list(tmp_path.iterdir()) == []
