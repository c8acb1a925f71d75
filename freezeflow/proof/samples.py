"""Strings that an op can read: pictures, sounds, serialized examples, numbers. The same every time.

Sources of the formats: the PNG specification (W3C), the BMP and WAVE file formats as Windows defines
them, upstream ``core/example/{example,feature}.proto`` and ``core/framework/tensor.proto``. The two JPEG
pictures were made for this file: slopes of grey and of colour.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from freezeflow.graph.wire import varint
from freezeflow.messages import message_class
from freezeflow.proof.seeded import Wish, seeded_input
from freezeflow.values import DType, Shape, TensorSpec

# Pictures of one size, so that a model can put them into one batch.
_SIDE = 16

_EXAMPLES = 8

# Values of a feature of any length: what most models take.
_LENGTH = 1

_JPEGS = (
    (
        "|JeWF01!$>Nk#wx0RR9200961|JwjV08lqPMm#c5MnOheRZw4e$bxuoZg};txsk~K|NsC0|NsC0|NsC0|NsC"
        "0|NsC0|NsC0|NsC0|NsC0|NsC0|Nq+nLjhG<T6k%A>w<#o|NsC0|NsC0|NsC0|NsC0|NsC0|NsC0|NsC0|Ns"
        "C0|NsC0|NsC0|NsC0|NsC0|NsC0|NsBM01*fP5C9MZ0U`hb5di}c0sq7R6#xMN00000000000000000093|H"
        "J?l5CH)I00000000000000000IF2!~hfl0RR910000000000000000RO}Q6cGUc00000000000000000030+"
        "5ij#0RRFK0}%i}003qNft(mW|Je"
    ),
    (
        "|JeWF01!$>Nk#wx0RR9200961|JwjV08lqPMm#c5MnOheRZw4e$bxuoZg};txsk~K|NsC0|NsC0|NsC0|NsC"
        "0|NsC0|NsC0|NsC0|NsC0|NsC0|Nq+nLjhG<T6k%A>w<#o|NsC0|NsC0|NsC0|NsC0|NsC0|NsC0|NsC0|Ns"
        "C0|NsC0|NsC0|NsC0|NsC0|NsC0|NsBM01*fP5C9MZ0U`hb5di}c0sq7R6#xMN00000000000000000097|H"
        "J?l5CH)I00000000000000000IF2!~hfl0RR910000000000000000RO}Q77+jg000000000000000000010"
        "{_|o3<CiG0ucid06zc#Y5|NIkYhsN|Je"
    ),
)


def jpeg_pictures() -> tuple[bytes, ...]:
    """JPEG, 16 x 16, three channels."""
    return tuple(base64.b85decode(text) for text in _JPEGS)


def png_pictures() -> tuple[bytes, ...]:
    """PNG, 16 x 16, three channels of eight bits."""
    return tuple(_png(pixels) for pixels in _pixels())


def bmp_pictures() -> tuple[bytes, ...]:
    """BMP, 16 x 16, three channels of eight bits."""
    return tuple(_bmp(pixels) for pixels in _pixels())


def _pixels() -> list[bytes]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, 3 * _SIDE**2, np.uint8).tobytes() for _ in range(3)]


def _png(pixels: bytes) -> bytes:
    rows = (pixels[start : start + 3 * _SIDE] for start in range(0, len(pixels), 3 * _SIDE))
    header = struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 2, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows), 0)
    parts = [(b"IHDR", header), (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_part(*part) for part in parts)


def _png_part(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _bmp(pixels: bytes) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, _SIDE, _SIDE, 1, 24, 0, len(pixels), 0, 0, 0, 0)
    start = 14 + len(header)
    return struct.pack("<2sIHHI", b"BM", start + len(pixels), 0, 0, start) + header + pixels


def sounds() -> tuple[bytes, ...]:
    """WAV, one channel, 16 bits, 400 samples at 16 kHz."""
    generator = np.random.default_rng(0)
    found = []
    for _ in range(3):
        data = generator.integers(-(2**15), 2**15, 400).astype("<i2").tobytes()
        form = struct.pack("<HHIIHH", 1, 1, 16000, 32000, 2, 16)
        body = b"WAVEfmt " + struct.pack("<I", len(form)) + form
        body += b"data" + struct.pack("<I", len(data)) + data
        found.append(b"RIFF" + struct.pack("<I", len(body)) + body)
    return tuple(found)


def numbers() -> tuple[bytes, ...]:
    """Whole numbers as text."""
    return (b"0", b"1", b"2", b"3", b"17")


def raw_bytes() -> tuple[bytes, ...]:
    """Sixteen bytes each: one number of the widest dtype, two of the next one..."""
    return tuple(bytes([start] * 16) for start in (0, 1, 62))


def base64_words() -> tuple[bytes, ...]:
    """Base64 as TensorFlow takes it: for addresses, without padding."""
    return (b"", b"YQ", b"ZnJlZXpl", b"-_8")


def lines(columns: int) -> tuple[bytes, ...]:
    """Lines of comma-separated numbers."""
    return tuple(",".join([number] * columns).encode() for number in ("0", "1", "2"))


def tensors(dtype: DType) -> tuple[bytes, ...]:
    """Serialized vectors of two elements."""
    found = []
    for number in range(3):
        spec = TensorSpec("", dtype, (2,))
        values = seeded_input("", spec, Wish(), (2,), seed=0, number=number)
        proto = message_class("TensorProto")(dtype=int(dtype))
        proto.tensor_shape.dim.add(size=2)
        if dtype is DType.STRING:
            proto.string_val.extend(values.tolist())
        else:
            proto.tensor_content = values.tobytes()
        found.append(proto.SerializeToString(deterministic=True))
    return tuple(found)


# ---------------------------------------------------------------- examples


class Feature(NamedTuple):
    """A feature that is parsed.

    Args:
        key: Its key.
        dtype: float32, int64, or string.
        shape: Of its values; None for any number of them.
        wish: What is needed of the values; None where nothing is known.
    """

    key: bytes
    dtype: DType
    shape: Shape
    wish: Wish | None


def examples(features: Sequence[Feature]) -> tuple[bytes, ...]:
    """Serialized ``tf.Example`` messages with all of the features."""
    return tuple(_example(features, number) for number in range(_EXAMPLES))


def _example(features: Sequence[Feature], number: int) -> bytes:
    entries = b"".join(
        _field(1, _field(1, feature.key) + _field(2, _values(feature, number)))
        for feature in features
    )
    return _field(1, entries)


def _values(feature: Feature, number: int) -> bytes:
    """The ``Feature`` message: one of bytes_list, float_list, int64_list."""
    shape = tuple(size or _LENGTH for size in ((None,) if feature.shape is None else feature.shape))
    wish = feature.wish or Wish()
    spec = TensorSpec("", feature.dtype, shape)
    found = seeded_input(
        feature.key.decode(errors="replace"), spec, wish, shape, seed=0, number=number
    )
    if feature.dtype is DType.STRING:
        return _field(1, b"".join(_field(1, word) for word in found.ravel().tolist()))
    if feature.dtype is DType.FLOAT:
        return _field(2, _field(1, found.astype("<f4").tobytes()))
    packed = b"".join(varint(int(value)) for value in found.astype(np.uint64).ravel())
    return _field(3, _field(1, packed))


def _field(number: int, data: bytes) -> bytes:
    """A field of bytes in protobuf's wire format."""
    return bytes([number << 3 | 2]) + varint(len(data)) + data
