"""A file that holds a graph, parsed with its large constants left where they are."""

from __future__ import annotations

import dataclasses
import functools
import mmap
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from google.protobuf.message import DecodeError

from freezeflow.errors import ModelRefused
from freezeflow.graph import wire
from freezeflow.graph.read import GraphReader
from freezeflow.messages import message_class, raw_class
from freezeflow.store.background import PendingDigest, present
from freezeflow.store.hashing import hash_file, hash_ranges
from freezeflow.store.stand_ins import stand_in
from freezeflow.values import Digest, DType, Location, TensorRef

_DAMAGED = "The file is damaged or cut short; copy or write it again."


@dataclasses.dataclass(frozen=True)
class ParsedFile:
    """A parsed message with what was cut out of it."""

    path: Path
    message: Any
    marker: bytes
    cuts: tuple[tuple[Digest, Location], ...]

    def reader(self, graph_def: Any, op_defs: Iterable[Any] = ()) -> GraphReader:
        """Reads a GraphDef of this file."""
        return GraphReader(
            graph_def, op_defs=op_defs, where=str(self.path), marker=self.marker, cuts=self.cuts
        )


def parse_file(path: Path, kind: str) -> ParsedFile:
    """Parses a file that holds one message, in binary form or (``.pbtxt``) as text.

    Args:
        path: The file.
        kind: The message's name: SavedModel, GraphDef, MetaGraphDef.

    Raises:
        ModelRefused: The file cannot be read or holds something else.
    """
    try:
        if path.suffix == ".pbtxt":
            text = path.read_bytes()
            return ParsedFile(path, text_format.Parse(text, message_class(kind)()), b"", ())
        return _parse_binary(path, kind)
    except OSError as error:
        raise ModelRefused(f"cannot be read: {error.strerror}", where=str(path)) from None
    except (wire.Truncated, DecodeError, text_format.ParseError, UnicodeDecodeError, ValueError):
        found = stand_in(path)
        raise found or ModelRefused(f"this is no {kind}", where=str(path), hint=_DAMAGED) from None


def _parse_binary(path: Path, kind: str) -> ParsedFile:
    marker = os.urandom(16)
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise wire.Truncated("the file is empty")
        with (
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
            memoryview(mapped) as view,
        ):
            data, cuts = wire.excise(view, kind, marker)
    message = raw_class(kind).FromString(data)
    located = tuple(
        (digest, location_of(path, cut.offset, cut.length))
        for digest, cut in zip(_digests(path, cuts), cuts, strict=True)
    )
    return ParsedFile(path, message, marker, located)


def _digests(path: Path, cuts: Sequence[wire.Cut]) -> list[Digest]:
    """The digests of what was cut out; found beside other work where that is possible."""
    beside = present()
    if beside is None:
        return hash_ranges(path, cuts)
    pending = beside.start(functools.partial(hash_ranges, path, cuts))

    def digest_of(number: int) -> str:
        return pending.result()[number].hex

    return [PendingDigest(functools.partial(digest_of, number)) for number in range(len(cuts))]


def tensor_of_file(path: Path) -> TensorRef:
    """A whole file as a uint8 tensor of one dimension."""
    size = path.stat().st_size
    return TensorRef(hash_file(path), DType.UINT8, (size,), location_of(path, 0, size))


def location_of(path: Path, offset: int, length: int) -> Location:
    """A range of a file as it is now."""
    status = path.stat()
    return Location(
        str(path.absolute()), offset, length, status.st_mtime_ns, status.st_size, status.st_ino
    )
