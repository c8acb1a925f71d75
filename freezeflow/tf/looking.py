"""Looks at every tensor of one call: what it held, as a digest, some tensors at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from freezeflow.graph import walk
from freezeflow.graph.graph import Graph, Node, data_inputs, node_of
from freezeflow.graph.op_policy import RANDOM
from freezeflow.graph.variables import RESOURCE_HANDLE, WRITES
from freezeflow.proof.dtypes import Array
from freezeflow.tf.sessions import exact_config
from freezeflow.tf.sides import Arrays, Side, full_name

v1 = tf.compat.v1

# Tensors that are fetched together, and bytes that they should not exceed by far.
_FIRST_BATCH = 32
_MOST_BYTES = 128 * 1024 * 1024

_NO_VALUE = frozenset({tf.resource, tf.variant})


class Looker:
    """One side at one call, its tensors to be fetched by name, as the exact level runs it.

    Args:
        side: The side.
        graph: Its graph, without calls.
        calls: The calls before this one, and this one: those before change what variables hold.
        output: The tensor that differs from the other side's.
    """

    def __init__(
        self, side: Side, graph: Graph, calls: Sequence[tuple[str, Arrays]], output: str
    ) -> None:
        self._side = side
        self._before = calls[:-1]
        name, inputs = calls[-1]
        ends = side.signatures[name].inputs
        self.feeds = {full_name(ends[key].tensor): value for key, value in inputs.items()}
        self.feeds.update(side.always)
        self.fed = {node_of(tensor) for tensor in self.feeds}
        self.output = output
        outputs = [spec.tensor for spec in side.signatures[name].outputs.values()]
        reached = walk.reached_nodes(_without_inputs(graph.nodes, self.fed), [output, *outputs])
        self.nodes = {
            node_name: _cut(node, self.fed)
            for node_name, node in graph.nodes.items()
            if node_name in reached
        }
        self._keeps_state = any(
            WRITES.match(node.op) or node.op in RANDOM for node in self.nodes.values()
        )
        self._session: Any = None
        self._reads = self._read_variables()

    def _read_variables(self) -> dict[str, str]:
        """Variables' handles with the tensors that read them, beside what the graph itself reads."""
        handles = [name for name, node in self.nodes.items() if node.op == RESOURCE_HANDLE]
        with self._side.graph.as_default():
            return {
                name: tf.raw_ops.ReadVariableOp(
                    resource=operation.outputs[0], dtype=operation.get_attr("dtype")
                ).name
                for name in handles
                for operation in [self._side.graph.get_operation_by_name(name)]
            }

    def prints(self) -> dict[str, bytes]:
        """A digest of every tensor that some node takes and that has a value."""
        found = {}
        for tensor, value in self.values(self._wanted()):
            if value is not None:
                found[tensor] = _print_of(value)
        return found

    def values(self, tensors: Sequence[str]) -> Iterator[tuple[str, Array | None]]:
        """Tensors with their values; None where there is none (a branch that was not taken)."""
        count, start = _FIRST_BATCH, 0
        while start < len(tensors):
            batch = tensors[start : start + count]
            start += count
            size = 0
            for tensor, value in zip(batch, self._fetched(batch), strict=True):
                size += 0 if value is None else value.nbytes
                yield tensor, value
            count = max(1, count // 2) if size > _MOST_BYTES else count * 2

    def value(self, tensor: str) -> Array | None:
        """The value of one tensor."""
        return self._fetched([tensor])[0]

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def _wanted(self) -> list[str]:
        taken = {tensor for node in self.nodes.values() for tensor in data_inputs(node)}
        hidden = inside_loops(self.nodes)
        return [
            tensor
            for tensor in sorted(taken | {self.output})
            if node_of(tensor) not in hidden and self._has_value(tensor)
        ] + sorted(self._reads)

    def _has_value(self, tensor: str) -> bool:
        found = self._side.graph.get_tensor_by_name(full_name(tensor))
        return found.dtype.base_dtype not in _NO_VALUE

    def _fetched(self, tensors: Sequence[str]) -> list[Array | None]:
        """Values; halves the list until only those without one are left out."""
        try:
            names = [self._reads.get(tensor) or full_name(tensor) for tensor in tensors]
            results = self._run(names)
        except tf.errors.OpError:
            if len(tensors) == 1:
                return [None]
            half = len(tensors) // 2
            return [*self._fetched(tensors[:half]), *self._fetched(tensors[half:])]
        return [np.asarray(result) for result in results]

    def _run(self, names: Sequence[str]) -> list[Any]:
        if self._keeps_state or self._session is None:
            self.close()
            self._session = self._side.opened(exact_config())
            if self._keeps_state:
                self._side.answers(self._session, self._before)
        results: list[Any] = self._session.run(list(names), self.feeds)
        return results


class Pair(NamedTuple):
    """Both sides at one call."""

    original: Looker
    result: Looker


def _without_inputs(nodes: Mapping[str, Node], fed: Iterable[str]) -> dict[str, Node]:
    cut = set(fed)
    return {name: _cut(node, cut) for name, node in nodes.items()}


def _cut(node: Node, fed: set[str]) -> Node:
    """A node without its inputs if it is fed: what is in front of it does not run."""
    return node._replace(inputs=()) if node.name in fed else node


def inside_loops(nodes: Mapping[str, Node]) -> set[str]:
    """Nodes in a TF1 loop, whose tensors hold another value in each round."""
    takers = walk.consumers(nodes)
    stack = [name for name, node in nodes.items() if node.op in ("Enter", "RefEnter")]
    found = set(stack)
    while stack:
        for name in takers.get(stack.pop(), ()):
            if name not in found and nodes[name].op not in ("Exit", "RefExit"):
                found.add(name)
                stack.append(name)
    return found


def _print_of(value: Array) -> bytes:
    """A digest of dtype, shape and bytes."""
    digest = hashlib.blake2b(repr((value.dtype, value.shape)).encode(), digest_size=16)
    if value.dtype.kind == "O":
        for item in value.ravel().tolist():
            data = item if isinstance(item, bytes) else str(item).encode()
            digest.update(len(data).to_bytes(8, "little") + data)
    else:
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.digest()
