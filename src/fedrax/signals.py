"""Ctrl-C and SIGTERM, which cluster schedulers send: one line and an exit status, and never a crash.

Python runs a signal's handler in the main thread, between two of its own instructions. While XLA compiles, the next of
them may be minutes away, and is often one of the callbacks that the compiler makes: an exception raised there is lost,
or ends in a segmentation fault. So the handler raises nothing, and a thread of its own ends the process at once. That
is safe wherever it happens: what is recorded survives a killed process.

Commands that have started processes of their own end them first (:func:`orderly`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import NoReturn

NUMBERS = (signal.SIGINT, signal.SIGTERM)
FLUSH_SECONDS = 1.0
"""How long standard output may take to be written out: whoever reads it may have stopped."""
SHOW_CURSOR = b"\x1b[?25h\n"
"""What a live display on a terminal has hidden, and the end of its line."""


class Interrupted(KeyboardInterrupt):
    """A request to stop, by the signal ``number``."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(number)
        self.number = number


Handler = Callable[[int, FrameType | None], None]


@contextlib.contextmanager
def handled(handler: Handler, numbers: Sequence[signal.Signals] = NUMBERS) -> Iterator[None]:
    """Within, these signals call ``handler`` in the main thread, and :func:`stopping` does nothing.

    Without effect outside the main thread, which alone can handle signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # In this order, and back in the other: a signal in between is seen by both rather than by nobody.
    before = {number: signal.signal(number, handler) for number in numbers}
    before_file = signal.set_wakeup_fd(-1)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before_file, warn_on_full_buffer=False)
        for number, earlier in before.items():
            signal.signal(number, earlier)


def orderly() -> contextlib.AbstractContextManager[None]:
    """Within, a request to stop raises :class:`Interrupted` in the main thread instead of ending the process."""
    return handled(_raise, _heeded())


def _heeded() -> list[signal.Signals]:
    """Those that were not ignored before, as under ``nohup`` and in a shell's background jobs: they stay ignored."""
    return [number for number in NUMBERS if signal.getsignal(number) is not signal.SIG_IGN]


@contextlib.contextmanager
def stopping(line: Callable[[], str]) -> Iterator[None]:
    """Within, SIGINT and SIGTERM end the process with status 128 + signal, after one line on standard error.

    Without effect outside the main thread, which alone can handle signals.

    Args:
        line: what to say; called when it happens.
    """
    numbers = _heeded()
    if threading.current_thread() is not threading.main_thread() or not numbers:
        yield
        return
    # Sockets: on Windows a signal's handler writes to nothing else.
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    watcher = threading.Thread(target=_watch, args=(reading, line), daemon=True)
    # The file is written by the signal's handler in C, whatever the main thread is doing.
    before_file = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    before = {number: signal.signal(number, _heed) for number in numbers}
    watcher.start()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before_file)
        writing.close()
        watcher.join()
        reading.close()


def _heed(number: int, frame: FrameType | None) -> None:
    """Nothing: the watcher ends the process. Without a handler the signal would, without a word."""


def _raise(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number)


def _watch(reading: socket.socket, line: Callable[[], str]) -> None:
    while byte := reading.recv(1):
        if byte[0] in NUMBERS:
            _end(byte[0], line)


def _end(number: int, line: Callable[[], str]) -> NoReturn:
    try:
        flushing = threading.Thread(target=_flush, daemon=True)
        flushing.start()
        flushing.join(FLUSH_SECONDS)
        with contextlib.suppress(OSError):
            os.write(2, f"{line()}\n".encode())
    finally:
        os._exit(128 + number)


def _flush() -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        if sys.stdout.isatty():
            os.write(sys.stdout.fileno(), SHOW_CURSOR)
