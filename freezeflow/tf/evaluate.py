"""Computes constant parts of a graph with TensorFlow's own kernels.

Sizes first: nodes are imported level by level, and TensorFlow's shape functions tell the size of each
output before anything is computed. A node whose output is too large, or of unknown size, is never
imported further, so that nothing behind it can be computed either, not even by the importer, which
evaluates small constants by itself. One session, one thread, Grappler off: what comes out is what the
node gives when the graph runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from freezeflow.graph import attrs
from freezeflow.graph.fold import Value
from freezeflow.graph.foldable import Candidates, longest_string, string_bound
from freezeflow.graph.graph import Graph, Node, data_inputs, join, node_of, split
from freezeflow.graph.walk import reached_nodes
from freezeflow.graph.write import graph_def_bytes
from freezeflow.tf.sessions import RUN_ERRORS, as_array, exact_config
from freezeflow.values import DType, TensorRef

v1 = tf.compat.v1

# Results and large inputs of one call of the session, together.
_BATCH_BYTES = 256 * 1024 * 1024

# Outputs have a size that only the values tell, at most this many times the bytes of the inputs; they
# are computed while sizes are inferred, where the inputs are small.
_SIZE_FROM_VALUES = {
    "DecodeRaw": 1,
    "DynamicPartition": 1,
    "ListDiff": 16,
    "StringSplit": 32,
    "StringSplitV2": 32,
    "Unique": 16,
    "UniqueV2": 16,
    "UniqueWithCounts": 32,
    "UniqueWithCountsV2": 32,
    "Where": 64,
}
_SMALL_BYTES = 1024 * 1024


class TensorFlowEvaluation:
    """The candidates of one scope in a TensorFlow graph of their own.

    Args:
        graph: The graph that the candidates belong to.
        found: The candidates.
        max_bytes: Nodes with an output over this size, in bytes, are not computed.
    """

    def __init__(self, graph: Graph, found: Candidates, *, max_bytes: int) -> None:
        self._versions = (graph.producer, graph.min_consumer)
        self._found = found
        self._max_bytes = max_bytes
        self._graph = tf.Graph()
        self._session = v1.Session(graph=self._graph, config=exact_config())
        self._tensors: dict[str, Any] = {}
        self._feeds: dict[str, TensorRef | np.ndarray[Any, Any]] = {}
        self._strings: dict[str, int] = {}
        self.sizes: dict[str, tuple[int, ...]] = {}
        self._add_constants(found.constants.values())
        for level in _levels(found.foldable):
            self._add_level(level)

    # ------------------------------------------------------------ building

    def _add_constants(self, nodes: Iterable[Node]) -> None:
        small = []
        for node in nodes:
            if node.tensor is not None:
                self._feed(node.name, node.tensor, node.tensor.shape)
            else:
                small.append(node)
                if attrs.to_type(node.attrs["dtype"]) == DType.STRING:
                    self._strings[node.name] = longest_string(node)
        self._import(small)

    def _feed(self, tensor: str, value: Any, shape: Sequence[int]) -> None:
        dtype = value.dtype
        dtype = tf.as_dtype(int(dtype) if isinstance(dtype, DType) else dtype)
        with self._graph.as_default():
            self._tensors[tensor] = v1.placeholder(dtype, shape)
        self._feeds[tensor] = value

    def _add_level(self, level: Sequence[Node]) -> None:
        ready = [node for node in level if all(i in self._tensors for i in data_inputs(node))]
        try:
            imported = self._import(ready)
        except (ValueError, tf.errors.OpError):
            # One node that cannot be imported must not take the others with it.
            imported = [node for node in ready if self._import_alone(node)]
        for node in imported:
            self._measure(node)

    def _import_alone(self, node: Node) -> bool:
        try:
            self._import([node])
        except (ValueError, tf.errors.OpError):
            return False
        return True

    def _import(self, nodes: Sequence[Node]) -> list[Node]:
        """Imports nodes whose inputs are in the graph already."""
        if not nodes:
            return []
        plain = [_plain(node) for node in nodes]
        graph_def = v1.GraphDef.FromString(
            graph_def_bytes(
                Graph(
                    nodes={node.name: node for node in plain},
                    producer=self._versions[0],
                    min_consumer=self._versions[1],
                )
            )
        )
        inputs = {_full(t): self._tensors[t] for node in plain for t in node.inputs}
        names = [node.name for node in plain]
        with self._graph.as_default():
            operations = tf.graph_util.import_graph_def(
                graph_def, input_map=inputs, return_elements=names, name=""
            )
        for name, operation in zip(names, operations, strict=True):
            for index, tensor in enumerate(operation.outputs):
                self._tensors[join(name, index)] = tensor
        return list(nodes)

    def _measure(self, node: Node) -> None:
        """Notes the sizes of a node's outputs, or takes it out again."""
        names = list(self._outputs(node.name))
        if any(not self._tensors[t].shape.is_fully_defined() for t in names):
            if not self._settle(node, names):
                self._drop(names)
            return
        sizes = tuple(self._size(node, tensor) for tensor in names)
        if max(sizes) > self._max_bytes:
            self._drop(names)
        else:
            self.sizes[node.name] = sizes

    def _outputs(self, name: str) -> Iterator[str]:
        for index in range(len(self._tensors[name].op.outputs)):
            yield join(name, index)

    def _drop(self, names: Iterable[str]) -> None:
        for name in names:
            del self._tensors[name]

    def _size(self, node: Node, tensor: str) -> int:
        shape = self.shape(tensor)
        dtype = self._tensors[tensor].dtype
        if dtype != tf.string:
            return math.prod(shape) * int(dtype.size)
        inputs = [t for t in data_inputs(node) if t in self._strings]
        count = sum(math.prod(self.shape(t)) for t in data_inputs(node))
        self._strings[tensor] = string_bound(node, [self._strings[t] for t in inputs], count)
        return math.prod(shape) * (self._strings[tensor] + 2)

    def _settle(self, node: Node, names: Sequence[str]) -> bool:
        """Computes a node whose output sizes only its values tell, if they must be small."""
        times = _SIZE_FROM_VALUES.get(node.op)
        inputs = list(data_inputs(node))
        if times is None:
            return False
        if times * sum(self._input_size(t) for t in inputs) > min(self._max_bytes, _SMALL_BYTES):
            return False
        results = self._run(names)
        if results is None:
            return False
        for tensor, result in zip(names, results, strict=True):
            if result.dtype == object:
                self._strings[tensor] = max(map(len, result.ravel()), default=0)
            self._feed(tensor, result, result.shape)
        self.sizes[node.name] = tuple(self._input_size(tensor) for tensor in names)
        return True

    def _input_size(self, tensor: str) -> int:
        count = math.prod(self.shape(tensor))
        if tensor in self._strings:
            return count * (self._strings[tensor] + 2)
        return count * int(self._tensors[tensor].dtype.size)

    # ------------------------------------------------------------ computing

    def shape(self, tensor: str) -> tuple[int, ...]:
        """The shape of a computable tensor."""
        return tuple(self._tensors[tensor].shape.as_list())

    def values(self, tensors: Iterable[str]) -> Iterator[tuple[str, Value | None]]:
        """Computes tensors, some at a time; None for one whose kernel fails."""
        batch: list[str] = []
        size = 0
        for tensor in tensors:
            name, index = split(tensor)
            batch.append(tensor)
            size += self.sizes[name][index] + sum(map(self._fed_bytes, self._fed_by([tensor])))
            if size > _BATCH_BYTES:
                yield from self._compute(batch)
                batch, size = [], 0
        yield from self._compute(batch)

    def _compute(self, tensors: Sequence[str]) -> Iterator[tuple[str, Value | None]]:
        results = self._run(tensors)
        if results is None and len(tensors) > 1:
            for tensor in tensors:
                yield from self._compute([tensor])
            return
        for index, tensor in enumerate(tensors):
            yield tensor, None if results is None else self._value(tensor, results[index])

    def _run(self, tensors: Sequence[str]) -> list[np.ndarray[Any, Any]] | None:
        """The tensors' values; None where a kernel reports an error."""
        if not tensors:
            return []
        feeds = {self._tensors[t]: _array(self._feeds[t]) for t in self._fed_by(tensors)}
        try:
            results = self._session.run([self._tensors[t] for t in tensors], feeds)
        except RUN_ERRORS:
            return None
        return [as_array(result) for result in results]

    def _fed_by(self, tensors: Iterable[str]) -> list[str]:
        """The fed tensors that these need."""
        reached = reached_nodes(self._found.foldable, tensors)
        names = {t for name in reached for t in data_inputs(self._found.foldable[name])}
        return sorted((names | set(tensors)) & self._feeds.keys())

    def _fed_bytes(self, tensor: str) -> int:
        return int(self._feeds[tensor].nbytes)

    def _value(self, tensor: str, result: np.ndarray[Any, Any]) -> Value:
        dtype = DType(self._tensors[tensor].dtype.base_dtype.as_datatype_enum)
        if dtype == DType.STRING:
            return Value(dtype, result.shape, tuple(map(bytes, result.ravel().tolist())))
        flat = np.ascontiguousarray(result).reshape(-1).view(np.uint8)
        return Value(dtype, result.shape, flat.data)


def _levels(nodes: Mapping[str, Node]) -> list[list[Node]]:
    """Nodes by the length of the longest path from a constant; inputs come before consumers."""
    depth: dict[str, int] = {}
    levels: list[list[Node]] = []
    for name, node in nodes.items():
        depth[name] = max(
            (depth[s] + 1 for s in map(node_of, data_inputs(node)) if s in depth), default=0
        )
        if depth[name] == len(levels):
            levels.append([])
        levels[depth[name]].append(node)
    return levels


def _plain(node: Node) -> Node:
    """A node without control inputs, device and annotations, which could point elsewhere or lie."""
    values = {key: value for key, value in node.attrs.items() if not key.startswith("_")}
    return node._replace(inputs=tuple(data_inputs(node)), attrs=values, device="")


def _full(tensor: str) -> str:
    name, index = split(tensor)
    return f"{name}:{index}"


def _array(value: TensorRef | np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A fed value as an array; what lies in a file is mapped, not read."""
    if isinstance(value, np.ndarray):
        return value
    dtype = tf.as_dtype(int(value.dtype)).as_numpy_dtype
    if not value.nbytes:
        return np.zeros(value.shape, dtype)
    place = value.location
    raw = np.memmap(place.path, np.uint8, "r", place.offset, (place.length,))
    array: np.ndarray[Any, Any] = raw.view(dtype).reshape(value.shape)
    return array
