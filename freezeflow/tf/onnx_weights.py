"""Weights that the converter to ONNX does not see, and the file beside a model that holds weights.

tf2onnx makes several copies of every constant. In place of a large one it gets an input of the same
dtype and shape; afterwards the input becomes an initializer again, whose bytes are copied from the file where
they lie.

Source of the format: "External Data" on the ONNX project's page, docs/ExternalData.md.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from freezeflow.graph import attrs
from freezeflow.graph.graph import Node
from freezeflow.graph.model import Model
from freezeflow.graph.write import read_range
from freezeflow.store.files import write_atomically
from freezeflow.tf.onnx_form import names_taken
from freezeflow.values import DType, Location, TensorRef

# Whose elements ONNX keeps as TensorFlow does, and the numbers that they have there.
_TYPES = {
    DType.FLOAT: 1,
    DType.UINT8: 2,
    DType.INT8: 3,
    DType.UINT16: 4,
    DType.INT16: 5,
    DType.INT32: 6,
    DType.INT64: 7,
    DType.BOOL: 9,
    DType.HALF: 10,
    DType.DOUBLE: 11,
    DType.UINT32: 12,
    DType.UINT64: 13,
}
# Of which size on the converter gets a stand-in: the first by which little enough is left to it.
# Below the last, numbers may be what an op's form follows from: axes, paddings, shapes.
_SIZES = (1 << 20, 1 << 16, 1 << 12)
_LITTLE_BYTES = 1 << 26
# Smaller ones stay in the model.
_LEAST_OUTSIDE = 1 << 10
# So that readers can map the file.
_PAGE = 4096
_SLAB_BYTES = 1 << 24


class Weight(NamedTuple):
    """Contents of an initializer: a tensor of TensorFlow's, its axes in another order.

    Args:
        tensor: The tensor.
        axes: The initializer's axes by the tensor's.
    """

    tensor: TensorRef
    axes: tuple[int, ...]

    @property
    def key(self) -> str:
        """The same for the same bytes."""
        return f"{self.tensor.digest} {self.tensor.shape} {self.axes}"

    def pieces(self) -> Iterator[bytes | Location]:
        """The bytes in the initializer's order."""
        if self.axes == tuple(range(len(self.axes))):
            yield self.tensor.location
            return
        place, shape = self.tensor.location, self.tensor.shape
        dtype = np.dtype(self.tensor.dtype.tf_name).newbyteorder("<")
        view = np.memmap(place.path, dtype, "r", place.offset, shape).transpose(self.axes)
        rows = max(1, _SLAB_BYTES * len(view) // place.length)
        for first in range(0, len(view), rows):
            yield view[first : first + rows].tobytes()


def with_stand_ins(model: Model) -> tuple[Model, dict[str, Weight]]:
    """The model with placeholders for large constants, and these by the placeholder's name.

    Constants in the bodies of functions stay: a body has no inputs of its own. So does one that is an
    output.
    """
    (signature,) = model.signatures.values()
    outputs = {spec.tensor for spec in signature.outputs.values()}
    large = {
        name: node.tensor
        for name, node in model.graph.nodes.items()
        if node.tensor is not None
        and node.tensor.dtype in _TYPES
        and node.tensor.nbytes
        and name not in outputs
    }
    least = _least([tensor.nbytes for tensor in large.values()])
    weights = {
        name: Weight(tensor, tuple(range(len(tensor.shape))))
        for name, tensor in large.items()
        if tensor.nbytes >= least
    }
    nodes = {**model.graph.nodes}
    for name, (tensor, _) in weights.items():
        values = {"dtype": attrs.of_type(tensor.dtype), "shape": attrs.of_shape(tensor.shape)}
        nodes[name] = Node(name, "Placeholder", nodes[name].inputs, values)
    graph = dataclasses.replace(model.graph, nodes=nodes)
    return dataclasses.replace(model, graph=graph), weights


def put_back(proto: Any, weights: Mapping[str, Weight]) -> dict[str, Weight]:
    """Turns the inputs that stand for weights into initializers whose contents lie elsewhere.

    Their ``location`` is the name under which the result has their contents, until `move_out` sets it.

    Args:
        proto: The ModelProto, changed in place.
        weights: By the input's name.
    """
    graph = proto.graph
    inputs = {value.name for value in graph.input} - weights.keys()
    kept = [value for value in graph.input if value.name in inputs]
    copies = [type(value).FromString(value.SerializeToString()) for value in kept]
    del graph.input[:]
    graph.input.extend(copies)
    used = Counter(name for node in graph.node for name in names_taken(node))
    found = dict(_transposed(graph, {n: w for n, w in weights.items() if used[n]}, used))
    for name, (tensor, axes) in found.items():
        made = graph.initializer.add(name=name, data_type=_TYPES[tensor.dtype])
        made.dims.extend(tensor.shape[axis] for axis in axes)
        _set_place(made, location=name)
    return found


def move_in(proto: Any, weights: Mapping[str, Weight]) -> None:
    """Puts the contents into the model itself.

    Args:
        proto: The ModelProto, changed in place.
        weights: What `put_back` gave.
    """
    for tensor in _tensors(proto.graph):
        if not tensor.external_data:
            continue
        pieces = weights[tensor.external_data[0].value].pieces()
        tensor.raw_data = b"".join(
            read_range(piece) if isinstance(piece, Location) else piece for piece in pieces
        )
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")


def move_out(proto: Any, weights: Mapping[str, Weight], to: Path) -> None:
    """Puts the contents of all but small tensors into one file, in the order of the model.

    Args:
        proto: The ModelProto, changed in place.
        weights: What `put_back` gave.
        to: The model's file; the other one, of the same name and ``.data``, lies beside it.
    """
    write_atomically(f"{to}.data", _moved_out(proto, weights, f"{to.name}.data"))


def _moved_out(proto: Any, weights: Mapping[str, Weight], name: str) -> Iterator[bytes | Location]:
    end = 0
    places: dict[str, int] = {}
    for tensor in _tensors(proto.graph):
        if tensor.external_data:
            weight = weights[tensor.external_data[0].value]
            key, length, pieces = weight.key, weight.tensor.nbytes, weight.pieces()
        elif len(tensor.raw_data) >= _LEAST_OUTSIDE:
            data = tensor.raw_data
            key, length, pieces = "", len(data), iter([data])
            tensor.ClearField("raw_data")
        else:
            continue
        start = places.get(key, -1)
        if start < 0:
            start = math.ceil(end / _PAGE) * _PAGE
            yield bytes(start - end)
            yield from pieces
            end = start + length
        if key:
            places[key] = start
        _set_place(tensor, location=name, offset=start, length=length)


def _least(sizes: list[int]) -> int:
    for least in _SIZES:
        if sum(size for size in sizes if size < least) <= _LITTLE_BYTES:
            break
    return least


def _transposed(
    graph: Any, weights: Mapping[str, Weight], used: Mapping[str, int]
) -> Iterator[tuple[str, Weight]]:
    """The weights; where all that is done with one is to transpose it, that is done here."""
    outputs = {value.name for value in graph.output}
    left = dict(weights)
    nodes = []
    for node in graph.node:
        weight = left.get(node.input[0]) if node.op_type == "Transpose" else None
        if weight is None or used[node.input[0]] > 1 or node.output[0] in outputs:
            nodes.append(type(node).FromString(node.SerializeToString()))
            continue
        del left[node.input[0]]
        axes = [list(each.ints) for each in node.attribute if each.name == "perm"]
        order = axes[0] if axes else reversed(range(len(weight.axes)))
        yield node.output[0], weight._replace(axes=tuple(weight.axes[axis] for axis in order))
    del graph.node[:]
    graph.node.extend(nodes)
    yield from left.items()


def _set_place(tensor: Any, **entries: object) -> None:
    tensor.data_location = type(tensor).EXTERNAL
    del tensor.external_data[:]
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))


def _tensors(graph: Any) -> Iterator[Any]:
    """Initializers, and the constants among the attributes, in graphs of nodes, too."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            for below in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                yield from _tensors(below)
