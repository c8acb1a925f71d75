"""Sorted tables of keys and values in one file, as LevelDB and TensorFlow write them.

A footer of 48 bytes names the index block; the index block names the data blocks; in a block, each
key keeps only what differs from the key before it; behind each block lie a byte for its compression
and a masked CRC-32C. Every number in the file is checked before it is used, and the memory needed
stays in proportion to the file, so that no file can do more than be refused.
Source of the format: LevelDB's ``doc/table_format.md``, and upstream ``core/lib/io/table.cc``.
"""

from __future__ import annotations

import bisect
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cramjam
import crc32c

from freezeflow.checkpoint.coding import Malformed, masked, read_varint
from freezeflow.checkpoint.contents import damaged
from freezeflow.store.stand_ins import unreadable

_FOOTER_BYTES = 48
_MAGIC = 0xDB4775248B80FB57
_TRAILER_BYTES = 5
_NO_COMPRESSION, _SNAPPY = 0, 1

# Snappy's densest element makes 64 bytes of 3; a block that claims more is not one.
_MAX_SNAPPY_RATIO = 22

# Writers repeat a key in full every 16 entries, so keys are at most 16 times as long as their
# block, which in turn packs well; beyond this they are made up to fill the memory.
_MAX_KEY_RATIO = 64
_KEY_ALLOWANCE = 4096

_LARGEST_BLOCK = 1 << 31


class _Handle(NamedTuple):
    """Where a block lies in the file, without its trailer."""

    offset: int
    length: int


Entries = list[tuple[bytes, bytes]]


class Table:
    """An open table file; close it.

    Args:
        path: The file.
        largest_block: Bytes of the largest block that is accepted, after decompression.

    Raises:
        ModelRefused: It cannot be read, is no table, or a block is damaged.
    """

    def __init__(self, path: Path, *, largest_block: int = _LARGEST_BLOCK) -> None:
        self._path = path
        self._largest_block = largest_block
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise unreadable(error, path) from None
        try:
            self._size = os.fstat(self._descriptor).st_size
            self._ends, self._handles = self._read_index()
        except BaseException:
            os.close(self._descriptor)
            raise
        self._recent: tuple[int, Entries] = (-1, [])

    def close(self) -> None:
        os.close(self._descriptor)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All keys and values in ascending order of the keys."""
        last: bytes | None = None
        for number in range(len(self._handles)):
            entries = self._block(number)
            if entries and last is not None and entries[0][0] <= last:
                raise damaged("the table's keys are not in order", self._path)
            yield from entries
            last = entries[-1][0] if entries else last

    def get(self, key: bytes) -> bytes | None:
        """The value of one key, or None."""
        number = bisect.bisect_left(self._ends, key)
        if number == len(self._ends):
            return None
        entries = self._block(number)
        place = bisect.bisect_left(entries, (key,))
        if place < len(entries) and entries[place][0] == key:
            return entries[place][1]
        return None

    # ------------------------------------------------------------ blocks

    def _read_index(self) -> tuple[list[bytes], list[_Handle]]:
        """For each data block a key not below its last, and where it lies."""
        if self._size < _FOOTER_BYTES:
            raise damaged(f"only {self._size} bytes long, too short for a table", self._path)
        footer = self._pread(_FOOTER_BYTES, self._size - _FOOTER_BYTES)
        if struct.unpack_from("<Q", footer, _FOOTER_BYTES - 8)[0] != _MAGIC:
            raise damaged("not a table file: its last bytes are others", self._path)
        try:
            _, after_metaindex = _read_handle(footer, 0)
            handle, _ = _read_handle(footer, after_metaindex)
            entries = self._read_block(handle)
            handles = [_read_handle(value, 0)[0] for _, value in entries]
        except Malformed as problem:
            raise damaged(f"the table's index is damaged: {problem}", self._path) from None
        self._check_layout(handles)
        return [key for key, _ in entries], handles

    def _check_layout(self, handles: list[_Handle]) -> None:
        """Data blocks follow each other; else a small file could name one block a million times."""
        end = 0
        for handle in handles:
            if handle.offset < end:
                raise damaged("the table's blocks overlap", self._path)
            end = handle.offset + handle.length

    def _block(self, number: int) -> Entries:
        if self._recent[0] != number:
            try:
                self._recent = (number, self._read_block(self._handles[number]))
            except Malformed as problem:
                raise damaged(f"block {number} of the table: {problem}", self._path) from None
        return self._recent[1]

    def _read_block(self, handle: _Handle) -> Entries:
        length = handle.length + _TRAILER_BYTES
        if handle.length > self._largest_block or handle.offset + length > self._size:
            raise Malformed("it lies outside the file")
        stored = self._pread(length, handle.offset)
        (expected,) = struct.unpack_from("<I", stored, handle.length + 1)
        if masked(crc32c.crc32c(memoryview(stored)[:-4])) != expected:
            raise Malformed("its checksum is another")
        compression = stored[handle.length]
        budget = handle.length * _MAX_KEY_RATIO + _KEY_ALLOWANCE
        if compression == _NO_COMPRESSION:
            return _entries(stored, handle.length, budget)
        if compression == _SNAPPY:
            data = _decompress(stored[: handle.length], self._largest_block)
            return _entries(data, len(data), budget)
        raise Malformed(f"compression {compression} is not known")

    def _pread(self, length: int, offset: int) -> bytes:
        try:
            data = os.pread(self._descriptor, length, offset)
        except OSError as error:
            raise unreadable(error, self._path) from None
        if len(data) < length:
            raise damaged("the file is cut short", self._path)
        return data


def _read_handle(data: bytes, position: int) -> tuple[_Handle, int]:
    offset, position = read_varint(data, position)
    length, position = read_varint(data, position)
    return _Handle(offset, length), position


def _decompress(data: bytes, largest: int) -> bytes:
    length, _ = read_varint(data, 0)
    if length > min(largest, len(data) * _MAX_SNAPPY_RATIO):
        raise Malformed("it claims to hold more than Snappy can pack")
    try:
        return bytes(cramjam.snappy.decompress_raw(data))
    except cramjam.DecompressionError:
        raise Malformed("its Snappy compression is damaged") from None


def _entries(data: bytes, length: int, budget: int) -> Entries:
    """Keys and values of a block; what follows its entries is a list of restart points.

    Args:
        data: The block, and perhaps more.
        length: Bytes of the block.
        budget: Bytes that all keys together may have.
    """
    if length < 4:
        raise Malformed("it is too short")
    (restarts,) = struct.unpack_from("<I", data, length - 4)
    end = length - 4 - 4 * restarts
    if end < 0:
        raise Malformed("it has no room for its restart points")
    found: Entries = []
    key = b""
    position = 0
    while position < end:
        (shared, added, size), position = _entry_head(data, position)
        split = position + added
        if shared > len(key) or split + size > end:
            raise Malformed("an entry lies outside it")
        last, key = key, key[:shared] + data[position:split]
        budget -= len(key)
        if budget < 0:
            raise Malformed("its keys are too long")
        if found and key <= last:
            raise Malformed("its keys are not in order")
        position = split + size
        found.append((key, data[split:position]))
    return found


def _entry_head(data: bytes, position: int) -> tuple[tuple[int, int, int], int]:
    """How many bytes of the last key stay, how many are added, how long the value is."""
    head = data[position : position + 3]
    if len(head) == 3 and max(head) < 0x80:
        return (head[0], head[1], head[2]), position + 3
    shared, position = read_varint(data, position)
    added, position = read_varint(data, position)
    size, position = read_varint(data, position)
    return (shared, added, size), position
