"""Signatures from their messages. Source of the format: ``core/protobuf/meta_graph.proto``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from freezeflow.errors import ModelRefused
from freezeflow.graph import attrs
from freezeflow.graph.graph import join, split
from freezeflow.graph.read import GraphReader
from freezeflow.sources.tensor_names import SIGNATURE, signature_of_names
from freezeflow.suggestions import near_miss
from freezeflow.values import DType, ModelSource, Shape, Signature, TensorSpec

# The signature that runs the initialisers.
INIT_SIGNATURE = "__saved_model_init_op"

# Signatures that run something once; nobody calls them to predict.
INTERNAL_SIGNATURES = frozenset({INIT_SIGNATURE, "__saved_model_train_op"})


def signatures_of(
    meta_graph: Any, reader: GraphReader, source: ModelSource, path: Path
) -> dict[str, Signature]:
    """The wanted signatures of a meta graph, or one of the tensors that the source names.

    Raises:
        ModelRefused: A signature or tensor is not there, or the choice is not clear.
    """
    without = source.kind == "checkpoint" and not meta_graph.signature_def
    if source.outputs or without:
        names = signature_of_names(reader.graph(), source.inputs, source.outputs, str(path))
        return {SIGNATURE: names}
    chosen = choose_signatures(meta_graph.signature_def, source.signatures, path)
    return {name: read_signature(meta_graph.signature_def[name]) for name in chosen}


def choose_signatures(
    there: Mapping[str, Any], wanted: Sequence[str] | None, path: Path
) -> tuple[str, ...]:
    """Names of the signatures to read, sorted; ``("all",)`` stands for every one.

    Raises:
        ModelRefused: A wanted one is missing, or the choice is not clear.
    """
    names = sorted(set(there) - INTERNAL_SIGNATURES)
    listed = ", ".join(names)
    if not names:
        raise ModelRefused(
            "the model has no signatures",
            where=str(path),
            hint="Save it with signatures=..., or give the tensors with --inputs and --outputs.",
        )
    if wanted is None:
        if "serving_default" in names:
            return ("serving_default",)
        if len(names) == 1:
            return (names[0],)
        raise ModelRefused(
            f"the model has several signatures and none is called serving_default: {listed}",
            where=str(path),
            hint="Choose with --signature NAME (in a recipe: signatures: [NAME]).",
        )
    if tuple(wanted) == ("all",) and "all" not in names:
        return tuple(names)
    for name in wanted:
        if name not in names:
            near = near_miss(name, names)
            meant = f"Did you mean {near!r}? " if near else ""
            raise ModelRefused(
                f"the model has no signature {name!r}",
                where=str(path),
                hint=f"{meant}Its signatures are: {listed}.",
            )
    return tuple(sorted(set(wanted)))


def read_signature(message: Any) -> Signature:
    """The signature of a ``SignatureDef``; keys in sorted order.

    A composite tensor becomes an end for each component (``key.0``, ``key.1``), in the order of
    ``tf.nest.flatten(value, expand_composites=True)``: indices, values, dense shape of a sparse one.

    Raises:
        ModelRefused: An end has a dtype that is not known, names no tensor, or has the name of
            another one's component.
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
    ends: dict[str, TensorSpec] = {}
    for name in sorted(infos):
        for key, spec in _parts(name, infos[name]):
            if key in ends:
                raise ModelRefused(
                    f"a signature has an end {key!r} and a composite one with a component of that"
                    " name",
                    hint="Call one of them something else and save the model again.",
                )
            ends[key] = spec
    return ends


def _parts(key: str, info: Any) -> Iterator[tuple[str, TensorSpec]]:
    encoding = info.WhichOneof("encoding")
    if encoding == "coo_sparse":
        shape = attrs.read_shape(info.tensor_shape)
        rank = None if shape is None else len(shape)
        sparse = info.coo_sparse
        yield f"{key}.0", _spec(key, sparse.indices_tensor_name, DType.INT64, (None, rank))
        yield f"{key}.1", _spec(key, sparse.values_tensor_name, info.dtype, (None,))
        yield f"{key}.2", _spec(key, sparse.dense_shape_tensor_name, DType.INT64, (rank,))
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
