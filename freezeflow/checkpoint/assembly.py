"""Putting a tensor, or a part of one, together from the parts in which it is stored."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from freezeflow.checkpoint.slices import Box, runs, volume

_BUFFER_BYTES = 1024 * 1024


class Source(Protocol):
    """Bytes of a stored part."""

    def copy(self, offset: int, target: memoryview) -> None:
        """Fills the target with the bytes from the offset on; cheapest in ascending order."""


class Part(NamedTuple):
    """A stored part: which elements it holds, and its bytes."""

    box: Box
    source: Source


class MemorySource:
    """A part whose bytes are in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)

    def copy(self, offset: int, target: memoryview) -> None:
        target[:] = self._data[offset : offset + len(target)]


class FileSource:
    """A part whose bytes are a range of an open file; short reads come out of one buffer.

    Args:
        descriptor: The file.
        start: First byte of the range.
        length: Bytes of the range.
    """

    def __init__(self, descriptor: int, start: int, length: int) -> None:
        self._descriptor = descriptor
        self._start = start
        self._buffer = memoryview(bytearray(min(_BUFFER_BYTES, length)))
        self._held = range(0)

    def copy(self, offset: int, target: memoryview) -> None:
        if len(target) >= len(self._buffer):
            self._read(offset, target)
            return
        if offset < self._held.start or offset + len(target) > self._held.stop:
            self._held = range(offset, offset + self._read(offset, self._buffer, len(target)))
        first = offset - self._held.start
        target[:] = self._buffer[first : first + len(target)]

    def _read(self, offset: int, target: memoryview, least: int | None = None) -> int:
        """Fills the target, or at least that many bytes of it; how many it was."""
        count = 0
        while count < (len(target) if least is None else least):
            got = os.preadv(self._descriptor, [target[count:]], self._start + offset + count)
            if got == 0:
                raise EOFError
            count += got
        return count


def assemble(wanted: Box, parts: Iterable[Part], item_bytes: int) -> bytearray:
    """The bytes of the wanted elements, row-major.

    Args:
        wanted: Which elements.
        parts: Stored parts that together hold them, each element once.
        item_bytes: Bytes of an element.

    Raises:
        EOFError: A file has become shorter.
    """
    data = bytearray(volume(wanted) * item_bytes)
    view = memoryview(data)
    for part in parts:
        for source, target, length in runs(part.box, wanted):
            first = target * item_bytes
            part.source.copy(source * item_bytes, view[first : first + length * item_bytes])
    return data


def assemble_strings(
    wanted: Box, parts: Iterable[tuple[Box, Sequence[bytes]]]
) -> tuple[bytes, ...]:
    """The wanted elements of a string tensor, row-major; otherwise as `assemble`."""
    found = [b""] * volume(wanted)
    for box, elements in parts:
        for source, target, length in runs(box, wanted):
            found[target : target + length] = elements[source : source + length]
    return tuple(found)
