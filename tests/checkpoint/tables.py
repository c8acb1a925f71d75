"""A writer of table files of our own, for tables that no other writer makes."""

from __future__ import annotations

import struct

import cramjam
import crc32c

from freezeflow.checkpoint.coding import masked

MAGIC = 0xDB4775248B80FB57


def varint(number):
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def entry(shared, added, value):
    """An entry of a block as it is stored."""
    return varint(shared) + varint(len(added)) + varint(len(value)) + added + value


def block(entries, interval=16):
    """A block of keys and values, each key without what it shares with the one before."""
    data, restarts, last = bytearray(), [], b""
    for number, (key, value) in enumerate(entries):
        shared = 0
        if number % interval == 0:
            restarts.append(len(data))
        else:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        data += entry(shared, key[shared:], value)
        last = key
    return (
        bytes(data)
        + b"".join(struct.pack("<I", r) for r in restarts or [0])
        + count(restarts or [0])
    )


def count(restarts):
    return struct.pack("<I", len(restarts))


def stored(data, compression=0):
    """A block with its trailer."""
    if compression == 1:
        data = bytes(cramjam.snappy.compress_raw(data))
    data += bytes([compression])
    return data + struct.pack("<I", masked(crc32c.crc32c(data)))


def handle(offset, length):
    return varint(offset) + varint(length)


def footer(index_offset, index_length):
    handles = handle(0, 0) + handle(index_offset, index_length)
    return handles.ljust(40, b"\0") + struct.pack("<Q", MAGIC)


def table(entries, *, compression=0, per_block=3, interval=16):
    """A whole table file of entries in ascending order of their keys."""
    groups = [entries[i : i + per_block] for i in range(0, len(entries), per_block)]
    return table_of_blocks(
        [(stored(block(group, interval), compression), group[-1][0]) for group in groups],
        compression,
    )


def table_of_blocks(blocks, compression=0):
    """A whole table file of (block with its trailer, last key)."""
    data, index = b"", []
    for content, last_key in blocks:
        index.append((last_key, handle(len(data), len(content) - 5)))
        data += content
    index_block = stored(block(index, 1), compression)
    return data + index_block + footer(len(data), len(index_block) - 5)
