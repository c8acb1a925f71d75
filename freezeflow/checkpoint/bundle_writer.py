"""Writing tensor bundles (V2 checkpoints): the index table and one data file, without TensorFlow.

Bytes that lie in other files are copied by the kernel and checksummed on the way. The same tensors give
the same bytes: those that TensorFlow's ``SaveV2`` writes for them in the order of their keys.
Source of the format: upstream ``core/util/tensor_bundle/tensor_bundle.cc``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import crc32c

from freezeflow.checkpoint.bundle_data import packed_lengths
from freezeflow.checkpoint.coding import masked, varint
from freezeflow.checkpoint.contents import Value
from freezeflow.checkpoint.table_writer import table_pieces
from freezeflow.messages import message_class
from freezeflow.store.files import Written, write_atomically
from freezeflow.values import Location, TensorRef

# What this writer writes, and what every reader since 2016 reads.
_VERSION = 1


def write_bundle(
    prefix: str | Path,
    tensors: Mapping[str, Value],
    *,
    write: Callable[..., Written] = write_atomically,
) -> dict[Path, Written]:
    """Writes a checkpoint; `freezeflow.checkpoint.open_checkpoint` and TensorFlow read it.

    Args:
        prefix: Its path without ``.index`` and ``.data-00000-of-00001``.
        tensors: Each key with what it holds, whatever their order.
        write: Writes one file; `Publication.write` where several files are to appear together.

    Returns:
        What was written, by path: the index, and the data file.

    Raises:
        FreezeflowError: A file cannot be written, or one that bytes are taken from has changed.
    """
    ordered = dict(sorted((key.encode(errors="surrogateescape"), v) for key, v in tensors.items()))
    pieces = [_content(value) for value in ordered.values()]
    data_path = Path(f"{prefix}.data-00000-of-00001")
    data = write(data_path, pieces, checksums=True)
    index_path = Path(f"{prefix}.index")
    index = write(index_path, list(table_pieces(_entries(ordered, pieces, data.checksums))))
    return {index_path: index, data_path: data}


def _content(value: Value) -> bytes | Location:
    """A tensor as the data file holds it."""
    if isinstance(value.content, TensorRef):
        return value.content.location
    if isinstance(value.content, bytes):
        return value.content
    return _strings(value.content)


def _elements(value: Value) -> Sequence[bytes] | None:
    """The elements of a string tensor."""
    if isinstance(value.content, TensorRef | bytes):
        return None
    return value.content


def _strings(elements: Sequence[bytes]) -> bytes:
    """Lengths, their checksum, then the bytes."""
    lengths = [len(element) for element in elements]
    head = b"".join(map(varint, lengths))
    checksum = struct.pack("<I", masked(crc32c.crc32c(packed_lengths(lengths))))
    return b"".join((head, checksum, *elements))


def _entries(
    tensors: Mapping[bytes, Value],
    pieces: Sequence[bytes | Location],
    checksums: Sequence[int],
) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of the index, the header first."""
    header = message_class("BundleHeaderProto")(num_shards=1)
    header.version.producer = _VERSION
    yield b"", header.SerializeToString(deterministic=True)
    offset = 0
    for (key, value), piece, checksum in zip(tensors.items(), pieces, checksums, strict=True):
        entry = message_class("BundleEntryProto")(dtype=int(value.dtype), offset=offset)
        entry.shape.SetInParent()
        for size in value.shape:
            entry.shape.dim.add(size=size)
        entry.size = piece.length if isinstance(piece, Location) else len(piece)
        strings = _elements(value)
        entry.crc32c = masked(checksum if strings is None else _checksum_of_strings(strings))
        yield key, entry.SerializeToString(deterministic=True)
        offset += entry.size


def _checksum_of_strings(elements: Sequence[bytes]) -> int:
    """Takes the lengths in another form than the file has them."""
    checksum = crc32c.crc32c(packed_lengths([len(element) for element in elements]))
    tail = b"".join((struct.pack("<I", masked(checksum)), *elements))
    return int(crc32c.crc32c(tail, checksum))
