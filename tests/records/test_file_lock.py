"""Locks of open files as Windows has them, with a stand-in for what it calls them by."""

import importlib.util
import os
import sys
import types

import pytest

from fedrax.records import file_lock


@pytest.fixture
def on_windows(monkeypatch):
    """The module as Windows runs it; ``held`` are the files whose byte somebody has locked, by descriptor."""
    held = {}

    def locking(descriptor, mode, count):
        key = (os.fstat(descriptor).st_ino, os.lseek(descriptor, 0, os.SEEK_CUR), count)
        if mode == "unlock":
            assert held.pop(key) == descriptor
        elif key in held:
            raise PermissionError(13, "Permission denied")
        else:
            held[key] = descriptor

    fake = types.SimpleNamespace(LK_NBLCK="lock", LK_UNLCK="unlock", locking=locking)
    monkeypatch.setitem(sys.modules, "msvcrt", fake)
    monkeypatch.setattr(sys, "platform", "win32")
    spec = importlib.util.spec_from_file_location("file_lock_on_windows", file_lock.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.undo()
    return types.SimpleNamespace(locked=module.locked, held=held)


@pytest.fixture
def descriptors(tmp_path):
    opened = [os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR) for _ in range(2)]
    yield opened
    for descriptor in opened:
        os.close(descriptor)


def test_only_one_has_the_lock(on_windows, descriptors):
    first, second = descriptors
    assert on_windows.locked(first, alone=True)
    assert not on_windows.locked(second, alone=True)
    assert not on_windows.locked(second, alone=False)


def test_looking_leaves_the_lock_free(on_windows, descriptors):
    first, second = descriptors
    assert on_windows.locked(first, alone=False)
    assert on_windows.held == {}
    assert on_windows.locked(second, alone=True)


def test_the_files_text_stays_readable_and_is_written_from_its_start(on_windows, descriptors):
    """Windows lets nobody read what is locked."""
    first, second = descriptors
    on_windows.locked(first, alone=True)
    os.write(first, b"who")
    assert os.read(second, 10) == b"who"
    ((_, place, count),) = on_windows.held
    assert place > 1 << 20
    assert count == 1


def test_kernels_locks_behave_so_here_too(descriptors):
    first, second = descriptors
    assert file_lock.locked(first, alone=False)
    assert not file_lock.locked(second, alone=True)
