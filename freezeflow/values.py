"""The small typed values that every room passes on: digests, dtypes, shapes, tensors, signatures."""

from __future__ import annotations

import dataclasses
import enum
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import blake3

# A shape: None where the rank is unknown; None in a place where that dimension is unknown.
Shape = tuple[int | None, ...] | None

# What JSON can hold.
Json = Any

# A path as callers of the API may give it.
AnyPath = str | os.PathLike[str]


class Digest(NamedTuple):
    """A BLAKE3-256 digest of some content, as 64 lower-case hex digits.

    Source of the algorithm: the BLAKE3 paper, https://github.com/BLAKE3-team/BLAKE3-specs.
    """

    hex: str

    @staticmethod
    def of(data: bytes | bytearray | memoryview) -> Digest:
        return Digest(blake3.blake3(data).hexdigest())

    def __str__(self) -> str:
        return f"blake3:{self.hex}"

    @staticmethod
    def parse(text: str) -> Digest:
        """Reads what ``str`` wrote; raises ValueError for anything else."""
        algorithm, _, digits = text.partition(":")
        if algorithm != "blake3" or len(digits) != 64 or set(digits) - set("0123456789abcdef"):
            raise ValueError(f"not a digest: {text!r}")
        return Digest(digits)


class DType(enum.IntEnum):
    """TensorFlow's element types, numbered as in upstream ``core/framework/types.proto``.

    A number over 100 is a reference to a tensor of the type ``number - 100`` (TF1 variables).
    """

    INVALID = 0
    FLOAT = 1
    DOUBLE = 2
    INT32 = 3
    UINT8 = 4
    INT16 = 5
    INT8 = 6
    STRING = 7
    COMPLEX64 = 8
    INT64 = 9
    BOOL = 10
    QINT8 = 11
    QUINT8 = 12
    QINT32 = 13
    BFLOAT16 = 14
    QINT16 = 15
    QUINT16 = 16
    UINT16 = 17
    COMPLEX128 = 18
    HALF = 19
    RESOURCE = 20
    VARIANT = 21
    UINT32 = 22
    UINT64 = 23
    FLOAT8_E5M2 = 24
    FLOAT8_E4M3FN = 25
    FLOAT8_E4M3FNUZ = 26
    FLOAT8_E4M3B11FNUZ = 27
    FLOAT8_E5M2FNUZ = 28
    INT4 = 29
    UINT4 = 30
    INT2 = 31
    UINT2 = 32
    FLOAT4_E2M1FN = 33

    @property
    def tf_name(self) -> str:
        """The name that ``tf.DType.name`` gives: ``float32``, ``int64``, ``string``."""
        return _TF_NAMES.get(self, self.name.lower())

    @property
    def item_bytes(self) -> int:
        """Bytes of one element as TensorFlow keeps it in memory; 0 where it has no fixed size."""
        return _ITEM_BYTES.get(self, 0)

    @staticmethod
    def from_tf_name(name: str) -> DType:
        """The type with that ``tf_name``; raises ValueError if there is none."""
        for dtype in DType:
            if dtype.tf_name == name:
                return dtype
        raise ValueError(f"unknown dtype {name!r}")


_TF_NAMES = {DType.FLOAT: "float32", DType.DOUBLE: "float64", DType.HALF: "float16"}

_ITEM_BYTES = {
    DType.FLOAT: 4,
    DType.DOUBLE: 8,
    DType.INT32: 4,
    DType.UINT8: 1,
    DType.INT16: 2,
    DType.INT8: 1,
    DType.COMPLEX64: 8,
    DType.INT64: 8,
    DType.BOOL: 1,
    DType.QINT8: 1,
    DType.QUINT8: 1,
    DType.QINT32: 4,
    DType.BFLOAT16: 2,
    DType.QINT16: 2,
    DType.QUINT16: 2,
    DType.UINT16: 2,
    DType.COMPLEX128: 16,
    DType.HALF: 2,
    DType.UINT32: 4,
    DType.UINT64: 8,
    DType.FLOAT8_E5M2: 1,
    DType.FLOAT8_E4M3FN: 1,
    DType.FLOAT8_E4M3FNUZ: 1,
    DType.FLOAT8_E4M3B11FNUZ: 1,
    DType.FLOAT8_E5M2FNUZ: 1,
    # TensorFlow keeps one sub-byte element in each byte.
    DType.INT4: 1,
    DType.UINT4: 1,
    DType.INT2: 1,
    DType.UINT2: 1,
    DType.FLOAT4_E2M1FN: 1,
}


class Location(NamedTuple):
    """Where bytes lie: a range of a file, with the file's identity when it was read.

    Args:
        path: The file, absolute.
        offset: First byte.
        length: Number of bytes.
        mtime_ns: Modification time of the file when its bytes were hashed.
        file_bytes: Size of the whole file at that time.
        inode: Its inode at that time.
    """

    path: str
    offset: int
    length: int
    mtime_ns: int
    file_bytes: int
    inode: int


class TensorRef(NamedTuple):
    """A tensor whose bytes lie out of line: row-major, little-endian, as TensorFlow keeps them.

    Args:
        digest: BLAKE3 of the bytes.
        dtype: Element type (never string).
        shape: Fully known shape.
        location: Where the bytes are now; not part of the tensor's identity.
    """

    digest: Digest
    dtype: DType
    shape: tuple[int, ...]
    location: Location

    @property
    def nbytes(self) -> int:
        return self.location.length


@dataclasses.dataclass(frozen=True, slots=True)
class TensorSpec:
    """One named end of a signature: the tensor (``node:0``) with its dtype and shape."""

    tensor: str
    dtype: DType
    shape: Shape

    def to_json(self) -> Json:
        return {
            "tensor": self.tensor,
            "dtype": self.dtype.tf_name,
            "shape": None if self.shape is None else list(self.shape),
        }

    @staticmethod
    def from_json(data: Json) -> TensorSpec:
        shape = data["shape"]
        return TensorSpec(
            data["tensor"],
            DType.from_tf_name(data["dtype"]),
            None if shape is None else tuple(shape),
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Signature:
    """Named inputs and outputs of one way to call a model; keys in sorted order."""

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]

    def to_json(self) -> Json:
        return {
            "inputs": {key: spec.to_json() for key, spec in self.inputs.items()},
            "outputs": {key: spec.to_json() for key, spec in self.outputs.items()},
        }

    @staticmethod
    def from_json(data: Json) -> Signature:
        return Signature(
            {key: TensorSpec.from_json(spec) for key, spec in data["inputs"].items()},
            {key: TensorSpec.from_json(spec) for key, spec in data["outputs"].items()},
        )


SourceKind = Literal["saved_model", "keras", "checkpoint", "frozen_graph"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """Where a model comes from and which part of it is wanted: a recipe's ``model:`` block, parsed.

    Args:
        kind: Which reader takes it.
        path: The SavedModel folder, the Keras file, the checkpoint's prefix, or the graph file.
        meta_graph: For a checkpoint: its ``.meta`` file; by default the prefix with ``.meta``.
        tags: The meta graph's tag set; None for the usual choice.
        signatures: Names of signatures; None for ``serving_default``, else the only one.
        inputs: For graphs without signatures: tensor names to feed.
        outputs: For graphs without signatures: tensor names to fetch.
        custom_objects: For Keras files: Python modules with the model's own layers and functions.
        weights: Prefix of another checkpoint whose values are taken instead of the model's own.
        averages: Take the moving averages of the variables that have one.
    """

    kind: SourceKind
    path: Path
    meta_graph: Path | None = None
    tags: tuple[str, ...] | None = None
    signatures: tuple[str, ...] | None = None
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    custom_objects: tuple[str, ...] = ()
    weights: Path | None = None
    averages: bool = False

    @property
    def needs_tensorflow(self) -> bool:
        """Whether reading it takes TensorFlow, in a confined process."""
        return self.kind == "keras"

    def to_json(self) -> Json:
        return {
            "kind": self.kind,
            "path": str(self.path),
            "meta_graph": None if self.meta_graph is None else str(self.meta_graph),
            "tags": self.tags,
            "signatures": self.signatures,
            "inputs": self.inputs,
            "outputs": self.outputs,
            "custom_objects": self.custom_objects,
            "weights": None if self.weights is None else str(self.weights),
            "averages": self.averages,
        }

    @staticmethod
    def from_json(data: Json) -> ModelSource:
        def names(key: str) -> tuple[str, ...] | None:
            return None if data[key] is None else tuple(data[key])

        return ModelSource(
            kind=data["kind"],
            path=Path(data["path"]),
            meta_graph=None if data["meta_graph"] is None else Path(data["meta_graph"]),
            tags=names("tags"),
            signatures=names("signatures"),
            inputs=tuple(data["inputs"]),
            outputs=tuple(data["outputs"]),
            custom_objects=tuple(data["custom_objects"]),
            weights=None if data["weights"] is None else Path(data["weights"]),
            averages=data["averages"],
        )
