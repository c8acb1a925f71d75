"""Signatures from their messages. Source of the format: ``core/protobuf/meta_graph.proto``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from freezeflow.graph import attrs
from freezeflow.graph.graph import join, split
from freezeflow.values import DType, Signature, TensorSpec


def read_signature(message: Any) -> Signature:
    """The signature of a ``SignatureDef``; keys in sorted order.

    A sparse tensor becomes three ends (``key.indices``, ``key.values``, ``key.dense_shape``), any
    other composite one end for each component (``key.0``, ``key.1``).
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
        yield f"{key}.indices", _spec(sparse.indices_tensor_name, DType.INT64, (None, rank))
        yield f"{key}.values", _spec(sparse.values_tensor_name, DType(info.dtype), (None,))
        yield f"{key}.dense_shape", _spec(sparse.dense_shape_tensor_name, DType.INT64, (rank,))
    elif encoding == "composite_tensor":
        for number, component in enumerate(info.composite_tensor.components):
            yield from _parts(f"{key}.{number}", component)
    else:
        yield key, _spec(info.name, DType(info.dtype % 100), attrs.read_shape(info.tensor_shape))


def _spec(tensor: str, dtype: DType, shape: tuple[int | None, ...] | None) -> TensorSpec:
    return TensorSpec(join(*split(tensor)), dtype, shape)
