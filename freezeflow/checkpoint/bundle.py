"""Tensor bundles (V2 checkpoints): an index table, and data files in which tensors lie end to end.

Large tensors are not loaded: their bytes are checked against the index's CRC-32C and digested in
one pass through a small buffer, and stay where they are.
Source of the format: upstream ``core/util/tensor_bundle/tensor_bundle.h`` and
``core/protobuf/tensor_bundle.proto``.
"""

from __future__ import annotations

import contextlib
import functools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from freezeflow.checkpoint.bundle_data import Piece, Plan, Reading, Shard, Stored, open_shard
from freezeflow.checkpoint.coding import FULL, Malformed, slice_key
from freezeflow.checkpoint.contents import (
    Entry,
    PutTensor,
    Request,
    Value,
    checked_dtype,
    checked_shape,
    damaged,
    key_text,
    no_such_key,
    refuse_unreadable,
    tensor_bytes,
    wanted_box,
)
from freezeflow.checkpoint.slices import Box, box_shape, covering, resolve, volume, whole
from freezeflow.checkpoint.table import Table
from freezeflow.errors import ModelRefused
from freezeflow.messages import message_class
from freezeflow.values import DType

# The newest version of the format that this reader knows.
_VERSION = 1

_LARGEST_INDEX_BLOCK = 16 * 1024 * 1024


class Bundle:
    """An open V2 checkpoint; see `freezeflow.checkpoint.contents.Checkpoint`.

    Args:
        prefix: Path of the index without ``.index``; it may end in a slash.

    Raises:
        ModelRefused: The index is missing, damaged, or of a kind that cannot be read.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.index_path = Path(f"{prefix}.index")
        table = Table(self.index_path, largest_block=_LARGEST_INDEX_BLOCK)
        with contextlib.closing(table):
            self._messages = dict(table.items())
        header = self._parse("BundleHeaderProto", b"")
        self._check_header(header)
        self._shards = header.num_shards
        self._known_slices: dict[str, dict[Box, bytes]] = {}

    # ------------------------------------------------------------ the index

    @functools.cached_property
    def files(self) -> tuple[Path, ...]:
        return (self.index_path, *map(self._shard_path, range(self._shards)))

    def keys(self) -> tuple[str, ...]:
        # Keys of slices start with a zero; the header's key is empty.
        return tuple(key_text(key) for key in self._messages if key and key[0] != 0)

    def entries(self) -> tuple[Entry, ...]:
        return tuple(self.describe(key) for key in self.keys())

    def describe(self, key: str) -> Entry:
        message, dtype, shape = self._entry(key)
        slices = self._slices(key, message, shape)
        if not slices:
            return Entry(key, dtype, shape, message.size, (), message.crc32c)
        stored = [self._parse("BundleEntryProto", name).size for name in slices.values()]
        return Entry(key, dtype, shape, sum(stored), tuple(sorted(slices)))

    def _parse(self, kind: str, key: bytes) -> Any:
        if key not in self._messages:
            raise damaged(f"the index lacks the entry {key_text(key)!r}", self.index_path)
        try:
            return message_class(kind).FromString(self._messages[key])
        except DecodeError:
            raise damaged(f"the entry {key_text(key)!r} cannot be read", self.index_path) from None

    def _check_header(self, header: Any) -> None:
        if header.endianness != 0:
            raise ModelRefused(
                "the checkpoint was written by a big-endian machine",
                where=str(self.index_path),
                hint="Load and save it again on a little-endian machine.",
            )
        if header.version.min_consumer > _VERSION or _VERSION in header.version.bad_consumers:
            raise ModelRefused(
                f"the checkpoint's format is of version {header.version.producer},"
                f" this reader knows {_VERSION}",
                where=str(self.index_path),
                hint="Look for a newer freezeflow, or save it again with an older TensorFlow.",
            )
        if not 0 <= header.num_shards < 100_000:
            raise damaged(f"the index names {header.num_shards} data files", self.index_path)

    def _entry(self, key: str) -> tuple[Any, DType, tuple[int, ...]]:
        name = key.encode(errors="surrogateescape")
        if name not in self._messages or not name or name[0] == 0:
            raise no_such_key(key, self.keys(), self.index_path)
        return self._typed_entry(name)

    def _typed_entry(self, name: bytes) -> tuple[Any, DType, tuple[int, ...]]:
        message = self._parse("BundleEntryProto", name)
        dtype = checked_dtype(message.dtype, key_text(name), self.index_path)
        return message, dtype, checked_shape(message.shape, key_text(name), self.index_path)

    def _slices(self, key: str, message: Any, shape: tuple[int, ...]) -> dict[Box, bytes]:
        """For each slice of a tensor, the key of its own entry; empty where it is stored whole."""
        if key in self._known_slices:
            return self._known_slices[key]
        name = key.encode(errors="surrogateescape")
        found: dict[Box, bytes] = {}
        for proto in message.slices:
            extents = [(e.start, e.length if e.HasField("length") else None) for e in proto.extent]
            try:
                box = resolve(shape, extents)
            except Malformed as problem:
                raise damaged(f"{key!r}: {problem}", self.index_path) from None
            found[box] = slice_key(name, [(s, FULL if n is None else n) for s, n in extents])
        self._known_slices[key] = found
        return found

    # ------------------------------------------------------------ fetching

    def fetch(self, requests: Sequence[Request], put_tensor: PutTensor) -> list[Value]:
        plans = {request: self._plan(request) for request in dict.fromkeys(requests)}
        with contextlib.ExitStack() as stack:
            shards = self._open_shards(plans.values(), stack)
            reading = Reading(shards, put_tensor)
            reading.check(plans.values())
            values = {request: reading.value(plan) for request, plan in plans.items()}
        return [values[request] for request in requests]

    def _plan(self, request: Request) -> Plan:
        key = request.key
        message, dtype, shape = self._entry(key)
        refuse_unreadable(dtype, key, self.index_path)
        box = wanted_box(request, shape, self.index_path)
        slices = self._slices(key, message, shape)
        if volume(box) == 0:
            return Plan(request, dtype, box, ())
        if not slices:
            stored = self._stored(key, message, dtype, shape)
            return Plan(request, dtype, box, (Piece(stored, whole(shape)),))
        try:
            parts = covering(box, slices)
        except Malformed as problem:
            raise damaged(f"{key!r}: {problem}", self.index_path) from None
        pieces = (Piece(self._slice(key, slices[part], dtype, part), part) for part in parts)
        return Plan(request, dtype, box, tuple(pieces))

    def _slice(self, key: str, name: bytes, dtype: DType, box: Box) -> Stored:
        if name not in self._messages:
            raise damaged(f"the index lacks the slice {_box_text(box)} of {key!r}", self.index_path)
        message, own_dtype, shape = self._typed_entry(name)
        if own_dtype is not dtype or shape != box_shape(box):
            raise damaged(
                f"the slice {_box_text(box)} of {key!r} is {own_dtype.tf_name}{list(shape)}",
                self.index_path,
            )
        return self._stored(key, message, dtype, shape)

    def _stored(self, key: str, message: Any, dtype: DType, shape: tuple[int, ...]) -> Stored:
        if not 0 <= message.shard_id < self._shards:
            raise damaged(
                f"{key!r} lies in data file {message.shard_id} of {self._shards}", self.index_path
            )
        expected = tensor_bytes(dtype, shape)
        if message.offset < 0 or (dtype is not DType.STRING and message.size != expected):
            raise damaged(
                f"{key!r} takes {message.size} bytes,"
                f" but {dtype.tf_name}{list(shape)} takes {expected}",
                self.index_path,
            )
        return Stored(message.shard_id, message.offset, message.size, message.crc32c)

    # ------------------------------------------------------------ data files

    def _shard_path(self, number: int) -> Path:
        return Path(f"{self._prefix}.data-{number:05d}-of-{self._shards:05d}")

    def _open_shards(self, plans: Iterable[Plan], stack: contextlib.ExitStack) -> dict[int, Shard]:
        """Opens the data files that are needed, and checks that they are long enough."""
        needed: dict[int, dict[Stored, str]] = defaultdict(dict)
        for plan in plans:
            for piece in plan.pieces:
                needed[piece.stored.shard].setdefault(piece.stored, plan.request.key)
        return {
            number: stack.enter_context(open_shard(self._shard_path(number), needed[number]))
            for number in sorted(needed)
        }


def _box_text(box: Box) -> str:
    return ":".join(f"{start},{length}" for start, length in box)
