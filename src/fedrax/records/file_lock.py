"""The kernel's locks on open files, where there are ``flock``s and on Windows, which has others."""

from __future__ import annotations

import os
import sys

if sys.platform == "win32":
    import msvcrt

    BYTE = 1 << 30
    """The one that is locked. Windows lets nobody read locked bytes, so it is none that the file has."""

    def locked(descriptor: int, *, alone: bool) -> bool:
        """Takes the lock of an open file, for this process; False where another holds it.

        Args:
            alone: False to look only: what is taken is let go again.
        """
        os.lseek(descriptor, BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            if not alone:
                os.lseek(descriptor, BYTE, os.SEEK_SET)
                msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
        except PermissionError:
            return False
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
        return True

else:
    import fcntl

    def locked(descriptor: int, *, alone: bool) -> bool:
        """Takes the lock of an open file, until the last process that has the file open closes it; False where another
        holds it.

        Args:
            alone: False to look only: a shared lock needs no right to write, and does not stop others who look.
        """
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
