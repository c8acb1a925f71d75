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
import math
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from freezeflow.errors import ModelRefused
from freezeflow.graph import attrs, walk
from freezeflow.graph.colocation import drop_dangling
from freezeflow.graph.constants import const, value_of
from freezeflow.graph.effects import Effects, awaited, drop_idle_control, order_matters
from freezeflow.graph.forward import TEMPORARY
from freezeflow.graph.freeze_scope import Rules, Scope, Touch
from freezeflow.graph.graph import ControlResult, Function, Graph, Node, node_of
from freezeflow.graph.handles import READS, Handle
from freezeflow.graph.initial import initial_values
from freezeflow.graph.model import Model
from freezeflow.graph.shared_names import identity
from freezeflow.graph.specialise import Specialiser
from freezeflow.graph.variables import HANDLES, IGNORED, PYTHON_CALLS, RESOURCE_HANDLE, WRITES
from freezeflow.values import DType, TensorRef

_WRITTEN = (
    "Its value changes from call to call, so it is no constant. Freeze a signature that"
    " does not write it, bind the input that switches training on (bind: {training: false}),"
    " keep the variable in a SavedModel (written: keep), or drop the write (written: drop)."
)
_UNORDERED = (
    "Neither waits for the other, so that chance decides which comes first: let the read wait for the write"
    " (tf.control_dependencies) and read by read_value(). " + _WRITTEN
)
_WRITTEN_BEFORE = (
    "Its value is not that of the checkpoint, and not the same for every start, or not known without"
    " running the model. Save the model without that initializer, keep the variable in a SavedModel"
    " (written: keep), or drop the write (written: drop)."
)
_TABLE_WRITES = ("InitializeTable", "LookupTableImport", "LookupTableInsert")


class Frozen(NamedTuple):
    """A frozen model, with figures for the report.

    Args:
        model: The model; its only variables are those that were kept.
        variables: How many variables outputs or initializers still read as constants.
        writes_dropped: How many writes were taken out.
        seen_writes: Those of them that an output sees, in words.
    """

    model: Model
    variables: int
    writes_dropped: int
    seen_writes: tuple[str, ...]


# What to do about a variable that is written while an output sees it.
Written = Literal["error", "keep", "drop"]


def freeze_variables(model: Model, *, written: Written = "error") -> Frozen:
    """Turns a model's variables into constants.

    Args:
        model: A loaded model.
        written: What to do about variables whose writes an output sees: refuse the model, keep them
            as variables, or take out the writes, too.

    Raises:
        ModelRefused: An output sees a write, a variable that is read has no value, or an op does
            something with a variable that is not known.
    """
    kept: set[str] = set()
    while True:
        attempt = _Attempt(model, kept)
        seen = attempt.seen_writes()
        if seen and written == "error":
            raise attempt.refused(*seen[0])
        if not seen or written == "drop":
            return attempt.finished(seen)
        # A kept variable may be written from another one, whose writes are then seen as well.
        kept = attempt.with_aliases({*kept, *(variable for variable, _, _ in seen)})


class WriteEffect(NamedTuple):
    """A write of a variable that happens while a signature runs.

    Args:
        variable: The variable's handle node.
        op: The op that writes.
        path: Through calling nodes to that op.
        read: The path to a read of the variable that an output needs; empty where none is.
    """

    variable: str
    op: str
    path: tuple[str, ...]
    read: tuple[str, ...]


def write_effects(model: Model) -> tuple[WriteEffect, ...]:
    """Every write of a loaded model's variables, and whether an output sees it.

    Raises:
        ModelRefused: An op does something with a variable that is not known.
    """
    return _Attempt(model, ()).write_effects()


def written_handles(model: Model) -> set[str]:
    """The handle nodes of the main graph whose variable is written, by a call or an initializer.

    A write of the value that the variable has anyway does not count.

    Raises:
        ModelRefused: An op does something with a variable that is not known.
    """
    return _Attempt(model, ()).written_handles()


class _Attempt:
    """A model with all variables frozen but those that are to be kept."""

    def __init__(self, model: Model, kept: Collection[str]) -> None:
        signatures = model.signatures.values()
        outputs = [spec.tensor for signature in signatures for spec in signature.outputs.values()]
        inputs = [spec.tensor for signature in signatures for spec in signature.inputs.values()]
        called = walk.reached_nodes(model.graph.nodes, outputs)
        self._model = model
        self._freezer = _Freezer(model, called, kept)
        calls = [walk.reached_nodes(model.graph.nodes, ends) for ends in _ends_of_calls(model)]
        self._scope = Scope(self._freezer, model.graph.nodes, {}, called, calls, outputs)
        nodes = self._scope.run()
        _check_outputs(model, self._scope.handles)
        needed = walk.reached_nodes(nodes, [*outputs, *kept])
        self._init = self._freezer.initializers(nodes, model.init, needed)
        self._nodes = self._freezer.cleaned(nodes, [*outputs, *inputs, *self._init, *kept])
        self._initial_writes = self._unfollowed(walk.reached_nodes(model.graph.nodes, model.init))
        self._reads = [
            touch
            for name, touches in self._scope.reads.items()
            if name in self._nodes
            for touch in touches
        ]

    def seen_writes(self) -> list[tuple[str, Touch, Touch]]:
        """Variable, write and read, for each write of a frozen variable that is still read.

        A write is one of the call, or one of the initializers whose outcome is not known.
        """
        read_by = {variable: read for read in self._reads for variable in read.variables}
        return [
            (variable, write, read_by[variable])
            for write in (*self._scope.writes, *self._initial_writes)
            for variable in write.variables
            if variable in read_by
        ]

    def _unfollowed(self, initializing: Container[str]) -> list[Touch]:
        """Writes of the initializers that give a variable another value than the one it has here."""
        return [
            write
            for write in self._scope.writes_elsewhere
            if write.path[0] in initializing and not self._freezer.follows(write)
        ]

    def write_effects(self) -> tuple[WriteEffect, ...]:
        """All writes, each with a read that an output needs."""
        read_by = {variable: read.path for read in self._reads for variable in read.variables}
        return tuple(
            WriteEffect(variable, write.op, write.path, read_by.get(variable, ()))
            for write in self._scope.writes
            for variable in write.variables
        )

    def written_handles(self) -> set[str]:
        """Handle nodes of variables that are written."""
        initial = walk.reached_nodes(self._model.graph.nodes, self._model.init)
        elsewhere = (t for t in self._scope.writes_elsewhere if t.path[0] in initial)
        written = {v for touch in (*self._scope.writes, *elsewhere) for v in touch.variables}
        handles = self._scope.handles.items()
        return {name for name, handle in handles if not written.isdisjoint(handle.variables)}

    def refused(self, variable: str, write: Touch, read: Touch) -> ModelRefused:
        """What to raise for one of the writes that an output sees."""
        initial = write in self._initial_writes
        return ModelRefused(
            f"variable {variable!r} is written by {write.op} while the"
            f" {'initializer' if initial else 'signature'} runs,"
            f" and read by {read.op} at {' > '.join(read.path)}",
            where=" > ".join(write.path),
            hint=self._way_on(write, read),
        )

    def _way_on(self, write: Touch, read: Touch) -> str:
        if write in self._initial_writes:
            return _WRITTEN_BEFORE
        return _UNORDERED if self._are_unordered(write.path, read.path) else _WRITTEN

    def _are_unordered(self, write: Sequence[str], read: Sequence[str]) -> bool:
        """Whether of two nodes of the main graph neither waits for the other."""
        nodes = self._model.graph.nodes
        places = (write[0], read[0])
        return all(name in nodes for name in places) and not any(
            one in walk.reached_nodes(nodes, [other]) for one, other in (places, places[::-1])
        )

    def with_aliases(self, kept: set[str]) -> set[str]:
        """The variables with those that meet them where a handle may be one of several."""
        groups = [h.variables for h in self._scope.handles.values() if len(h.variables) > 1]
        groups += self._freezer.met
        grown = {v for group in groups if kept.intersection(group) for v in group} | kept
        return grown if grown == kept else self.with_aliases(grown)

    def finished(self, seen: list[tuple[str, Touch, Touch]]) -> Frozen:
        """The frozen model.

        Args:
            seen: Writes that an output sees, and that were taken out by wish.
        """
        _check_values(self._nodes, self._model)
        graph = walk.without_unused(
            dataclasses.replace(
                self._model.graph, nodes=self._nodes, functions=self._freezer.functions
            )
        )
        variables = self._freezer.kept_values(self._nodes)
        _check_portable(graph, with_variables=bool(variables))
        return Frozen(
            dataclasses.replace(self._model, graph=graph, variables=variables, init=self._init),
            len({variable for read in self._reads for variable in read.variables}),
            len(self._scope.writes),
            tuple(f"{write.op} at {' > '.join(write.path)} ({name})" for name, write, _ in seen),
        )


def _ends_of_calls(model: Model) -> list[list[str]]:
    """For each signature, the tensors that a call computes."""
    return [[s.tensor for s in each.outputs.values()] for each in model.signatures.values()]


class _Freezer(Specialiser):
    """Gives constants and specialised functions to the scopes of one model."""

    rules = Rules(handles=HANDLES, reads=READS, writes=WRITES, ignored=IGNORED)

    def __init__(self, model: Model, called: Container[str], kept: Collection[str]) -> None:
        super().__init__(model.graph)
        self._values = model.variables
        self._kept = kept
        self._initial = initial_values(model)
        self._effects = Effects(
            Graph(nodes={}, functions=self.functions, op_defs=model.graph.op_defs)
        )
        variable_ops = set(filter(_is_on_variables, {n.op for n in _all_nodes(model.graph)}))
        counts = order_matters(
            model.graph, self._effects, called=called, without=() if kept else variable_ops
        )
        # A write of a frozen variable that is still there gives an output; it stays only for who
        # takes that.
        self._counts = lambda node: counts(node) and (bool(kept) or not WRITES.match(node.op))
        self._names = _names_by_identity(model)

    def constant(self, node: Node) -> tuple[Node | None, Handle] | None:
        """The node that a variable becomes, None if it has no value, and its handle."""
        name = self._name(node)
        if name in self._kept:
            return None
        dtype = attrs.to_type(node.attrs["dtype"])
        if name in self._initial:
            made = {"T": attrs.of_type(dtype)}
            value = Node(node.name, "Identity", (self._initial[name],), made)
            # The tensor that the initializer assigns is one of the main graph.
            if self._is_main(node):
                return value, Handle(dtype, None, (name,))
        own = node.name if self._is_main(node) and node.name in self._values else name
        if own not in self._values:
            shape = attrs.to_shape(node.attrs["shape"]) if "shape" in node.attrs else None
            return None, Handle(dtype, shape, (name,))
        value = self._values[own]
        shape = attrs.read_shape(attrs.message(value.attrs["value"]).tensor.tensor_shape)
        return value._replace(name=node.name), Handle(dtype, shape, (name,))

    def is_value_of(self, constant: Node, variable: str) -> bool:
        if variable in self._initial or variable not in self._values:
            return False
        return _contents(constant) == _contents(self._values[variable])

    def follows(self, write: Touch) -> bool:
        """Whether an initializer's write gives its variable the value that it has here.

        One that assigns a random value stands aside: models are saved with the initializer that they
        were trained from, and what is meant is the checkpoint's value.
        """
        return len(write.path) == 1 and write.op in ("Assign", "AssignVariableOp")

    def _is_main(self, node: Node) -> bool:
        return self.graph.nodes.get(node.name) is node

    def _name(self, node: Node) -> str:
        """What a variable is called here: the first of the nodes that are the same variable.

        In a function's body a node's name says nothing: what it shares with the main graph does.
        """
        shared = self._names.get(identity(node), ())
        if self._is_main(node):
            mine = self._values.get(node.name)
            same = [name for name in shared if _same_value(mine, self._values.get(name))]
            return same[0] if same else node.name
        return shared[0] if shared else node.name

    def kept_values(self, nodes: Mapping[str, Node]) -> dict[str, Node]:
        """The value of each handle of a variable that stays, by the handle's name.

        A body's handle, inlined, that shares a variable of the main graph by name has no value beside.

        Raises:
            ModelRefused: One has none, and its shape is not known.
        """
        handles = [
            node
            for node in nodes.values()
            if node.op in HANDLES and (node.name in self._values or node.name == self._name(node))
        ]
        return {node.name: self._values.get(node.name) or _zeros(node) for node in handles}

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

    def cleaned(self, nodes: Mapping[str, Node], roots: Iterable[str]) -> Mapping[str, Node]:
        """What the roots need, without control edges for which nobody has to wait."""
        kept = drop_idle_control(nodes, awaited(nodes, self._counts))
        return drop_dangling(walk.among(kept, walk.reached_nodes(kept, roots)))


def _all_nodes(graph: Graph) -> Iterator[Node]:
    yield from graph.nodes.values()
    for function in graph.functions.values():
        yield from function.nodes.values()


def _is_on_variables(op: str) -> bool:
    return op in HANDLES or op in READS or op in IGNORED or bool(WRITES.match(op))


def _names_by_identity(model: Model) -> dict[tuple[bytes, bytes], list[str]]:
    """The handles of the main graph that are one variable by their names, those with a value first."""
    names: dict[tuple[bytes, bytes], list[str]] = {}
    for node in model.graph.nodes.values():
        if node.op in HANDLES:
            names.setdefault(identity(node), []).append(node.name)
    return {
        key: sorted(same, key=lambda name: (name not in model.variables, name))
        for key, same in names.items()
    }


def _same_value(a: Node | None, b: Node | None) -> bool:
    """Whether two values are one: TensorFlow 2 has different variables under one shared name."""
    if a is None or b is None or a is b:
        return True
    tensors = [node.tensor and (node.tensor.digest, node.tensor.shape) for node in (a, b)]
    return a.attrs == b.attrs and tensors[0] == tensors[1]


def _contents(constant: Node) -> tuple[Any, ...]:
    """What makes a constant, wherever its bytes lie."""
    dtype, shape, value = value_of(constant)
    return dtype, shape, value.digest if isinstance(value, TensorRef) else value


def _zeros(handle: Node) -> Node:
    """What the checkpoint holds for a kept variable that only the initializer gives a value."""
    dtype = attrs.to_type(handle.attrs["dtype"])
    shape = attrs.to_shape(handle.attrs["shape"]) if "shape" in handle.attrs else None
    sizes = [size for size in shape or () if size is not None]
    if shape is None or len(sizes) != len(shape):
        raise ModelRefused(
            f"variable {handle.name!r} is to be kept, but has no value in the checkpoint and no"
            " known shape",
            where=handle.name,
            hint="Save the model after the variable was initialised.",
        )
    count = math.prod(sizes)
    content = [b""] * count if dtype is DType.STRING else bytes(count * dtype.item_bytes)
    return const(handle.name, dtype, tuple(sizes), content)


def _initialises_needed(node: Node, nodes: Mapping[str, Node], needed: set[str]) -> bool:
    """Whether an initialiser matters: what it fills, a table or a variable, is needed by a call."""
    if not node.op.startswith(_TABLE_WRITES) and not WRITES.match(node.op):
        return True
    filled = node_of(node.inputs[0])
    while nodes[filled].op in ("Identity", "RefIdentity"):
        filled = node_of(nodes[filled].inputs[0])
    return filled in needed


def _check_portable(graph: Graph, *, with_variables: bool) -> None:
    """Refuses what only works in the process that built the graph, and uses of what is not there."""
    scopes = {"": graph.nodes, **{name: f.nodes for name, f in graph.functions.items()}}
    for scope, nodes in scopes.items():
        for node in nodes.values():
            where = f"{scope} > {node.name}" if scope else node.name
            if node.op in PYTHON_CALLS:
                raise ModelRefused(
                    f"op {node.op} calls Python code, which is not in the graph",
                    where=where,
                    hint="Rewrite tf.py_function or tf.numpy_function with TensorFlow ops, then save"
                    " the model again.",
                )
            if node.op == TEMPORARY:
                raise ModelRefused(
                    "a temporary variable is written in no certain order, or under TF1's control flow",
                    where=where,
                    hint="What it gives may depend on which op comes first. Build the model with tensors,"
                    " as tf.add_n does for a sum.",
                )
            if with_variables:
                continue
            if node.op in READS or node.op == RESOURCE_HANDLE:
                raise ModelRefused(
                    f"op {node.op} takes a variable from where it cannot be followed",
                    where=where,
                    hint="The model has an op of its own that hands on variables, or it is damaged.",
                )
            if WRITES.match(node.op):
                raise ModelRefused(
                    f"op {node.op} cannot do without its write",
                    where=where,
                    hint="Keep the variable (written: keep), or freeze outputs that do not need it.",
                )


def _check_values(nodes: Mapping[str, Node], model: Model) -> None:
    """Refuses if a variable without a value is still read."""
    for node in nodes.values():
        for tensor in node.inputs:
            name = tensor if tensor in nodes else node_of(tensor)
            if name not in nodes and name in model.graph.nodes:
                raise ModelRefused(
                    f"variable {name!r} has no value: the checkpoint does not restore it",
                    where=node.name,
                    hint="Save the model after the variable was initialised, or freeze outputs"
                    " that do not need it.",
                )


def _check_outputs(model: Model, handles: Mapping[str, Handle]) -> None:
    """Refuses an output that is a variable itself; one that is a TF1 reference gives its value."""
    for signature in model.signatures.values():
        for key, spec in signature.outputs.items():
            handle = handles.get(spec.tensor)
            if handle is not None and not handle.is_ref:
                raise ModelRefused(
                    f"output {key!r} is the handle of variable {', '.join(handle.variables)},"
                    " and a frozen graph has no variables",
                    where=spec.tensor,
                    hint="Return the variable's value (read_value()), or freeze a signature without"
                    " this output.",
                )
