"""Variables turned into constants, through every function and every kind of control flow.

The idea: *an edge that carries a variable's handle becomes an edge that carries its value.* The
variable itself becomes a Const; an op that only passes handles on (Identity, Switch, Enter, a call,
If, While, a captured argument of a dataset's function) passes the value on instead, with its type
attributes changed; an op that reads becomes the matching op on values. So two handles may meet in a
Merge, come out of a call, or go round a loop, and nothing has to be known about names.

A write may not simply vanish. Writes are taken out, then what no output needs any more; if a read of
a written variable is still there, an output sees the write, and the model is refused. (The idea of
that analysis: upstream ``compiler/mlir/tensorflow/transforms/tf_saved_model_freeze_variables.cc``.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import NamedTuple

from freezeflow.errors import ModelRefused
from freezeflow.graph import attrs, walk
from freezeflow.graph.colocation import drop_dangling
from freezeflow.graph.effects import Effects, awaited, drop_idle_control, order_matters
from freezeflow.graph.freeze_scope import Rules, Scope, Touch
from freezeflow.graph.graph import ControlResult, Function, Graph, Node, node_of
from freezeflow.graph.handles import READS, Handle
from freezeflow.graph.initial import initial_values
from freezeflow.graph.model import Model
from freezeflow.graph.specialise import Specialiser
from freezeflow.graph.variables import HANDLES, IGNORED, PYTHON_CALLS, RESOURCE_HANDLE, WRITES

_TABLE_WRITES = ("InitializeTable", "LookupTableImport", "LookupTableInsert")


class Frozen(NamedTuple):
    """A frozen model, with figures for the report.

    Args:
        model: The model; it has no variables.
        variables: How many variables outputs or initializers still read.
        writes_dropped: How many writes were taken out.
        seen_writes: Those of them that an output sees, in words.
    """

    model: Model
    variables: int
    writes_dropped: int
    seen_writes: tuple[str, ...]


def freeze_variables(model: Model, *, drop_writes: bool = False) -> Frozen:
    """Turns a model's variables into constants.

    Args:
        model: A loaded model.
        drop_writes: Take out also writes that an output sees, instead of refusing.

    Raises:
        ModelRefused: An output sees a write, a variable that is read has no value, or an op does
            something with a variable that is not known.
    """
    signatures = model.signatures.values()
    outputs = [spec.tensor for signature in signatures for spec in signature.outputs.values()]
    inputs = [spec.tensor for signature in signatures for spec in signature.inputs.values()]
    called = walk.reached_nodes(model.graph.nodes, outputs)
    freezer = _Freezer(model, called)
    scope = Scope(freezer, model.graph.nodes, {}, called)
    rewritten = scope.run()
    init = freezer.initializers(rewritten, model.init, walk.reached_nodes(rewritten, outputs))
    nodes = freezer.cleaned(rewritten, [*outputs, *inputs, *init])
    _check_values(nodes, model)
    reads = [touch for name, touches in scope.reads.items() if name in nodes for touch in touches]
    seen = _seen_writes(scope.writes, reads)
    if seen and not drop_writes:
        raise _written(*seen[0])
    graph = walk.without_unused(
        dataclasses.replace(model.graph, nodes=nodes, functions=freezer.functions)
    )
    _check_portable(graph)
    return Frozen(
        dataclasses.replace(model, graph=graph, variables={}, init=init),
        len({variable for read in reads for variable in read.variables}),
        len(scope.writes),
        tuple(f"{write.op} at {' > '.join(write.path)} ({name})" for name, write, _ in seen),
    )


class _Freezer(Specialiser):
    """Gives constants and specialised functions to the scopes of one model."""

    rules = Rules(handles=HANDLES, reads=READS, writes=WRITES, ignored=IGNORED)

    def __init__(self, model: Model, called: Container[str]) -> None:
        super().__init__(model.graph)
        self._values = model.variables
        self._initial = initial_values(model)
        self._effects = Effects(
            Graph(nodes={}, functions=self.functions, op_defs=model.graph.op_defs)
        )
        variable_ops = {n.op for n in _all_nodes(model.graph) if _is_on_variables(n.op)}
        counts = order_matters(model.graph, self._effects, called=called, without=variable_ops)
        # A write that is still there gives an output; it stays only for who takes that.
        self._counts = lambda node: not WRITES.match(node.op) and counts(node)
        self._by_identity = {
            _identity(node): name
            for name, node in model.graph.nodes.items()
            if node.op in HANDLES and name in model.variables
        }

    def constant(self, node: Node) -> tuple[Node | None, Handle] | None:
        """The node that a variable becomes, None if it has no value, and its handle."""
        dtype = attrs.to_type(node.attrs["dtype"])
        if node.name in self._initial and self.graph.nodes.get(node.name) is node:
            value = Node(
                node.name, "Identity", (self._initial[node.name],), {"T": attrs.of_type(dtype)}
            )
            return value, Handle(dtype, None, (node.name,))
        is_main = self.graph.nodes.get(node.name) is node
        name = node.name if is_main and node.name in self._values else None
        # In a function's body a node's name says nothing: what it shares with the main graph does.
        name = name or self._by_identity.get(_identity(node))
        if name is None:
            shape = attrs.to_shape(node.attrs["shape"]) if "shape" in node.attrs else None
            return None, Handle(dtype, shape, (node.name,))
        value = self._values[name]
        shape = attrs.read_shape(attrs.message(value.attrs["value"]).tensor.tensor_shape)
        return value._replace(name=node.name), Handle(dtype, shape, (name,))

    def body_of(
        self, function: Function, nodes: Mapping[str, Node]
    ) -> tuple[Mapping[str, Node], tuple[ControlResult, ...]]:
        waited = awaited(nodes, self._counts)
        control = tuple(r for r in function.control_results if r.node in waited)
        roots = [*(r.tensor for r in function.results), *(r.node for r in control)]
        return self.cleaned(nodes, roots), control

    def not_known(self, node: Node, resources: tuple[str, ...]) -> Exception:
        return ModelRefused(
            f"op {node.op} takes variable {', '.join(resources)} itself, and what it does with it is"
            " not known",
            where=node.name,
            hint="Freeze a signature that does not reach this node, or export the model without the op.",
        )

    def initializers(
        self, nodes: Mapping[str, Node], roots: Iterable[str], needed: set[str]
    ) -> tuple[str, ...]:
        """The nodes that do the work of the initialisers, in order: those of tables in use."""
        reached = walk.reached_nodes(nodes, roots)
        order = walk.topological_order({name: nodes[name] for name in reached})
        acting = [nodes[name] for name in order if self._effects.node(nodes[name])]
        return tuple(n.name for n in acting if _initialises_needed(n, nodes, needed))

    def cleaned(self, nodes: Mapping[str, Node], roots: Iterable[str]) -> dict[str, Node]:
        """What the roots need, without control edges for which nobody has to wait."""
        kept = drop_idle_control(nodes.values(), awaited(nodes, self._counts))
        reached = walk.reached_nodes(kept, roots)
        return drop_dangling({name: node for name, node in kept.items() if name in reached})


def _all_nodes(graph: Graph) -> Iterator[Node]:
    yield from graph.nodes.values()
    for function in graph.functions.values():
        yield from function.nodes.values()


def _is_on_variables(op: str) -> bool:
    return op in HANDLES or op in READS or op in IGNORED or bool(WRITES.match(op))


def _identity(node: Node) -> tuple[bytes, bytes]:
    """What makes two handle nodes the same variable: container, and shared name or else own name."""
    shared = attrs.to_bytes(node.attrs["shared_name"]) if "shared_name" in node.attrs else b""
    container = attrs.to_bytes(node.attrs["container"]) if "container" in node.attrs else b""
    return container, shared or node.name.encode()


def _initialises_needed(node: Node, nodes: Mapping[str, Node], needed: set[str]) -> bool:
    """Whether an initialiser matters: what it fills, if it is a table's, is needed by a call."""
    if not node.op.startswith(_TABLE_WRITES):
        return True
    table = node_of(node.inputs[0])
    while nodes[table].op == "Identity":
        table = node_of(nodes[table].inputs[0])
    return table in needed


def _check_portable(graph: Graph) -> None:
    """Refuses what only works in the process that built the graph, and reads of what is not there."""
    scopes = {"": graph.nodes, **{name: f.nodes for name, f in graph.functions.items()}}
    for scope, nodes in scopes.items():
        for node in nodes.values():
            if node.op in PYTHON_CALLS:
                raise ModelRefused(
                    f"op {node.op} calls Python code, which is not in the graph",
                    where=f"{scope} > {node.name}" if scope else node.name,
                    hint="Rewrite tf.py_function or tf.numpy_function with TensorFlow ops, then save"
                    " the model again.",
                )
            if node.op in READS or node.op == RESOURCE_HANDLE:
                raise ModelRefused(
                    f"op {node.op} takes a variable from where it cannot be followed",
                    where=f"{scope} > {node.name}" if scope else node.name,
                    hint="The model has an op of its own that hands on variables, or it is damaged.",
                )


def _check_values(nodes: Mapping[str, Node], model: Model) -> None:
    """Refuses if a variable without a value is still read."""
    for node in nodes.values():
        for tensor in node.inputs:
            name = node_of(tensor)
            if name not in nodes and name in model.graph.nodes:
                raise ModelRefused(
                    f"variable {name!r} has no value: the checkpoint does not restore it",
                    where=node.name,
                    hint="Save the model after the variable was initialised, or freeze outputs"
                    " that do not need it.",
                )


def _seen_writes(writes: Iterable[Touch], reads: Iterable[Touch]) -> list[tuple[str, Touch, Touch]]:
    """Variable, write and read, for each write of a variable that is still read."""
    read_by = {variable: read for read in reads for variable in read.variables}
    return [
        (variable, write, read_by[variable])
        for write in writes
        for variable in write.variables
        if variable in read_by
    ]


def _written(variable: str, write: Touch, read: Touch) -> ModelRefused:
    return ModelRefused(
        f"variable {variable!r} is written by {write.op} while the signature runs,"
        f" and read by {read.op} at {' > '.join(read.path)}",
        where=" > ".join(write.path),
        hint="Its value changes from call to call, so it is no constant. Freeze a signature that"
        " does not write it, bind the input that switches training on (bind: {training: false}),"
        " or drop the write (written: drop).",
    )
