"""A lock on a folder: whoever holds it is the only one who changes what is in there.

The lock is on the folder itself, so that no file is left behind, and ends with its process. Source:
Linux ``man 2 flock``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def only_writer(folder: Path, *, make: bool) -> Iterator[bool]:
    """Waits for other writers of a folder, and holds it for the block; whether there is one to hold.

    Args:
        folder: The folder.
        make: Make it where it is not there.

    Raises:
        OSError: It can neither be made nor opened.
    """
    descriptor = _locked(folder, make)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _locked(folder: Path, make: bool) -> int | None:
    while True:
        if make:
            folder.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            if make:
                continue
            return None
        try:
            with contextlib.suppress(OSError):  # some network file systems have no locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Not one that its last writer has removed meanwhile.
            if os.path.samestat(os.stat(folder), os.fstat(descriptor)):
                return descriptor
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
