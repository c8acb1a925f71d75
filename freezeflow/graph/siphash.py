"""SipHash-2-4 as TensorFlow's StringToHashBucketStrong computes it.

Source of the algorithm: Aumasson and Bernstein, "SipHash: a fast short-input PRF" (2012); upstream
``core/lib/strong_hash.h`` uses it with a 128-bit key of two 64-bit words.
"""

from __future__ import annotations

_MASK = (1 << 64) - 1


def siphash24(key: tuple[int, int], data: bytes) -> int:
    """The 64-bit hash of some bytes.

    Args:
        key: Two 64-bit words.
        data: What to hash.
    """
    a = key[0] ^ 0x736F6D6570736575
    b = key[1] ^ 0x646F72616E646F6D
    c = key[0] ^ 0x6C7967656E657261
    d = key[1] ^ 0x7465646279746573
    whole = len(data) & ~7
    last = int.from_bytes(data[whole:], "little") | (len(data) & 0xFF) << 56
    for start in range(0, whole, 8):
        word = int.from_bytes(data[start : start + 8], "little")
        a, b, c, d = _rounds(2, a, b, c, d ^ word)
        a ^= word
    a, b, c, d = _rounds(2, a, b, c, d ^ last)
    a ^= last
    a, b, c, d = _rounds(4, a, b, c ^ 0xFF, d)
    return a ^ b ^ c ^ d


def _rounds(count: int, a: int, b: int, c: int, d: int) -> tuple[int, int, int, int]:
    for _ in range(count):
        a = (a + b) & _MASK
        b = ((b << 13 | b >> 51) & _MASK) ^ a
        a = (a << 32 | a >> 32) & _MASK
        c = (c + d) & _MASK
        d = ((d << 16 | d >> 48) & _MASK) ^ c
        a = (a + d) & _MASK
        d = ((d << 21 | d >> 43) & _MASK) ^ a
        c = (c + b) & _MASK
        b = ((b << 17 | b >> 47) & _MASK) ^ c
        c = (c << 32 | c >> 32) & _MASK
    return a, b, c, d
