"""A graph for an older TensorFlow: only ops and attributes that it has, and a version that it accepts.

TensorFlow refuses a node with an attribute that it does not know, also where the value is the one that is
meant without it. What came with which release is data (``data/history.json``, made out of the
registries of TensorFlow's own wheels by ``tools/make_op_history.py``).
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

from freezeflow.errors import ModelRefused
from freezeflow.graph.graph import Graph, Node
from freezeflow.graph.model import Model
from freezeflow.graph.ops import standard_op

_SHOWN = 6


def releases() -> tuple[str, ...]:
    """The releases that a graph can be made for, the oldest first."""
    return tuple(_history()["releases"])


def newest_version() -> int:
    """The GraphDef version of the newest release that is known here."""
    return max(map(int, _history()["releases"].values()))


def for_release(model: Model, release: str) -> Model:
    """The model as an older release reads it.

    Attributes that came later go where they have their default; the graph's version becomes that of
    the release where it is higher. Custom ops are left alone.

    Args:
        model: A valid model.
        release: One of `releases`.

    Raises:
        ModelRefused: It uses ops, or attributes with another value than the default, that the release
            does not have.
    """
    target = _Target(release)
    problems = sorted(set(target.problems(model.graph)))
    number = _history()["releases"][release]
    if model.graph.min_consumer > number:
        problems.append(
            f"the graph asks for readers of version {model.graph.min_consumer} or later"
        )
    if problems:
        listed = "; ".join(problems[:_SHOWN])
        more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise ModelRefused(
            f"TensorFlow {release} cannot read this model: {listed}{more}",
            hint="Name a later release as the target, or build the model with that TensorFlow.",
        )
    graph = dataclasses.replace(
        model.graph,
        nodes=target.without_later_attrs(model.graph.nodes),
        functions={
            name: dataclasses.replace(function, nodes=target.without_later_attrs(function.nodes))
            for name, function in model.graph.functions.items()
        },
        producer=min(model.graph.producer, number),
    )
    return dataclasses.replace(model, graph=graph)


class _Target:
    """What one release has."""

    def __init__(self, release: str) -> None:
        order = releases()
        self._later = frozenset(order[order.index(release) + 1 :])
        self._missing = frozenset(_history()["missing"].get(release, ()))

    def problems(self, graph: Graph) -> Iterator[str]:
        for nodes in (graph.nodes, *(function.nodes for function in graph.functions.values())):
            for node in nodes.values():
                yield from self._problems_of(node)

    def _problems_of(self, node: Node) -> Iterator[str]:
        since = _history()["ops"].get(node.op)
        if since in self._later:
            yield f"op {node.op} came with {since}"
        elif node.op in self._missing:
            yield f"it has no op {node.op}"
        for name, came in self._later_attrs(node).items():
            if not _is_default(node, name):
                yield f"attribute {name} of {node.op} came with {came}, and is not at its default"

    def _later_attrs(self, node: Node) -> dict[str, str]:
        attrs: Mapping[str, str] = _history()["attrs"].get(node.op, {})
        return {
            name: since
            for name, since in attrs.items()
            if since in self._later and name in node.attrs
        }

    def without_later_attrs(self, nodes: Mapping[str, Node]) -> dict[str, Node]:
        return {name: self._without_later_attrs(node) for name, node in nodes.items()}

    def _without_later_attrs(self, node: Node) -> Node:
        later = self._later_attrs(node)
        if not later:
            return node
        return node._replace(attrs={key: v for key, v in node.attrs.items() if key not in later})


def _is_default(node: Node, name: str) -> bool:
    definition = standard_op(node.op)
    return definition is not None and definition.defaults.get(name) == node.attrs[name]


@functools.cache
def _history() -> Any:
    data = resources.files(__package__).joinpath("data/history.json").read_bytes()
    return json.loads(data)
