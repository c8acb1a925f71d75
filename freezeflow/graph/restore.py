"""From a variable to the checkpoint key that fills it, by following the restore op's dataflow.

Names never matter: TF2 restores through a function (``__inference__traced_restore``), TF1 through
nodes of the main graph; in both, RestoreV2 gives a tensor, which an assignment puts into a handle.
Tables that keep their contents in the checkpoint are filled the same way, by LookupTableImportV2.
Source of the conventions: upstream ``python/training/saver.py`` and ``core/ops/io_ops.cc``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from freezeflow.errors import ModelRefused
from freezeflow.graph import walk
from freezeflow.graph.constants import strings_of
from freezeflow.graph.graph import Graph, Node, data_inputs, split
from freezeflow.graph.inline import inline_calls
from freezeflow.graph.variables import HANDLES

_ASSIGNS = frozenset({"Assign", "AssignVariableOp"})
_TABLE_IMPORTS = frozenset({"LookupTableImport", "LookupTableImportV2"})
_TRANSPARENT = frozenset({"Identity", "RefIdentity", "DisableCopyOnRead"})


class SavedTensor(NamedTuple):
    """A tensor of the checkpoint: its key, and which part of it (empty for all)."""

    key: str
    slice_spec: str


class Restored(NamedTuple):
    """What restoring a checkpoint does.

    Args:
        variables: Handle node to the tensor that fills it.
        tables: Table node to the tensors of its keys and values.
    """

    variables: Mapping[str, SavedTensor]
    tables: Mapping[str, tuple[SavedTensor, SavedTensor]]


def follow_restore(graph: Graph, restore_op: str) -> Restored:
    """Follows the restore op of a meta graph.

    Args:
        graph: The graph, with at least what the restore op needs.
        restore_op: ``saver_def.restore_op_name``; empty where there is nothing to restore.
    """
    return _follow(graph, [restore_op] if restore_op in graph.nodes else [])


def follow_assignments(graph: Graph) -> Restored:
    """Follows every assignment of a graph that comes without a meta graph to name its restore op."""
    restoring = _ASSIGNS | _TABLE_IMPORTS
    return _follow(graph, [node.name for node in graph.nodes.values() if node.op in restoring])


def _follow(graph: Graph, roots: list[str]) -> Restored:
    nodes = inline_calls(walk.prune(graph, roots), (), roots).graph.nodes
    variables, tables = {}, {}
    for node in nodes.values():
        if node.op in _ASSIGNS:
            handle, saved = _handle(nodes, node), _saved(nodes, node, 1)
            if handle and saved:
                variables[handle] = saved
        elif node.op in _TABLE_IMPORTS:
            keys, values = _saved(nodes, node, 1), _saved(nodes, node, 2)
            table = _source(nodes, node.inputs[0])[0]
            if keys and values:
                tables[table] = (keys, values)
    return Restored(variables, tables)


def _source(nodes: Mapping[str, Node], tensor: str) -> tuple[str, int]:
    """The node and output that a tensor comes from, through ops that only hand it on."""
    name, index = split(tensor)
    while nodes[name].op in _TRANSPARENT:
        name, index = split(nodes[name].inputs[0])
    return name, index


def _handle(nodes: Mapping[str, Node], assign: Node) -> str | None:
    name, _ = _source(nodes, assign.inputs[0])
    return name if nodes[name].op in HANDLES else None


def _saved(nodes: Mapping[str, Node], node: Node, position: int) -> SavedTensor | None:
    name, index = _source(nodes, list(data_inputs(node))[position])
    restore = nodes[name]
    if restore.op == "RestoreV2":
        return _saved_tensor(nodes, restore, index, sliced=True)
    if restore.op in ("Restore", "RestoreSlice"):
        return _saved_tensor(nodes, restore, 0, sliced=restore.op == "RestoreSlice")
    return None


def _saved_tensor(
    nodes: Mapping[str, Node], restore: Node, index: int, *, sliced: bool
) -> SavedTensor:
    keys = _strings(nodes, restore.inputs[1])
    slices = _strings(nodes, restore.inputs[2]) if sliced else (b"",) * len(keys)
    if index >= min(len(keys), len(slices)):
        raise ModelRefused(
            f"{restore.op} restores {len(keys)} tensors, number {index} is used",
            where=restore.name,
            hint="The file is damaged or was edited; write the model again.",
        )
    return SavedTensor(
        keys[index].decode(errors="surrogateescape"), slices[index].decode(errors="replace")
    )


def _strings(nodes: Mapping[str, Node], tensor: str) -> tuple[bytes, ...]:
    name, _ = _source(nodes, tensor)
    return strings_of(nodes[name])
