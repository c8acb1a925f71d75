"""Locks by key: of several runs that need the same step, one makes it, and the others wait for it.

All locks of a store are bytes of one file, at a place that the key gives; none is ever written. They
belong to the open file (Linux: ``F_OFD_SETLK``, see fcntl(2)), so a process that is killed holds
nobody up. Two keys with one place would only wait for each other.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

from freezeflow.store.files import writing_failed
from freezeflow.values import Digest

# Hex digits of a key that make its place: 60 bits, which a file offset holds.
_DIGITS = 15


class KeyLocks:
    """The locks of one run.

    Args:
        path: The file; it is made where it is missing.

    Raises:
        FreezeflowError: It cannot be made.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise writing_failed(error, path) from error

    def take(self, key: Digest) -> bool:
        """Takes a key's lock, if no other run has it; one that is already ours is taken again."""
        try:
            self._set(key, fcntl.F_WRLCK)
        except BlockingIOError:
            return False
        except OSError:
            return True  # some network file systems have no locks
        return True

    def give_back(self, key: Digest) -> None:
        """Gives a key's lock back; one that is not ours is passed over."""
        try:
            self._set(key, fcntl.F_UNLCK)
        except OSError:
            return

    def close(self) -> None:
        """Gives all of them back."""
        os.close(self._file)

    def _set(self, key: Digest, kind: int) -> None:
        place = int(key.hex[:_DIGITS], 16)
        # struct flock: type, whence, start, length, process (0 for locks of open files).
        lock = struct.pack("hhqqi", kind, os.SEEK_SET, place, 1, 0)
        fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, lock)
