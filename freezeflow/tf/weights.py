"""Large constants of a graph that is about to run, kept in files that TensorFlow maps into memory.

A constant in a graph is there four times as soon as a session runs it, and Grappler folds and copies it.
``ImmutableConst`` maps a file instead. But where no optimiser runs, nobody holds on to what that gives, so
the op behind it may write into it to spare a copy, and the process dies: it is memory to read only.
Therefore each file is mapped once, before the first call, into a variable, which the graph reads.
Source of the ops: upstream ``core/kernels/immutable_constant_op.cc``,
``core/kernels/resource_variable_ops.cc``; of the writing: ``OpKernelContext::forward_input``.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

from freezeflow.graph.graph import Graph
from freezeflow.graph.model import Model
from freezeflow.graph.weights import NO_VARIABLES, as_mapped_files
from freezeflow.graph.write import copy_range

v1 = tf.compat.v1

# More than this Grappler would fold and copy, when models run as they are served.
_MOST_FOLDED_BYTES = 512 * 1024 * 1024

# Below, a constant is no burden, and files would be.
_LEAST_MAPPED_BYTES = 64 * 1024

# What the first output of a constant is called inside of functions, by op.
_OUTPUTS = {"Const": "output", "ImmutableConst": "tensor"}


class Weight(NamedTuple):
    """A variable that holds what a file does.

    Args:
        name: What the session knows it by.
        dtype: Number of its dtype.
        shape: Its ``TensorShapeProto``.
        file: The file.
    """

    name: str
    dtype: int
    shape: Any
    file: str


def where_mapped(scratch: Path, nbytes: int, *, exact: bool) -> Path | None:
    """The folder, if a model's large constants are to be mapped from there while it is compared.

    Args:
        scratch: The folder.
        nbytes: Bytes of the model's weights.
        exact: No optimiser runs, so it makes no difference to the result. Where models run as they are
            served, only what Grappler should not fold and copy is kept from it.
    """
    return scratch if exact or nbytes > _MOST_FOLDED_BYTES else None


def mapped_graph(model: Model, scratch: Path) -> Graph:
    """A model's graph with its large constants in files of a new folder, as ``ImmutableConst``."""
    folder = _new_folder(scratch)
    mapped, files = as_mapped_files(
        model, lambda tensor: str(folder / tensor.digest.hex), least_bytes=_LEAST_MAPPED_BYTES
    )
    for path, tensor in files.items():
        copy_range(tensor.location, Path(path))
    return mapped.graph


def map_constants(graph_def: Any, scratch: Path) -> None:
    """Puts large constants of a ``GraphDef``, as TensorFlow has read them, into files of a new folder."""
    folder = _new_folder(scratch)
    for number, (nodes, function) in enumerate(_bodies(graph_def)):
        moved: dict[str, str] = {}
        for position, node in enumerate(nodes):
            if node.op == "Const" and _is_large(node.attr["value"].tensor):
                moved |= _renamed(node, "ImmutableConst", "tensor")
                _map(node, folder / f"{number}-{position}")
        _follow(nodes, function, moved)


def read_mapped(graph_def: Any) -> list[Weight]:
    """Has a ``GraphDef`` read mapped files from variables; returns those, to be filled by `filled`."""
    weights: dict[str, Weight] = {}
    for nodes, function in _bodies(graph_def):
        moved: dict[str, str] = {}
        handles = []
        taken = {node.name for node in nodes}
        for node in nodes:
            if node.op != "ImmutableConst" or node.attr["dtype"].type in _NO_VARIABLES:
                continue
            weight = _weight(node)
            weights[weight.name] = weight
            moved |= _renamed(node, "ReadVariableOp", "value")
            handles.append(_read(node, weight, taken, in_function=function is not None))
        nodes.extend(handles)
        _follow(nodes, function, moved)
    return list(weights.values())


def _weight(node: Any) -> Weight:
    """What a mapped constant says."""
    dtype, file = node.attr["dtype"].type, node.attr["memory_region_name"].s.decode()
    shape = v1.AttrValue.FromString(node.attr["shape"].SerializeToString()).shape
    # The same file may be there with several shapes.
    return Weight(f"{file} {dtype} {list(_sizes(shape))}", dtype, shape, file)


def filled(graph: Any, weights: list[Weight]) -> tuple[str, ...]:
    """The ops to run once in a session before the first call, so that the variables are there."""
    with graph.as_default():
        made = [
            tf.raw_ops.AssignVariableOp(
                resource=tf.raw_ops.VarHandleOp(
                    dtype=weight.dtype, shape=weight.shape, shared_name=weight.name
                ),
                value=tf.raw_ops.ImmutableConst(
                    dtype=weight.dtype, shape=weight.shape, memory_region_name=weight.file
                ),
            )
            for weight in weights
        ]
        return (tf.group(*made).name,) if made else ()


_NO_VARIABLES = frozenset(int(dtype) for dtype in NO_VARIABLES)


def _new_folder(scratch: Path) -> Path:
    return Path(tempfile.mkdtemp(prefix="weights-", dir=scratch))


def _bodies(graph_def: Any) -> Iterator[tuple[Any, Any]]:
    """The nodes of the main graph and of each function, and the function (None for the main graph)."""
    yield graph_def.node, None
    for function in graph_def.library.function:
        yield function.node_def, function


def _is_large(tensor: Any) -> bool:
    """Whether a tensor is large, and lies in its message as it does in memory."""
    nbytes = len(tensor.tensor_content)
    if nbytes < _LEAST_MAPPED_BYTES:
        return False
    return bool(nbytes == math.prod(_sizes(tensor.tensor_shape)) * tf.as_dtype(tensor.dtype).size)


def _sizes(shape: Any) -> Iterator[int]:
    return (dim.size for dim in shape.dim)


def _renamed(node: Any, op: str, output: str) -> dict[str, str]:
    """Gives a constant another op; how its output is called inside of functions, before and then."""
    before = f"{node.name}:{_OUTPUTS[node.op]}:0"
    node.op = op
    return {before: f"{node.name}:{output}:0"}


def _map(node: Any, file: Path) -> None:
    tensor = node.attr["value"].tensor
    file.write_bytes(tensor.tensor_content)
    _set(
        node,
        dtype=v1.AttrValue(type=tensor.dtype),
        shape=v1.AttrValue(shape=tensor.tensor_shape),
        memory_region_name=v1.AttrValue(s=str(file).encode()),
    )


def _read(node: Any, weight: Weight, taken: set[str], *, in_function: bool) -> Any:
    """Has a node read a variable; returns the node of the variable's handle."""
    name = f"{node.name}/variable"
    while name in taken:
        name += "_"
    taken.add(name)
    # What it waits for says in which frame of a loop it runs.
    waits = list(node.input)
    handle = v1.NodeDef(name=name, op="VarHandleOp", input=waits, device=node.device)
    dtype = v1.AttrValue(type=weight.dtype)
    _set(
        handle,
        dtype=dtype,
        shape=v1.AttrValue(shape=weight.shape),
        shared_name=v1.AttrValue(s=weight.name.encode()),
    )
    node.input[:] = [f"{name}:resource:0" if in_function else name, *waits]
    _set(node, dtype=dtype)
    return handle


def _set(node: Any, **values: Any) -> None:
    node.ClearField("attr")
    for key, value in values.items():
        node.attr[key].CopyFrom(value)


def _follow(nodes: Any, function: Any, moved: dict[str, str]) -> None:
    """Names outputs as they are called now; only functions name them by what their op calls them."""
    if function is None or not moved:
        return
    for node in nodes:
        node.input[:] = [moved.get(tensor, tensor) for tensor in node.input]
    for result in function.ret:
        function.ret[result] = moved.get(function.ret[result], function.ret[result])
