"""Signatures from their messages. Source of the format: ``core/protobuf/meta_graph.proto``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from freezeflow.errors import ModelRefused
from freezeflow.graph import attrs
from freezeflow.graph.graph import join, split
from freezeflow.values import DType, Shape, Signature, TensorSpec


def read_signature(message: Any) -> Signature:
    """The signature of a ``SignatureDef``; keys in sorted order.

    A sparse tensor becomes three ends (``key.indices``, ``key.values``, ``key.dense_shape``), any
    other composite one end for each component (``key.0``, ``key.1``).

    Raises:
        ModelRefused: An end has a dtype that is not known, or names no tensor.
    """
    return Signature(_ends(message.inputs), _ends(message.outputs))


def ends_of(signatures: Mapping[str, Signature]) -> list[str]:
    """Every tensor that signatures name."""
    return [
        spec.tensor
        for signature in signatures.values()
        for side in (signature.inputs, signature.outputs)
        for spec in side.values()
    ]


def _ends(infos: Any) -> dict[str, TensorSpec]:
    return {key: spec for name in sorted(infos) for key, spec in _parts(name, infos[name])}


def _parts(key: str, info: Any) -> Iterator[tuple[str, TensorSpec]]:
    encoding = info.WhichOneof("encoding")
    if encoding == "coo_sparse":
        shape = attrs.read_shape(info.tensor_shape)
        rank = None if shape is None else len(shape)
        sparse = info.coo_sparse
        yield f"{key}.indices", _spec(key, sparse.indices_tensor_name, DType.INT64, (None, rank))
        yield f"{key}.values", _spec(key, sparse.values_tensor_name, info.dtype, (None,))
        yield f"{key}.dense_shape", _spec(key, sparse.dense_shape_tensor_name, DType.INT64, (rank,))
    elif encoding == "composite_tensor":
        for number, component in enumerate(info.composite_tensor.components):
            yield from _parts(f"{key}.{number}", component)
    else:
        yield key, _spec(key, info.name, info.dtype, attrs.read_shape(info.tensor_shape))


def _spec(key: str, tensor: str, dtype: int, shape: Shape) -> TensorSpec:
    try:
        # A TF1 variable's reference is fetched as its value.
        return TensorSpec(join(*split(tensor)), DType(dtype % 100), shape)
    except ValueError:
        raise ModelRefused(
            f"{key!r} of a signature is {tensor!r} of dtype number {dtype}, which is no tensor",
            hint="The file is damaged or was edited; write the model again.",
        ) from None
