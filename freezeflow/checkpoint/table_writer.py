"""Writing sorted tables of keys and values, byte for byte as TensorFlow does.

Blocks are closed at 256 KiB and not compressed; every sixteenth key of a block is written in full, the
others without what they share with the key before; the index names each block by a key, as short as
can be, that is not below the block's last and below the next block's first.
Source of the format: LevelDB's ``doc/table_format.md``, and upstream ``core/lib/io/table_builder.cc``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

import crc32c

from freezeflow.checkpoint.coding import masked, varint

_FOOTER_BYTES = 48
_MAGIC = 0xDB4775248B80FB57
_NO_COMPRESSION = b"\0"
_BLOCK_BYTES = 256 * 1024
_FULL_KEY_EVERY = 16


def table_pieces(entries: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
    """The file of a table, block by block.

    Args:
        entries: Keys and values in ascending order of the keys, each key once.
    """
    offset = 0
    index = _Block(full_key_every=1)
    last = b""
    handle = b""
    for first, after, data in _data_blocks(entries):
        if handle:
            index.add(_between(last, first), handle)
        handle = varint(offset) + varint(len(data))
        last = after
        stored = _stored(data)
        offset += len(stored)
        yield stored
    if handle:
        index.add(_after(last), handle)
    metaindex = _Block(full_key_every=1).finish()
    handles = varint(offset) + varint(len(metaindex))
    yield (stored := _stored(metaindex))
    offset += len(stored)
    data = index.finish()
    handles += varint(offset) + varint(len(data))
    yield _stored(data)
    yield handles.ljust(_FOOTER_BYTES - 8, b"\0") + struct.pack("<Q", _MAGIC)


def _data_blocks(entries: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes, bytes]]:
    """First key, last key and content of each block."""
    block = _Block(_FULL_KEY_EVERY)
    first: bytes | None = None
    key = b""
    for key, value in entries:
        first = key if first is None else first
        block.add(key, value)
        if block.size >= _BLOCK_BYTES:
            yield first, key, block.finish()
            block, first = _Block(_FULL_KEY_EVERY), None
    if first is not None:
        yield first, key, block.finish()


class _Block:
    """A block that is being filled."""

    def __init__(self, full_key_every: int) -> None:
        self._full_key_every = full_key_every
        self._data = bytearray()
        self._full_keys = [0]
        self._since_full = 0
        self._last = b""

    @property
    def size(self) -> int:
        return len(self._data) + 4 * len(self._full_keys) + 4

    def add(self, key: bytes, value: bytes) -> None:
        shared = 0
        if self._since_full < self._full_key_every:
            shared = _shared(self._last, key)
        else:
            self._full_keys.append(len(self._data))
            self._since_full = 0
        self._since_full += 1
        self._data += varint(shared) + varint(len(key) - shared) + varint(len(value))
        self._data += key[shared:] + value
        self._last = key

    def finish(self) -> bytes:
        count = len(self._full_keys)
        return bytes(self._data) + struct.pack(f"<{count + 1}I", *self._full_keys, count)


def _stored(block: bytes) -> bytes:
    """A block with its trailer."""
    content = block + _NO_COMPRESSION
    return content + struct.pack("<I", masked(crc32c.crc32c(content)))


def _shared(one: bytes, two: bytes) -> int:
    """How many bytes both begin with."""
    for place, (a, b) in enumerate(zip(one, two, strict=False)):
        if a != b:
            return place
    return min(len(one), len(two))


def _between(low: bytes, high: bytes) -> bytes:
    """A short key that is not below `low`, and below `high`."""
    place = _shared(low, high)
    if place < min(len(low), len(high)) and low[place] < 0xFF and low[place] + 1 < high[place]:
        return low[:place] + bytes([low[place] + 1])
    return low


def _after(low: bytes) -> bytes:
    """A short key that is not below `low`."""
    for place, byte in enumerate(low):
        if byte != 0xFF:
            return low[:place] + bytes([byte + 1])
    return low
