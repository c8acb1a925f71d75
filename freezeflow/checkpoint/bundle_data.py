"""Reading the data files of a tensor bundle: every range once, checked, large ones left in place.

Source of the format: upstream ``core/util/tensor_bundle/tensor_bundle.cc``.
"""

from __future__ import annotations

import contextlib
import functools
import os
import stat
import struct
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import crc32c

from freezeflow.checkpoint.assembly import FileSource, Part, assemble, assemble_strings
from freezeflow.checkpoint.coding import Malformed, masked, read_varint
from freezeflow.checkpoint.contents import (
    INLINE_BYTES,
    PutTensor,
    Request,
    Value,
    damaged,
    tensor_bytes,
)
from freezeflow.checkpoint.slices import Box, box_shape, runs, volume
from freezeflow.errors import ModelRefused
from freezeflow.store.background import PendingDigest, present
from freezeflow.store.hashing import (
    changed_while_read,
    check_whole,
    disjoint,
    hash_location,
    scan,
)
from freezeflow.store.stand_ins import unreadable
from freezeflow.values import Digest, DType, Location, TensorRef

# Longer strings have their length in eight bytes, where lengths are summed up.
_LARGEST_SHORT_STRING = 0xFFFFFFFF


class Stored(NamedTuple):
    """A range of a data file that holds one tensor or one slice of it; its checksum is masked."""

    shard: int
    offset: int
    length: int
    checksum: int


class Piece(NamedTuple):
    """A stored range, and which part of its tensor it is."""

    stored: Stored
    box: Box


class Plan(NamedTuple):
    """How a request is met: the stored ranges that together hold what is wanted."""

    request: Request
    dtype: DType
    box: Box
    pieces: tuple[Piece, ...]

    @property
    def nbytes(self) -> int:
        return tensor_bytes(self.dtype, box_shape(self.box))

    def within(self) -> tuple[int, int] | None:
        """First byte and length of what is wanted, where it is one range of one piece."""
        if len(self.pieces) != 1:
            return None
        if self.pieces[0].box == self.box:
            return 0, self.nbytes
        first = next(runs(self.pieces[0].box, self.box))
        if first.length != volume(self.box):
            return None
        return first.source * self.dtype.item_bytes, self.nbytes


class Shard(NamedTuple):
    """An open data file."""

    path: Path
    descriptor: int
    status: os.stat_result

    def location(self, offset: int, length: int) -> Location:
        """Where a range of the file lies, with what tells whether the file stays the same."""
        status = self.status
        identity = (status.st_mtime_ns, status.st_size, status.st_ino)
        return Location(os.path.abspath(self.path), offset, length, *identity)

    def read(self, offset: int, length: int) -> bytes:
        """The bytes of a range."""
        data = bytearray(length)
        try:
            FileSource(self.descriptor, offset, 0).copy(0, memoryview(data))
        except EOFError:
            raise damaged("the file is cut short", self.path) from None
        return bytes(data)


@contextlib.contextmanager
def open_shard(path: Path, needed: Mapping[Stored, str]) -> Iterator[Shard]:
    """Opens a data file for a while.

    Args:
        path: The file.
        needed: What will be read of it, and the key that needs it.

    Raises:
        ModelRefused: It is missing, cannot be read, or is too short.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ModelRefused(
            f"the data file that holds {next(iter(needed.values()))!r} is missing",
            where=str(path),
            hint="A checkpoint is its .index and all its .data files; copy them together.",
        ) from None
    except OSError as error:
        raise unreadable(error, path) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise damaged("this is no regular file", path)
        for stored, key in needed.items():
            if stored.length < 0 or stored.offset + stored.length > status.st_size:
                raise damaged(
                    f"{key!r} should take {stored.length} bytes from {stored.offset} on,"
                    f" but the file has {status.st_size}",
                    path,
                )
        yield Shard(path, descriptor, status)
    finally:
        os.close(descriptor)


class Reading:
    """One pass over what is needed of a bundle's data files.

    Args:
        shards: The open files by number; all ranges are known to lie inside them.
        put_tensor: Takes the bytes of what must be put together.
    """

    def __init__(self, shards: Mapping[int, Shard], put_tensor: PutTensor) -> None:
        self._shards = shards
        self._put_tensor = put_tensor
        # Digests of large ranges, by (shard, offset, length), and the bytes of small ones.
        self._digests: dict[tuple[int, int, int], Digest] = {}
        self._small: dict[Stored, bytes] = {}

    # ------------------------------------------------------------ checking

    def check(self, plans: Iterable[Plan]) -> None:
        """Checks every range of numbers, and digests every range that stays where it is.

        Raises:
            ModelRefused: A range has not the checksum that the index gives it.
        """
        names: dict[Stored, str] = {}
        wanted: dict[int, dict[tuple[int, int], None]] = defaultdict(dict)
        for plan in plans:
            if plan.dtype is DType.STRING:
                continue
            for stored, _ in plan.pieces:
                names.setdefault(stored, plan.request.key)
            for shard, offset, length in _large_ranges(plan):
                wanted[shard][offset, length] = None
        for shard, ranges in wanted.items():
            self._scan(shard, list(ranges), names)
        for stored, key in names.items():
            if stored[:3] not in self._digests:
                data = self._shards[stored.shard].read(stored.offset, stored.length)
                self._small[stored] = data
                self._check_checksum(stored, crc32c.crc32c(data), key)

    def _scan(
        self, shard: int, ranges: Sequence[tuple[int, int]], names: Mapping[Stored, str]
    ) -> None:
        """Checks and digests ranges of a data file, beside what follows where that is possible."""
        path = self._shards[shard].path
        beside = present()
        if beside is None or not disjoint(ranges):
            scans = scan(path, ranges)
            self._check_scanned(shard, ranges, [found.crc32c for found in scans], names)
            digests = [found.digest for found in scans]
        else:
            pending = beside.start(
                functools.partial(self._scan_beside, shard, ranges, names, beside.read)
            )
            beside.files[path.absolute()] = PendingDigest(lambda: pending.result().hex)
            # Only some exports ask for these.
            places = [self._shards[shard].location(*place) for place in ranges]
            digests = [
                PendingDigest(functools.cache(functools.partial(_digest_of, place)))
                for place in places
            ]
        for (offset, length), digest in zip(ranges, digests, strict=True):
            self._digests[shard, offset, length] = digest

    def _scan_beside(
        self,
        shard: int,
        ranges: Sequence[tuple[int, int]],
        names: Mapping[Stored, str],
        proceed: Callable[[int], None],
    ) -> Digest:
        """The digest of a whole data file whose ranges are what the index says."""
        checksums, whole = check_whole(self._shards[shard].path, ranges, proceed)
        self._check_scanned(shard, ranges, checksums, names)
        return whole

    def _check_scanned(
        self,
        shard: int,
        ranges: Sequence[tuple[int, int]],
        checksums: Sequence[int],
        names: Mapping[Stored, str],
    ) -> None:
        found = dict(zip(ranges, checksums, strict=True))
        for stored, key in names.items():
            checksum = found.get((stored.offset, stored.length))
            if stored.shard == shard and checksum is not None:
                self._check_checksum(stored, checksum, key)

    def _check_checksum(self, stored: Stored, checksum: int, key: str) -> None:
        if masked(checksum) != stored.checksum:
            raise self._wrong_checksum(stored, key)

    def _wrong_checksum(self, stored: Stored, key: str) -> ModelRefused:
        return damaged(
            f"the {stored.length} bytes of {key!r} from {stored.offset} on do not have the checksum"
            " that the index gives them",
            self._shards[stored.shard].path,
        )

    # ------------------------------------------------------------ values

    def value(self, plan: Plan) -> Value:
        """What a request asked for, out of ranges that were checked."""
        shape = box_shape(plan.box)
        if plan.dtype is DType.STRING:
            parts = [
                (box, self._strings(stored, box, plan.request.key)) for stored, box in plan.pieces
            ]
            return Value(plan.dtype, shape, assemble_strings(plan.box, parts))
        if not plan.pieces:
            return Value(plan.dtype, shape, b"")
        within = plan.within()
        content = self._assembled(plan, shape) if within is None else self._range(plan, *within)
        return Value(plan.dtype, shape, content)

    def _range(self, plan: Plan, first: int, length: int) -> TensorRef | bytes:
        """A value that is one range of one stored range."""
        stored = plan.pieces[0].stored
        shard = self._shards[stored.shard]
        if stored in self._small:
            return self._small[stored][first : first + length]
        offset = stored.offset + first
        if length <= INLINE_BYTES:
            return shard.read(offset, length)
        digest = self._digests[stored.shard, offset, length]
        return TensorRef(digest, plan.dtype, box_shape(plan.box), shard.location(offset, length))

    def _assembled(self, plan: Plan, shape: tuple[int, ...]) -> TensorRef | bytes:
        """A value that no file holds in one piece."""
        shards = {stored.shard for stored, _ in plan.pieces}
        if plan.nbytes > sum(self._shards[shard].status.st_size for shard in shards):
            first = self._shards[plan.pieces[0].stored.shard]
            raise damaged(f"the slices of {plan.request.key!r} lie over each other", first.path)
        parts = []
        for stored, box in plan.pieces:
            descriptor = self._shards[stored.shard].descriptor
            parts.append(Part(box, FileSource(descriptor, stored.offset, stored.length)))
        try:
            data = assemble(plan.box, parts, plan.dtype.item_bytes)
        except EOFError:
            raise damaged("the file is cut short", self._shards[min(shards)].path) from None
        if len(data) <= INLINE_BYTES:
            return bytes(data)
        return self._put_tensor(memoryview(data), plan.dtype, shape)

    # ------------------------------------------------------------ strings

    def _strings(self, stored: Stored, box: Box, key: str) -> tuple[bytes, ...]:
        """The elements of a stored range of strings: lengths, their checksum, then the bytes."""
        shard = self._shards[stored.shard]
        if volume(box) > stored.length:
            raise damaged(
                f"{key!r} takes {stored.length} bytes, too few for its strings", shard.path
            )
        data = shard.read(stored.offset, stored.length)
        try:
            lengths, position = _read_lengths(data, volume(box))
        except Malformed as problem:
            raise damaged(f"the lengths of {key!r}: {problem}", shard.path) from None
        checksum = crc32c.crc32c(packed_lengths(lengths))
        head = position + 4
        if data[position:head] != struct.pack("<I", masked(checksum)):
            raise self._wrong_checksum(stored, key)
        if head + sum(lengths) != len(data):
            raise damaged(f"the strings of {key!r} do not fill their {len(data)} bytes", shard.path)
        if masked(crc32c.crc32c(data[position:], checksum)) != stored.checksum:
            raise self._wrong_checksum(stored, key)
        elements = []
        for length in lengths:
            elements.append(data[head : head + length])
            head += length
        return tuple(elements)


def _digest_of(place: Location) -> str:
    digest = hash_location(place)
    if digest is None:
        raise changed_while_read(place.path)
    return digest.hex


def _large_ranges(plan: Plan) -> Iterator[tuple[int, int, int]]:
    """(shard, offset, length) of what must be scanned: stored ranges, and the wanted range."""
    for stored, _ in plan.pieces:
        if stored.length > INLINE_BYTES:
            yield stored[:3]
    within = plan.within()
    if within is not None and within[1] > INLINE_BYTES:
        stored = plan.pieces[0].stored
        yield stored.shard, stored.offset + within[0], within[1]


def _read_lengths(data: bytes, count: int) -> tuple[list[int], int]:
    lengths = []
    position = 0
    for _ in range(count):
        length, position = read_varint(data, position)
        lengths.append(length)
    return lengths, position


def packed_lengths(lengths: Iterable[int]) -> bytes:
    """String lengths as their checksum takes them: in four bytes each, or eight where needed."""
    return b"".join(
        struct.pack("<I" if length <= _LARGEST_SHORT_STRING else "<Q", length) for length in lengths
    )
