"""Colocation: the attribute ``_class`` lists ``loc:@node``, a wish to be placed where a node is.

TensorFlow refuses a graph in which such a node is not there, so whoever drops nodes drops the
wishes.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

from freezeflow.graph import attrs
from freezeflow.graph.graph import Node
from freezeflow.messages import message_class

_ATTR = "_class"
_MARK = b"loc:@"


def drop_dangling(nodes: Mapping[str, Node]) -> Mapping[str, Node]:
    """The nodes of one body without colocations with nodes that are not among them."""
    near = {name: _near(node, nodes) for name, node in nodes.items() if _ATTR in node.attrs}
    return {**nodes, **near} if near else nodes


def without_wishes(node: Node) -> Node:
    """The node without any colocation."""
    if _ATTR not in node.attrs:
        return node
    return node._replace(attrs={key: data for key, data in node.attrs.items() if key != _ATTR})


def _near(node: Node, nodes: Container[str]) -> Node:
    wishes = attrs.message(node.attrs[_ATTR]).list.s
    kept = [wish for wish in wishes if not _is_dangling(wish, nodes)]
    if len(kept) == len(wishes) and kept:
        return node
    rest = {key: data for key, data in node.attrs.items() if key != _ATTR}
    if kept:
        value = message_class("AttrValue")()
        value.list.s.extend(kept)
        rest[_ATTR] = attrs.encode(value)
    return node._replace(attrs=rest)


def _is_dangling(wish: bytes, nodes: Container[str]) -> bool:
    return wish.startswith(_MARK) and wish[len(_MARK) :].decode(errors="replace") not in nodes
