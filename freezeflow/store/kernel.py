"""Moving bytes from file to file without passing them through Python.

Beside copying: reserving a file's space at once, so that its blocks lie together and a full disk is
met before the first byte, starting to write to the disk what has been copied, so that the sync at
the end has nothing left to do, threads that give way to others, and two folders that change places.
These are wishes: where the kernel or the file system does not know them, nothing happens. Source:
Linux ``man 2 fallocate``, ``man 2 sync_file_range``, ``man 2 renameat2``, ``man 7 sched``.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import threading
from pathlib import Path
from typing import Any

_BUFFER_BYTES = 512 * 1024

# FALLOC_FL_KEEP_SIZE: the file does not look longer than what was written.
_KEEP_SIZE = 1

# SYNC_FILE_RANGE_WRITE: start, do not wait.
_START_WRITING = 2

# What a thread that gives way adds to its nice value: it gets a third of what another one gets.
_NICER = 5

# AT_FDCWD: a path is seen from the working folder. RENAME_EXCHANGE.
_HERE = -100
_EXCHANGE = 2


def reserve(descriptor: int, nbytes: int) -> None:
    """Reserves the space that a file will need.

    Raises:
        OSError: There is not so much.
    """
    library = _c_library()
    if library is None or library.fallocate(descriptor, _KEEP_SIZE, 0, nbytes) == 0:
        return
    number = _last_error()
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        raise OSError(number, os.strerror(number))


def start_writing(descriptor: int, offset: int, length: int) -> None:
    """Lets the kernel start to write a range to the disk; returns at once."""
    library = _c_library()
    if library is not None:
        library.sync_file_range(descriptor, offset, length, _START_WRITING)


def give_way() -> None:
    """Lets the calling thread have less of a core, for good, where there are not enough for all.

    What is written is hashed by one thread from its beginning to its end, and nothing takes longer:
    a third thread on two cores that takes that one's place now and then makes the whole longer.
    """
    with contextlib.suppress(OSError):  # where a thread has no nice value of its own
        nice = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice + _NICER)


def exchange(one: Path, other: Path) -> bool:
    """Lets two files or folders change places in one step; False where that cannot be."""
    library = _c_library()
    if library is None or not hasattr(library, "renameat2"):
        return False
    names = os.fsencode(one), os.fsencode(other)
    code: int = library.renameat2(_HERE, names[0], _HERE, names[1], _EXCHANGE)
    return code == 0


@functools.cache
def _c_library() -> Any | None:
    """The C library, if it is one that can reserve and start to write.

    ``os.posix_fallocate`` will not do: it writes to every block where the file system cannot
    reserve.
    """
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    if not (hasattr(library, "fallocate") and hasattr(library, "sync_file_range")):
        return None
    number, size = ctypes.c_int, ctypes.c_int64
    library.fallocate.argtypes = (number, number, size, size)
    library.sync_file_range.argtypes = (number, size, size, ctypes.c_uint)
    if hasattr(library, "renameat2"):
        name = ctypes.c_char_p
        library.renameat2.argtypes = (number, name, number, name, ctypes.c_uint)
    return library


def _last_error() -> int:
    import ctypes

    return ctypes.get_errno()


def copy(source: int, target: int, offset: int, length: int) -> int:
    """Copies some of a range to the target's end; returns how many bytes, 0 at the file's end."""
    for copier in COPIERS:
        try:
            count = copier(source, target, offset, length)
        except OSError as error:
            if error.errno not in _NOT_BETWEEN_THESE_FILES:
                raise
            continue
        if count > 0:
            return count
    return 0


def _copy_in_kernel(source: int, target: int, offset: int, length: int) -> int:
    return os.copy_file_range(source, target, length, offset)


def _send_in_kernel(source: int, target: int, offset: int, length: int) -> int:
    return os.sendfile(target, source, offset, length)


def _copy_by_buffer(source: int, target: int, offset: int, length: int) -> int:
    buffer = memoryview(bytearray(min(length, _BUFFER_BYTES)))
    count = os.preadv(source, [buffer], offset)
    piece = buffer[:count]
    while piece:
        piece = piece[os.write(target, piece) :]
    return count


COPIERS = tuple(
    copier
    for copier, needs in (
        (_copy_in_kernel, "copy_file_range"),
        (_send_in_kernel, "sendfile"),
        (_copy_by_buffer, "preadv"),
    )
    if hasattr(os, needs)
)

# What a way of copying answers when these two files are not for it; the next one is tried.
_NOT_BETWEEN_THESE_FILES = {
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.ENOTSOCK,
    errno.EPERM,
    errno.EBADF,
}
