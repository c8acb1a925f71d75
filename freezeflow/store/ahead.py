"""Telling the kernel early what will be read, so that the disk works while Python does something else.

These are wishes: where the kernel does not know them, nothing happens. The bytes come into the page
cache, not into this process. Source: Linux ``man 2 posix_fadvise``.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")

_CAN_ASK = hasattr(os, "posix_fadvise")

# So much of a model is asked for before anyone reads it: what a disk gives in the time of the imports.
_FIRST_BYTES = 256 * 1024 * 1024

# A reader is kept so far ahead of: enough for a deep queue, little beside any machine's memory.
_LEAD_BYTES = 64 * 1024 * 1024

# The kernel starts to read so much at a time.
_PIECE_BYTES = 2 * 1024 * 1024


def read_ahead(model: Path) -> None:
    """Starts to bring a model's files into the page cache, the largest first, and returns at once.

    Args:
        model: A folder, a file, or the beginning of the names of several files.
    """
    if _CAN_ASK:
        threading.Thread(target=_ask_for, args=(model,), daemon=True).start()


class Lead(Generic[T]):
    """Keeps the disk ahead of one who reads ranges of files in a known order.

    Where several read at once, each needs a lead of its own: a reader without one waits until the
    disk has nothing left to do for the others.

    Args:
        ranges: (file, offset, length), as they will be read.
        descriptor_of: The descriptor of a file; None as long as it is not open.
    """

    def __init__(
        self,
        ranges: Iterable[tuple[T, int, int]],
        descriptor_of: Callable[[T], int | None],
    ) -> None:
        self._pieces = _pieces(ranges) if _CAN_ASK else iter(())
        self._descriptor_of = descriptor_of
        self._next = next(self._pieces, None)
        self._asked = 0

    def reached(self, count: int) -> None:
        """So many bytes have been read."""
        while self._next is not None and self._asked < count + _LEAD_BYTES:
            file, offset, length = self._next
            descriptor = self._descriptor_of(file)
            if descriptor is None:
                return
            os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_WILLNEED)
            self._asked += length
            self._next = next(self._pieces, None)


def _pieces(ranges: Iterable[tuple[T, int, int]]) -> Iterator[tuple[T, int, int]]:
    for file, offset, length in ranges:
        end = offset + length
        for start in range(offset, end, _PIECE_BYTES):
            yield file, start, min(_PIECE_BYTES, end - start)


def _ask_for(model: Path) -> None:
    # Whoever reads the model tells what is wrong with its files.
    with contextlib.suppress(OSError):
        left = _FIRST_BYTES
        for size, path in sorted(_files(model), reverse=True):
            with open(path, "rb", buffering=0) as file:
                for _, offset, length in _pieces([(path, 0, min(size, left))]):
                    os.posix_fadvise(file.fileno(), offset, length, os.POSIX_FADV_WILLNEED)
            left -= min(size, left)


def _files(model: Path) -> Iterator[tuple[int, Path]]:
    """Size and path of each file."""
    found = model.rglob("*") if model.is_dir() else _of_prefix(model)
    for path in found:
        if path.is_file():
            yield path.stat().st_size, path


def _of_prefix(model: Path) -> Iterator[Path]:
    with os.scandir(model.parent) as entries:
        yield from (Path(entry.path) for entry in entries if entry.name.startswith(model.name))
