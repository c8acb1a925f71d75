"""A canonical form of ONNX models.

The order and the names that tf2onnx gives follow from addresses in memory (of two equal nodes either
may stay), so that two conversions of one graph differ in bytes. Here what a value is computed from
decides where it stands, and its op and place what it is called; inputs and outputs keep their names.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from typing import Any

from freezeflow.values import Digest


def canonical(proto: Any, contents: Mapping[str, str]) -> None:
    """Brings a model into canonical form, in place.

    Args:
        proto: The ModelProto.
        contents: What tells the bytes of tensors outside of it apart, by location.
    """
    _Form(proto.graph, contents, {}, {}).apply()
    entries = sorted(proto.opset_import, key=lambda entry: entry.domain)
    copies = [type(entry).FromString(entry.SerializeToString()) for entry in entries]
    del proto.opset_import[:]
    proto.opset_import.extend(copies)
    del proto.metadata_props[:]


class _Form:
    """One graph, in what surrounds it.

    Args:
        graph: The GraphProto.
        contents: As for `canonical`.
        known: What the values around it are computed from.
        names: What these values are called by now.
    """

    def __init__(
        self,
        graph: Any,
        contents: Mapping[str, str],
        known: Mapping[str, str],
        names: Mapping[str, str],
    ) -> None:
        self._graph = graph
        self._contents = contents
        self._known = dict(known)
        self._names = dict(names)
        for place, value in enumerate(graph.input):
            self._known[value.name] = f"input {place} {value.name}"
        for tensor in graph.initializer:
            self._known[tensor.name] = self._of_tensor(tensor)

    def digest(self) -> str:
        """What the graph computes; its nodes are in an order in which they can run."""
        parts = [self._of_node(node) for node in self._graph.node]
        parts += [self._known.get(value.name, "") for value in self._graph.output]
        return _digest(sorted(parts))

    def apply(self) -> None:
        for node in self._graph.node:
            self._of_node(node)
        ordered = list(self._ordered())
        self._name(ordered)
        for node in ordered:
            for inner in _graphs(node):
                _Form(inner, self._contents, self._known, self._names).apply()
        self._rename(ordered)

    # ------------------------------------------------------------ what is what

    def _of_tensor(self, tensor: Any) -> str:
        outside = ""
        for entry in tensor.external_data:
            if entry.key == "location":
                outside = self._contents[entry.value]
        copy = type(tensor)()
        copy.CopyFrom(tensor)
        copy.name = ""
        del copy.external_data[:]
        return _digest([Digest.of(copy.SerializeToString(deterministic=True)).hex, outside])

    def _of_node(self, node: Any) -> str:
        inputs = [self._known.get(name, "") for name in node.input]
        found = _digest([node.op_type, node.domain, *inputs, *self._of_attributes(node)])
        for place, name in enumerate(node.output):
            self._known[name] = f"{found} {place}"
        return found

    def _of_attributes(self, node: Any) -> Iterator[str]:
        for attribute in sorted(node.attribute, key=lambda each: each.name):
            yield attribute.name
            if attribute.HasField("g"):
                yield _Form(attribute.g, self._contents, self._known, {}).digest()
            elif attribute.HasField("t"):
                yield self._of_tensor(attribute.t)
            else:
                yield Digest.of(attribute.SerializeToString(deterministic=True)).hex

    # ------------------------------------------------------------ order and names

    def _ordered(self) -> Iterator[Any]:
        """Nodes in topological order; among those that are ready, by what they compute."""
        nodes = list(self._graph.node)
        makers = {name: place for place, node in enumerate(nodes) for name in node.output}
        missing, users = [], [[] for _ in nodes]  # type: ignore[var-annotated]
        for place, node in enumerate(nodes):
            needs = {makers[name] for name in names_taken(node) if name in makers} - {place}
            missing.append(len(needs))
            for need in needs:
                users[need].append(place)
        keys = [self._key(node) for node in nodes]
        ready = [(keys[place], place) for place, count in enumerate(missing) if count == 0]
        heapq.heapify(ready)
        while ready:
            _, place = heapq.heappop(ready)
            yield nodes[place]
            for user in users[place]:
                missing[user] -= 1
                if missing[user] == 0:
                    heapq.heappush(ready, (keys[user], user))

    def _key(self, node: Any) -> str:
        return self._known[node.output[0]] if node.output else ""

    def _name(self, ordered: list[Any]) -> None:
        """New names for all values but inputs and outputs: op and number, in the order of the nodes."""
        graph = self._graph
        fixed = [value.name for value in (*graph.input, *graph.output)]
        self._names |= {name: name for name in fixed}
        taken = {*self._names.values()}
        constants = {tensor.name for tensor in graph.initializer}
        for node in ordered:
            for name in names_taken(node):
                if name in constants and name not in self._names:
                    self._names[name] = _free("constant", taken)
            for name in node.output:
                if name and name not in self._names:
                    self._names[name] = _free(node.op_type, taken)
        for name in sorted(constants - self._names.keys(), key=self._known.__getitem__):
            self._names[name] = _free("constant", taken)

    def _rename(self, ordered: list[Any]) -> None:
        graph, names = self._graph, self._names
        taken: set[str] = set()
        copies = []
        for node in ordered:
            copy = type(node)()
            copy.CopyFrom(node)
            copy.name = _free(f"{node.op_type}_node", taken)
            copy.doc_string = ""
            for field in (copy.input, copy.output):
                field[:] = [names.get(name, name) for name in field]
            attributes = sorted(copy.attribute, key=lambda each: each.name)
            kept = [type(each).FromString(each.SerializeToString()) for each in attributes]
            del copy.attribute[:]
            copy.attribute.extend(kept)
            copies.append(copy)
        del graph.node[:]
        graph.node.extend(copies)
        for values in (graph.initializer, graph.value_info):
            for value in values:
                value.name = names.get(value.name, value.name)
            _sort(values)
        graph.name, graph.doc_string = "graph", ""


def _graphs(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def names_taken(node: Any) -> Iterator[str]:
    """Names that a node takes, those inside its graphs, too."""
    yield from node.input
    for graph in _graphs(node):
        yield from (value.name for value in graph.output)
        for inner in graph.node:
            yield from names_taken(inner)


def _sort(values: Any) -> None:
    ordered = sorted(values, key=lambda value: value.name)
    copies = []
    for value in ordered:
        copy = type(value)()
        copy.CopyFrom(value)
        copies.append(copy)
    del values[:]
    values.extend(copies)


def _free(stem: str, taken: set[str]) -> str:
    number, name = 0, stem
    while name in taken:
        number += 1
        name = f"{stem}_{number}"
    taken.add(name)
    return name


def _digest(parts: list[str]) -> str:
    return Digest.of("\0".join(parts).encode()).hex
