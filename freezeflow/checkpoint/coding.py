"""How TensorFlow's checkpoints write numbers, checksums, and the keys of slices."""

from __future__ import annotations

import re
from collections.abc import Sequence

# The length of a slice that was saved as all of a dimension.
FULL = -1

_ESCAPED = re.compile(rb"[\x00\xff]")


class Malformed(ValueError):
    """Bytes that do not keep to the format; the message says how. Readers refuse the file."""


def masked(checksum: int) -> int:
    """A CRC-32C in the form in which TensorFlow stores it (upstream ``core/lib/hash/crc32c.h``)."""
    return (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """An unsigned number of at most 64 bits, seven in each byte, and the position behind it.

    Raises:
        Malformed: There is none.
    """
    value = 0
    for count, byte in enumerate(data[position : position + 10]):
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            if value >> 64:
                break
            return value, position + count + 1
    raise Malformed("a number is cut short")


def varint(number: int) -> bytes:
    """A non-negative number, seven bits in each byte, low ones first."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def slice_key(name: bytes, extents: Sequence[tuple[int, int]]) -> bytes:
    """The key under which a slice of a tensor is stored.

    Args:
        name: The tensor's key.
        extents: (start, length) in every dimension; (0, FULL) where it was saved as all of it.

    Source of the format: upstream ``core/util/saved_tensor_slice_util.cc`` (EncodeTensorNameSlice)
    and ``core/lib/strings/ordered_code.h``.
    """
    escaped = _ESCAPED.sub(lambda found: found[0] + bytes([found[0][0] ^ 0xFF]), name)
    parts = [_unsigned(0), escaped, b"\x00\x01", _unsigned(len(extents))]
    for start, length in extents:
        parts += [_signed(start), _signed(length)]
    return b"".join(parts)


def _unsigned(number: int) -> bytes:
    """The count of bytes, then the number in big-endian order without leading zeros."""
    size = (number.bit_length() + 7) // 8
    return bytes([size]) + number.to_bytes(size, "big")


def _signed(number: int) -> bytes:
    """Big-endian two's complement; as many leading bits as there are bytes tell the length."""
    size = (number if number >= 0 else ~number).bit_length() // 7 + 1
    header = ((1 << size) - 1) << (8 * size - size)
    return (header ^ (number & ((1 << 8 * size) - 1))).to_bytes(size, "big")
