"""What a checkpoint holds and what one asks of it, whatever its format."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from freezeflow.checkpoint.coding import Malformed
from freezeflow.checkpoint.slices import Box, parse_spec, whole
from freezeflow.errors import ModelRefused
from freezeflow.store.stand_ins import stand_in
from freezeflow.values import DType, TensorRef

# A value of more bytes stays out of line, as a reference to where its bytes lie.
INLINE_BYTES = 1024

# TensorFlow's own bound on the number of dimensions.
_MAX_RANK = 254

# Takes bytes that lie nowhere in one piece (row-major, little-endian), says where they are now.
PutTensor = Callable[[memoryview, DType, tuple[int, ...]], TensorRef]


class Request(NamedTuple):
    """A tensor that is wanted.

    Args:
        key: Its key in the checkpoint.
        slice_spec: Which part, as RestoreV2 takes it: the full shape, then ``start,length`` or
            ``-`` for each dimension, as in ``4 2 0,2:-``. Empty for all of it.
    """

    key: str
    slice_spec: str = ""


class Value(NamedTuple):
    """A tensor that was fetched and checked.

    Args:
        dtype: Element type.
        shape: Shape of what was asked for.
        content: Where the bytes are; or the bytes themselves (row-major, little-endian), at most
            ``INLINE_BYTES``; or the elements of a string tensor in row-major order.
    """

    dtype: DType
    shape: tuple[int, ...]
    content: TensorRef | bytes | tuple[bytes, ...]


class Entry(NamedTuple):
    """A tensor of a checkpoint, as its index describes it.

    Args:
        key: Its key.
        dtype: Element type.
        shape: Full shape, also where only slices of it are stored.
        nbytes: Bytes of its data; 0 for strings of V1, whose index does not tell.
        slices: For a tensor stored in slices, each one's (start, length) in every dimension.
        checksum: Of its bytes, where the index tells it.
    """

    key: str
    dtype: DType
    shape: tuple[int, ...]
    nbytes: int
    slices: tuple[Box, ...] = ()
    checksum: int | None = None


class Checkpoint(Protocol):
    """An open checkpoint of either format."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that it consists of, whether they are there or not; the index first."""

    def keys(self) -> tuple[str, ...]:
        """All keys, sorted."""

    def entries(self) -> tuple[Entry, ...]:
        """A description of every tensor, sorted by key; reads no data."""

    def describe(self, key: str) -> Entry:
        """The description of one tensor; raises ModelRefused where there is none."""

    def fetch(self, requests: Sequence[Request], put_tensor: PutTensor) -> list[Value]:
        """Reads and checks tensors, each byte once.

        Args:
            requests: What is wanted; the same tensor may be asked for several times.
            put_tensor: Takes the bytes of a value that is too large to be kept in memory and lies
                in no file in one piece.

        Raises:
            ModelRefused: A tensor or a file is missing, short, damaged, or of another shape.
        """


# ---------------------------------------------------------------- checks that both formats share


def checked_dtype(number: int, key: str, where: Path) -> DType:
    """A dtype by its number, one whose values can be read from a file."""
    try:
        dtype = DType(number)
    except ValueError:
        raise damaged(f"the dtype of {key!r} is {number}, which is not known", where) from None
    if dtype is DType.INVALID:
        raise damaged(f"{key!r} has no dtype", where)
    return dtype


def checked_shape(message: object, key: str, where: Path) -> tuple[int, ...]:
    """The fully known shape of a ``TensorShapeProto``."""
    sizes = tuple(dim.size for dim in message.dim)  # type: ignore[attr-defined]
    if message.unknown_rank or min(sizes, default=0) < 0 or len(sizes) > _MAX_RANK:  # type: ignore[attr-defined]
        raise damaged(f"the shape of {key!r} is not a known one", where)
    return sizes


def wanted_box(request: Request, shape: tuple[int, ...], where: Path) -> Box:
    """The part of a tensor of this shape that a request asks for."""
    if not request.slice_spec:
        return whole(shape)
    try:
        full_shape, box = parse_spec(request.slice_spec)
    except Malformed as problem:
        raise damaged(f"the graph asks for a part of {request.key!r}: {problem}", where) from None
    if full_shape != shape:
        raise ModelRefused(
            f"{request.key!r} has the shape {list(shape)}, the graph asks for a part of"
            f" {list(full_shape)}",
            where=str(where),
            hint="Graph and checkpoint do not belong together.",
        )
    return box


def key_text(key: bytes) -> str:
    """A key as text, whatever its bytes."""
    return key.decode(errors="surrogateescape")


def tensor_bytes(dtype: DType, shape: Iterable[int]) -> int:
    """Bytes of a tensor in memory; 0 for strings."""
    return math.prod(shape) * dtype.item_bytes


def refuse_unreadable(dtype: DType, key: str, where: Path) -> None:
    """Refuses what is neither numbers nor strings."""
    if dtype is not DType.STRING and dtype.item_bytes == 0:
        raise ModelRefused(
            f"{key!r} holds {dtype.tf_name} values, which cannot become a constant",
            where=str(where),
            hint="Leave that variable out of what is frozen, or keep it in a SavedModel.",
        )


def no_such_key(key: str, known: Iterable[str], where: Path) -> ModelRefused:
    """The refusal of a key that is not there, with those that look like it."""
    near = difflib.get_close_matches(key, list(known), n=3, cutoff=0.6)
    hint = (
        f"Near it are: {', '.join(near)}."
        if near
        else "Graph and checkpoint do not belong together."
    )
    return ModelRefused(f"no tensor {key!r} in the checkpoint", where=str(where), hint=hint)


def damaged(message: str, where: Path) -> ModelRefused:
    """The refusal of a file that contradicts itself, or is another one altogether."""
    return stand_in(where) or ModelRefused(
        message,
        where=str(where),
        hint="The file is damaged or incomplete; copy or write the checkpoint again.",
    )
