"""Whether ONNX, and its runtime on a processor, compute a model's ops with the element types that it has.

The tables are those of the packages themselves: the schemas of ``onnx``, and the kernels that ONNX Runtime
registers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from freezeflow.errors import ModelRefused
from freezeflow.runtimes.onnx_runtime import DOMAINS, Kernel, kernels

# For these ONNX Runtime computes in float32 where it has no kernel of its own.
_HALF = "tensor(float16)"


class _Found(NamedTuple):
    op: str
    name: str
    dtype: str
    by: str


def look_at_types(proto: Any, *, runs: bool) -> None:
    """Lets a model pass whose ops are there for its element types.

    Args:
        proto: The ModelProto, whose nodes still have names after TensorFlow's.
        runs: ONNX Runtime has to run it.

    Raises:
        ModelRefused: It has an op for which there is none; the message names op, node and element type.
    """
    import onnx

    version = next(each.version for each in proto.opset_import if each.domain in DOMAINS)
    known = kernels(version) if runs else None
    inferred = onnx.shape_inference.infer_shapes(proto)
    found = next(_lacking(inferred.graph, {}, version, known), None)
    if found is None:
        return
    raise ModelRefused(
        f"{found.by} has no {found.op} of {found.dtype} ({found.name})",
        where=found.name,
        hint="Let the model compute that in float32 or int32, or export a signature that does without.",
    )


def _lacking(
    graph: Any, outer: Mapping[str, str], version: int, known: Mapping[str, list[Kernel]] | None
) -> Iterator[_Found]:
    import onnx

    types = {**outer, **_types(graph)}
    for node in graph.node:
        if node.domain not in DOMAINS:
            continue
        schema = onnx.defs.get_schema(node.op_type, version)
        bound = dict(_bound(node, schema, types))
        for constraint in schema.type_constraints:
            dtype = bound.get(constraint.type_param_str)
            if dtype is not None and dtype not in constraint.allowed_type_strs:
                yield _Found(node.op_type, _origin(node.name), _plain(dtype), "ONNX")
        if known is not None and not schema.has_function:
            dtype = _without_kernel(bound, known.get(node.op_type, []))
            if dtype:
                yield _Found(node.op_type, _origin(node.name), _plain(dtype), "ONNX Runtime")
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _lacking(attribute.g, types, version, known)


def _without_kernel(bound: Mapping[str, str], offered: list[Kernel]) -> str:
    """The element type for which none of an op's kernels is; empty if there is one, or none at all."""
    if not offered or _HALF in bound.values():
        return ""
    lacks = [
        [dtype for key, dtype in bound.items() if dtype not in kernel.get(key, [dtype])]
        for kernel in offered
    ]
    return "" if [] in lacks else min(lacks, key=len)[0]


def _bound(node: Any, schema: Any, types: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Parameters of a schema's types with what a node has in their place, as far as that is known."""
    for names, formal in ((node.input, schema.inputs), (node.output, schema.outputs)):
        for place, name in enumerate(names):
            last = formal[min(place, len(formal) - 1)]
            if name in types:
                yield last.type_str, types[name]


def _types(graph: Any) -> dict[str, str]:
    import onnx

    words = {value: f"tensor({name.lower()})" for name, value in onnx.TensorProto.DataType.items()}
    found = {
        each.name: words[each.type.tensor_type.elem_type]
        for each in (*graph.input, *graph.output, *graph.value_info)
        if each.type.HasField("tensor_type") and each.type.tensor_type.elem_type
    }
    return found | {each.name: words[each.data_type] for each in graph.initializer}


def _origin(name: str) -> str:
    """The node of TensorFlow's that tf2onnx has named one after."""
    return name.split("__", maxsplit=1)[0]


def _plain(dtype: str) -> str:
    """``float64`` for ``tensor(double)``."""
    word = dtype.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(word, word)
