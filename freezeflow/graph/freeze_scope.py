"""Rewrites one set of nodes, the main graph or a function's body, from handles to values."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from freezeflow.errors import ModelRefused
from freezeflow.graph import attrs, ops, walk
from freezeflow.graph.effects import V1_CONTROL_FLOW
from freezeflow.graph.forward import ASSIGNS, forward_writes
from freezeflow.graph.graph import Function, Graph, Node, data_inputs, join, waits
from freezeflow.graph.handles import Handle, Read, meet
from freezeflow.graph.variables import (
    FUNCTION_USES,
    OLD_VALUE_WRITES,
    REF_TWINS,
    REF_VARIABLES,
    FunctionUse,
)
from freezeflow.values import DType

# Says which inputs are handles that only get read; wrong once they are values.
_STALE_ATTRS = frozenset({"_read_only_resource_inputs"})

# So that a message can show where something happens without growing with the number of places.
_MAX_TOUCHES = 100


class Touch(NamedTuple):
    """A place that reads or writes variables: the path leads through calling nodes to the op."""

    variables: tuple[str, ...]
    op: str
    path: tuple[str, ...]

    def inside(self, caller: str) -> Touch:
        return self._replace(path=(caller, *self.path))


class Specialised(NamedTuple):
    """A function rewritten for given handles.

    Args:
        name: Its new name.
        results: For each result the handle that it carries, or None.
        reads: Reads that are left in it.
        writes: Writes that were taken out of it.
    """

    name: str
    results: tuple[Handle | None, ...]
    reads: tuple[Touch, ...]
    writes: tuple[Touch, ...]


class Rules(NamedTuple):
    """The ops on the resources that become values: variables, or tables.

    Args:
        handles: Ops that are such a resource.
        reads: Ops that read one, with what they become.
        writes: Ops that change one.
        ignored: Ops that do neither and give nothing.
    """

    handles: Collection[str]
    reads: Mapping[str, Read]
    writes: re.Pattern[str]
    ignored: Collection[str] = frozenset()


class Freezer(Protocol):
    """What a scope asks of the one who freezes the whole model."""

    graph: Graph
    rules: Rules

    def constant(self, node: Node) -> tuple[Node | None, Handle] | None:
        """The node that a resource becomes, None if it has no value, and its handle.

        None for a resource that stays what it is.
        """

    def specialise(self, name: str, given: tuple[Handle | None, ...]) -> Specialised:
        """A function of the library, rewritten for the handles that it is given."""

    def is_value_of(self, constant: Node, variable: str) -> bool:
        """Whether a Const is what a variable holds before the first call, to the bit."""

    def not_known(self, node: Node, resources: tuple[str, ...]) -> Exception:
        """What to raise where a node does with resources what is not known."""


@dataclasses.dataclass
class Scope:
    """One scope while it is rewritten.

    Args:
        freezer: Gives constants and specialised functions.
        nodes: The nodes as they were.
        handles: Tensors that carry handles, by their old names; arguments come in here.
        nodes_called: The nodes that run in a call; None for all.
        calls: Those of each call that can be made, where there are several.
        results: Tensors that a caller takes.
        writes_elsewhere: Writes by nodes that do not.
    """

    freezer: Freezer
    nodes: Mapping[str, Node]
    handles: dict[str, Handle]
    nodes_called: set[str] | None = None
    calls: Sequence[Collection[str]] = ()
    results: Collection[str] = ()
    reads: dict[str, list[Touch]] = dataclasses.field(default_factory=dict)
    writes: list[Touch] = dataclasses.field(default_factory=list)
    writes_elsewhere: list[Touch] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self._out: dict[str, Node] = {}
        self._moved: dict[str, str] = {}
        self._in_frames = any(node.op in V1_CONTROL_FLOW for node in self.nodes.values())
        self._written: Mapping[str, Handle] = {}

    def run(self) -> dict[str, Node]:
        """The rewritten nodes; control inputs on writes that were taken out are gone.

        Raises:
            ModelRefused: An op does something with a variable that is not known.
        """
        given = dict(self.handles)
        self._forward()
        order = walk.inputs_first(self.nodes)
        for name in order:
            self._rewrite(self.nodes[name])
        while self._widen_loops(given):
            self.handles, self.reads, self._out, self._moved = dict(given), {}, {}, {}
            self.writes, self.writes_elsewhere = [], []
            for name in order:
                self._rewrite(self.nodes[name])
        return {name: self._settled(node) for name, node in self._out.items()}

    def _forward(self) -> None:
        """Leads reads of what the same call has written to what was written."""
        if not any(node.op in ASSIGNS for node in self.nodes.values()):
            return
        handles = dict(self.handles)
        for node in self.nodes.values():
            found = self.freezer.constant(node) if node.op in self.freezer.rules.handles else None
            if found is not None:
                handles[node.name] = found[1]._replace(is_ref=node.op in REF_VARIABLES)
        called = self.nodes if self.nodes_called is None else self.nodes_called
        self.nodes, self._written = forward_writes(
            self.freezer.graph, self.nodes, handles, self.calls or [called], self.results
        )

    def _widen_loops(self, given: dict[str, Handle]) -> bool:
        """Lets a TF1 loop's Merge start from all the variables that come round to it."""
        wider = {}
        for name, node in self.nodes.items():
            if name in self.handles and node.op in ("Merge", "RefMerge"):
                inputs = [self.handles[t] for t in data_inputs(node) if t in self.handles]
                union = meet([self.handles[name], *inputs], name)
                if union != self.handles[name]:
                    wider[name] = union
        given.update(wider)
        return bool(wider)

    def _settled(self, node: Node) -> Node:
        if self._moved.keys().isdisjoint(node.inputs) and not waits(node):
            return node
        inputs = tuple(
            self._moved.get(tensor, tensor)
            for tensor in node.inputs
            if not tensor.startswith("^") or tensor[1:] in self._out
        )
        return node if inputs == node.inputs else node._replace(inputs=inputs)

    def _rewrite(self, node: Node) -> None:
        rules = self.freezer.rules
        if node.name in self._written:
            self.handles[node.name] = self._written[node.name]
            self._out[node.name] = node
            return
        if node.op in rules.handles and self._become_constant(node):
            return
        given = self._handles_given(node.inputs)
        if node.op in FUNCTION_USES or any(walk.named_functions(self.freezer.graph, node)):
            self._call(node, given)
        elif not given:
            self._out[node.name] = node
        elif node.op in rules.reads:
            self._read(node, given)
        elif rules.writes.match(node.op):
            self._write(node, given)
        elif node.op in REF_TWINS:
            self._pass_on(node._replace(op=REF_TWINS[node.op]), given)
        elif all(handle.is_ref for handle in given.values()):
            self._read_plainly(node, given)
        elif node.op not in rules.ignored:
            self._pass_on(node, given)

    def _handles_given(self, inputs: tuple[str, ...]) -> dict[int, Handle]:
        if self.handles.keys().isdisjoint(inputs):
            return {}
        return {i: self.handles[t] for i, t in enumerate(inputs) if t in self.handles}

    # ------------------------------------------------------------ variables

    def _become_constant(self, node: Node) -> bool:
        """Whether the resource is one that becomes a value; others stay what they are."""
        found = self.freezer.constant(node)
        if found is None:
            return False
        constant, handle = found
        self.handles[node.name] = handle._replace(is_ref=node.op in REF_VARIABLES)
        if constant is not None:
            control = tuple(i for i in node.inputs if i.startswith("^"))
            self._out[node.name] = constant._replace(inputs=(*constant.inputs, *control))
        return True

    def _read(self, node: Node, given: Mapping[int, Handle]) -> None:
        new = self.freezer.rules.reads[node.op](node, given[0], self._in_frames)
        for made in new.nodes:
            self._out[made.name] = made
        for index, tensor in enumerate(new.outputs):
            if tensor != join(node.name, index):
                self._moved[join(node.name, index)] = tensor
        if node.op not in ("VariableShape", "VarIsInitializedOp", "IsVariableInitialized"):
            variables = sorted({v for handle in given.values() for v in handle.variables})
            for made in new.nodes:
                self.reads[made.name] = [Touch(tuple(variables), node.op, (node.name,))]

    def _read_plainly(self, node: Node, given: Mapping[int, Handle]) -> None:
        """An op that takes a TF1 variable where it wants a value."""
        definition = self.freezer.graph.op_def(node.op)
        if definition is not None and any(
            arg.is_ref
            for arg, _, index in _places(definition.inputs, node, definition)
            if index in given
        ):
            raise self._unknown(node, given)
        values = {
            key: attrs.of_type(attrs.to_type(data)) if attrs.kind(data) == "type" else data
            for key, data in node.attrs.items()
        }
        self._out[node.name] = node._replace(attrs=values)
        variables = sorted({v for handle in given.values() for v in handle.variables})
        self.reads[node.name] = [Touch(tuple(variables), node.op, (node.name,))]

    def _write(self, node: Node, given: Mapping[int, Handle]) -> None:
        variables = given[min(given)].variables
        if not self._changes_nothing(node, variables):
            self._writes_of(node).append(Touch(variables, node.op, (node.name,)))
        definition = self.freezer.graph.op_def(node.op)
        if definition is None or not definition.outputs:
            return
        if definition.outputs[0].is_ref:
            # The reference that comes out is the variable itself; who reads it sees the write.
            handle = given[min(given)]
            value = next(data_inputs(node))
            self._out[node.name] = Node(
                node.name, "Identity", (value,), {"T": attrs.of_type(handle.dtype)}
            )
            self.handles[node.name] = handle
            return
        if node.op in OLD_VALUE_WRITES:
            made = {"T": attrs.of_type(given[0].dtype)}
            node = Node(node.name, "Identity", (node.inputs[0], *_controls(node)), made)
        self._out[node.name] = node
        self.reads[node.name] = [Touch(variables, node.op, (node.name,))]

    def _changes_nothing(self, write: Node, variables: Sequence[str]) -> bool:
        """Whether a write assigns the very value that there is, as that of a flag which is set."""
        if write.op not in ASSIGNS:
            return False
        source = self.nodes.get(list(data_inputs(write))[1])
        while source is not None and source.op == "Identity":
            source = self.nodes.get(next(data_inputs(source)))
        if source is None or source.op != "Const":
            return False
        return all(self.freezer.is_value_of(source, variable) for variable in variables)

    # ------------------------------------------------------------ handles passed on

    def _pass_on(self, node: Node, given: Mapping[int, Handle]) -> None:
        """An op for which a handle is like any other tensor: its type attributes change."""
        definition = self.freezer.graph.op_def(node.op)
        if definition is None:
            raise self._unknown(node, given)
        values = self._retyped(node, definition, given)
        by_attr: dict[str, dict[int, Handle]] = {}
        for arg, position, index in _places(definition.inputs, node, definition):
            if index in given:
                by_attr.setdefault(arg.type_list_attr or arg.type_attr, {})[position] = given[index]
        self._out[node.name] = node._replace(attrs=values)
        for arg, position, index in _places(definition.outputs, node, definition):
            met = by_attr.get(arg.type_list_attr or arg.type_attr, {})
            if arg.type_list_attr and position in met:
                self.handles[join(node.name, index)] = met[position]
            elif not arg.type_list_attr and met:
                seed = self.handles.get(join(node.name, index))
                everyone = [*met.values(), seed] if seed else list(met.values())
                self.handles[join(node.name, index)] = meet(everyone, node.name)

    def _retyped(
        self, node: Node, definition: ops.OpDef, given: Mapping[int, Handle]
    ) -> dict[str, bytes]:
        """The node's attributes with the dtypes of handles replaced by those of their values."""
        values = {key: data for key, data in node.attrs.items() if key not in _STALE_ATTRS}
        for arg, position, index in _places(definition.inputs, node, definition):
            if index not in given:
                continue
            if arg.type_list_attr:
                values[arg.type_list_attr] = _with_type(
                    values[arg.type_list_attr], position, given[index].dtype
                )
            elif arg.type_attr:
                values[arg.type_attr] = attrs.of_type(given[index].dtype)
            else:
                raise self._unknown(node, given)
        return values

    def _unknown(self, node: Node, given: Mapping[int, Handle]) -> Exception:
        resources = {v for handle in given.values() for v in handle.variables}
        return self.freezer.not_known(node, tuple(sorted(resources)))

    # ------------------------------------------------------------ functions

    def _call(self, node: Node, given: Mapping[int, Handle]) -> None:
        """A node with functions: each is specialised for the handles that it gets."""
        uses = FUNCTION_USES.get(node.op, ())
        definition = self.freezer.graph.op_def(node.op)
        if definition is None or (given and not uses):
            raise self._unknown(node, given)
        given = self._round_loop(node, definition, uses, given)
        values = self._retyped(node, definition, given)
        returned: list[tuple[Handle | None, ...]] = []
        reads: list[Touch] = []
        for use in uses:
            made = self._specialise(node, definition, use, given)
            values[use.attr] = _renamed_functions(node.attrs[use.attr], [m.name for m in made])
            returned += [m.results for m in made if use.returns]
            reads += [touch for m in made for touch in m.reads]
            self._note_writes(node, made)
        named = {use.attr for use in uses}
        for key, data in node.attrs.items():
            if key not in named and attrs.function_names(data):
                values[key] = self._without_handles(node, data)
        if reads:
            self.reads[node.name] = [touch.inside(node.name) for touch in reads[:_MAX_TOUCHES]]
        self._return(node, definition, values, returned)

    def _note_writes(self, node: Node, made: Sequence[Specialised]) -> None:
        writes = self._writes_of(node)
        writes += [w.inside(node.name) for m in made for w in m.writes[:_MAX_TOUCHES]]

    def _writes_of(self, node: Node) -> list[Touch]:
        called = self.nodes_called is None or node.name in self.nodes_called
        return self.writes if called else self.writes_elsewhere

    def _specialise(
        self, node: Node, definition: ops.OpDef, use: FunctionUse, given: Mapping[int, Handle]
    ) -> list[Specialised]:
        handles = [
            given.get(index)
            for arg, _, index in _places(definition.inputs, node, definition)
            if arg.name in use.inputs
        ]
        made = []
        for name in attrs.function_names(node.attrs[use.attr]):
            function = self.freezer.graph.functions[name]
            made.append(self.freezer.specialise(name, _placed(function, handles, use, node)))
        return made

    def _round_loop(
        self,
        node: Node,
        definition: ops.OpDef,
        uses: Sequence[FunctionUse],
        given: Mapping[int, Handle],
    ) -> dict[int, Handle]:
        """For a loop: the handles that its body may get in any round."""
        current = dict(given)
        for use in uses:
            if not use.loops:
                continue
            first = next(
                (
                    index
                    for arg, _, index in _places(definition.inputs, node, definition)
                    if arg.name in use.inputs
                ),
                0,
            )
            while True:
                (body,) = self._specialise(node, definition, use, current)
                wider = dict(current)
                for position, handle in enumerate(body.results):
                    index = first + position
                    if handle is not None:
                        wider[index] = meet([wider.get(index, handle), handle], node.name)
                if wider == current:
                    break
                current = wider
        return current

    def _without_handles(self, node: Node, data: bytes) -> bytes:
        """A function attribute that gets no captured variables: bodies may still hold some."""
        if attrs.kind(data) == "func":
            names = [attrs.to_function(data)[0]]
        else:
            names = [name for name, _ in attrs.to_functions(data)]
        made = []
        for name in names:
            function = self.freezer.graph.functions.get(name)
            nothing = (None,) * len(function.args) if function else ()
            made.append(self.freezer.specialise(name, nothing).name if function else name)
        return _renamed_functions(data, made)

    def _return(
        self,
        node: Node,
        definition: ops.OpDef,
        values: dict[str, bytes],
        returned: Sequence[tuple[Handle | None, ...]],
    ) -> None:
        shapes = attrs.to_shapes(values["output_shapes"]) if "output_shapes" in values else ()
        known = list(shapes)
        columns = zip(*returned, strict=True) if returned else iter(())
        places = list(_places(definition.outputs, node, definition))
        for (arg, position, index), column in zip(places, columns, strict=False):
            handles = [handle for handle in column if handle is not None]
            if not handles:
                continue
            if len(handles) != len(column):
                raise self._unknown(node, dict(enumerate(handles)))
            handle = meet(handles, node.name)
            self.handles[join(node.name, index)] = handle
            values[arg.type_list_attr] = _with_type(
                values[arg.type_list_attr], position, handle.dtype
            )
            if index < len(known):
                known[index] = handle.shape
        if known != list(shapes):
            values["output_shapes"] = attrs.of_shapes(known)
        self._out[node.name] = node._replace(attrs=values)


def _places(
    args: tuple[ops.ArgDef, ...], node: Node, definition: ops.OpDef
) -> Iterator[tuple[ops.ArgDef, int, int]]:
    """For every tensor of a node: its argument, its position in that, its position in all."""
    index = 0
    grouped = ops.arg_types(args, node.attrs, definition.defaults)
    for arg, types in zip(args, grouped, strict=True):
        for position in range(len(types)):
            yield arg, position, index
            index += 1


def _placed(
    function: Function, handles: Sequence[Handle | None], use: FunctionUse, node: Node
) -> tuple[Handle | None, ...]:
    """Handles in the places of the function's arguments."""
    arity = len(function.args)
    before = arity - len(handles) if use.leading is None else use.leading
    after = arity - before - len(handles)
    if before < 0 or after < 0:
        raise ModelRefused(
            f"{node.op} gives {len(handles)} inputs to function {function.name!r} of {arity} arguments",
            where=node.name,
            hint="The file is damaged or was edited; write the model again.",
        )
    return (*(None,) * before, *handles, *(None,) * after)


def _controls(node: Node) -> tuple[str, ...]:
    return tuple(tensor for tensor in node.inputs if tensor.startswith("^"))


def _with_type(data: bytes, position: int, dtype: DType) -> bytes:
    types = list(attrs.to_types(data))
    types[position] = dtype
    return attrs.of_types(types)


def _renamed_functions(data: bytes, names: Sequence[str]) -> bytes:
    if attrs.kind(data) == "func":
        return attrs.of_function(names[0])
    return attrs.of_functions((name, {}) for name in names)
