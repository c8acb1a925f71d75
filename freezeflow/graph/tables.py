"""Look-ups in static tables turned into pure ops, so that the graph has no state and needs no init.

The same idea as for variables (`freeze`): the edges that carry a table's handle through calls,
branches, loops and datasets are followed, and each look-up at their end becomes pure ops on the
table's columns (`table_lookups`), in the body where it stands. What is left of the edge carries a
number that nobody takes.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from freezeflow.graph import attrs, walk
from freezeflow.graph.freeze_scope import Rules, Scope
from freezeflow.graph.graph import ControlResult, Function, Graph, Node, node_of
from freezeflow.graph.handles import Handle, Replacement, scalar_const
from freezeflow.graph.model import Model
from freezeflow.graph.specialise import Specialiser
from freezeflow.graph.table_contents import contents_of
from freezeflow.graph.table_lookups import FINDS, ROLES, SIZES, Columns, PutTensor

STATIC_TABLES = frozenset({"HashTable", "HashTableV2"})
_FILLS = re.compile(r"(InitializeTable|LookupTableImport)(V2)?$")


class InlinedTables(NamedTuple):
    """A model with its static tables inlined.

    Args:
        model: The model.
        tables: How many tables are gone.
        left: Tables that stay, each with the reason.
    """

    model: Model
    tables: int
    left: tuple[str, ...]


class _Plan(NamedTuple):
    """A table that may be inlined: its node, the node that fills it, its contents."""

    table: Node
    fill: Node
    contents: Mapping[Any, Any]


class _Stays(Exception):
    """Tables that cannot be inlined after all."""

    def __init__(self, tables: tuple[str, ...], reason: str) -> None:
        super().__init__(reason)
        self.tables = tables
        self.reason = reason


def inline_tables(model: Model, put_tensor: PutTensor) -> InlinedTables:
    """Turns look-ups in static tables into pure ops.

    A table stays where its contents are no constants, where it is decided at run time which of
    several tables is meant, or where an op takes it that is no look-up.

    Args:
        model: A frozen model.
        put_tensor: Takes large constants.
    """
    left: dict[str, str] = {}
    plans: dict[str, _Plan] = {}
    for name, plan in _plans(model):
        if isinstance(plan, str):
            left[name] = plan
        else:
            plans[name] = plan
    columns = {
        name: Columns(plan.table, _free_name(model.graph, name), plan.contents, put_tensor)
        for name, plan in plans.items()
    }
    inlined = model
    while columns:
        try:
            inlined = _inlined(model, {name: plans[name] for name in columns}, columns)
            break
        except _Stays as stays:
            left.update(dict.fromkeys(stays.tables, stays.reason))
            columns = {name: made for name, made in columns.items() if name not in stays.tables}
    reasons = (f"{name}: {reason}" for name, reason in left.items())
    return InlinedTables(inlined, len(columns), tuple(sorted(reasons)))


def _plans(model: Model) -> Iterator[tuple[str, _Plan | str]]:
    """Each static table with how to inline it, or why it cannot be."""
    nodes = model.graph.nodes
    fills: dict[str, list[Node]] = {}
    for name in model.init:
        if _FILLS.match(nodes[name].op):
            fills.setdefault(_table_of(nodes, nodes[name]), []).append(nodes[name])
    for table in [node for node in nodes.values() if node.op in STATIC_TABLES]:
        if len(fills.get(table.name, ())) != 1:
            yield table.name, "it is not filled once, by an initializer"
            continue
        (fill,) = fills[table.name]
        contents = contents_of(nodes, fill)
        yield table.name, contents if isinstance(contents, str) else _Plan(table, fill, contents)


def _table_of(nodes: Mapping[str, Node], fill: Node) -> str:
    table = node_of(fill.inputs[0])
    while nodes[table].op in ("Identity", "RefIdentity"):
        table = node_of(nodes[table].inputs[0])
    return table


def _free_name(graph: Graph, table: str) -> str:
    """What a table's columns are called after: their names are taken in no body."""
    bodies = [graph.nodes, *(function.nodes for function in graph.functions.values())]
    number, name = 0, table
    while any(f"{name}/{role}" in nodes for role in ROLES for nodes in bodies):
        number += 1
        name = f"{table}_{number}"
    return name


def _inlined(model: Model, plans: Mapping[str, _Plan], columns: Mapping[str, Columns]) -> Model:
    inliner = _Inliner(model.graph, columns)
    scope = Scope(inliner, model.graph.nodes, {})
    nodes = scope.run()
    gone = {plan.fill.name for plan in plans.values()}
    for write in scope.writes:
        if write.path not in {(name,) for name in gone}:
            raise _Stays(write.variables, f"{write.op} at {' > '.join(write.path)} changes it")
    init = tuple(name for name in model.init if name not in gone)
    graph = dataclasses.replace(model.graph, nodes=nodes, functions=inliner.functions)
    ends = [
        spec.tensor
        for signature in model.signatures.values()
        for side in (signature.inputs, signature.outputs)
        for spec in side.values()
    ]
    return dataclasses.replace(
        model, graph=walk.prune(graph, [*ends, *init, *model.variables]), init=init
    )


class _Inliner(Specialiser):
    """Tells the scopes of one model what becomes of tables and of look-ups."""

    def __init__(self, graph: Graph, columns: Mapping[str, Columns]) -> None:
        super().__init__(graph)
        self._columns = columns
        look_ups = dict.fromkeys((*FINDS, *SIZES), self._look_up)
        self.rules = Rules(handles=STATIC_TABLES, reads=look_ups, writes=_FILLS)

    def constant(self, node: Node) -> tuple[Node | None, Handle] | None:
        """A number instead of the handle, for what passes it on."""
        if self.graph.nodes.get(node.name) is not node or node.name not in self._columns:
            return None
        number = scalar_const(node.name, 0, after=None)
        return number, Handle(attrs.to_type(number.attrs["dtype"]), (), (node.name,))

    def _look_up(self, node: Node, handle: Handle, in_frames: bool) -> Replacement:
        if len(handle.variables) != 1:
            raise _Stays(handle.variables, f"{node.name} looks into one of several tables")
        made = self._columns[handle.variables[0]].look_up(node, in_frames=in_frames)
        return Replacement(tuple(made), (node.name,))

    def not_known(self, node: Node, resources: tuple[str, ...]) -> Exception:
        return _Stays(resources, f"{node.op} at {node.name} takes the table itself")

    def body_of(
        self, function: Function, nodes: Mapping[str, Node]
    ) -> tuple[Mapping[str, Node], tuple[ControlResult, ...]]:
        return nodes, function.control_results
