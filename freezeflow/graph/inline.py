"""Calls replaced by the bodies of the functions that they call.

Only plain calls are inlined (PartitionedCall, StatefulPartitionedCall, and functions called by their
name); If, Case, While and the like stay functional, with calls in their bodies inlined. Functions
marked ``_noinline`` or ``jit_compile`` are inlined, too: the marks steer compilation, not meaning.

What a call guarantees is kept: when any of its results is used, every effect of its body happens, and
every effect on the way to its inputs, also to those that the body does not need; a node that waits for
the call waits for these effects. Source of the semantics: upstream
``core/common_runtime/inline_function_utils.h``.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from freezeflow.errors import ModelRefused
from freezeflow.graph import attrs, walk
from freezeflow.graph.effects import CHOSEN_ATTR, FUNCTIONAL, V1_CONTROL_FLOW, Effects, behind
from freezeflow.graph.graph import (
    Function,
    Graph,
    Node,
    control_inputs,
    data_inputs,
    join,
    node_of,
    waits,
)
from freezeflow.graph.model import Model
from freezeflow.values import DType, Signature

CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})

# Bodies are copied into every call of them. Over this many nodes in all, only small ones are: thirty
# functions that call each other twice would come to 2**30 nodes. What is kept means the same.
MAX_INLINED_NODES = 500_000
_SMALL_FUNCTION = 100

# TensorFlow's own names for the calls that it makes around a user's function: noise in a path.
_DEFAULT_CALL_NAME = re.compile(r"(Stateful)?PartitionedCall(_\d+)?$")

Bindings = Mapping[str, bytes]


class Inlined(NamedTuple):
    """A graph without calls, and where the tensors of the old one are in it."""

    graph: Graph
    tensors: Mapping[str, str]


def inline_calls(graph: Graph, tensors: Iterable[str], targets: Iterable[str]) -> Inlined:
    """Inlines every plain call.

    Args:
        graph: The graph.
        tensors: Tensors of the main graph whose new names are wanted.
        targets: Nodes of the main graph that are run for their effect and keep their names.

    Raises:
        ModelRefused: A function calls itself, or a call does not fit its function.
    """
    inliner = _Inliner(graph)
    scope = _Scope(inliner, graph.nodes)
    scope.expand()
    for target in targets:
        if target in scope.calls:
            scope.add_done(target, name=target)
    nodes = scope.finish()
    moved = {tensor: scope.resolve(tensor) for tensor in tensors}
    functions = inliner.functions_of(nodes.values())
    return Inlined(dataclasses.replace(graph, nodes=nodes, functions=functions), moved)


def inline_model(model: Model) -> Model:
    """A model with every plain call inlined; its signatures follow the tensors."""
    outputs = [s.tensor for sig in model.signatures.values() for s in sig.outputs.values()]
    inlined = inline_calls(model.graph, outputs, model.init)
    signatures = {
        name: Signature(
            signature.inputs,
            {
                key: dataclasses.replace(spec, tensor=inlined.tensors[spec.tensor])
                for key, spec in signature.outputs.items()
            },
        )
        for name, signature in model.signatures.items()
    }
    return dataclasses.replace(model, graph=inlined.graph, signatures=signatures)


class _Inliner:
    """What all scopes share: sizes, effects, functions already rewritten."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.effects = Effects(graph)
        self._sizes = _expanded_sizes(graph)
        total = sum(self._size_of(node) for node in graph.nodes.values())
        self._all = total <= MAX_INLINED_NODES
        self._names: dict[tuple[str, tuple[tuple[str, bytes], ...]], str] = {}
        self._taken = set(graph.functions)
        bodies = (graph.nodes, *(function.nodes for function in graph.functions.values()))
        self.has_v1_control_flow = any(
            node.op in V1_CONTROL_FLOW for nodes in bodies for node in nodes.values()
        )
        self.has_effects = any(self.effects.node(n) for nodes in bodies for n in nodes.values())

    def _size_of(self, node: Node) -> int:
        call = call_of(self.graph, node)
        return 1 if call is None else self._sizes[call[0]]

    def inlines(self, node: Node) -> tuple[Function, Bindings] | None:
        """The function that a node calls, if the call is to be inlined."""
        call = call_of(self.graph, node)
        if call is None or not (self._all or self._sizes[call[0]] <= _SMALL_FUNCTION):
            return None
        return self.graph.functions[call[0]], call[1]

    def functions_of(self, nodes: Iterable[Node]) -> dict[str, Function]:
        """The functions that the nodes still name, calls in their bodies inlined."""
        done: dict[str, Function] = {}
        stack = self._named_by(nodes)
        while stack:
            name = stack.pop()
            if name not in done:
                done[name] = self._rewrite(self.graph.functions[name])
                stack += self._named_by(done[name].nodes.values())
        return dict(sorted(done.items()))

    def _named_by(self, nodes: Iterable[Node]) -> list[str]:
        named = (name for node in nodes for name in walk.named_functions(self.graph, node))
        return [name for name in named if name in self.graph.functions]

    def _rewrite(self, function: Function) -> Function:
        scope = _Scope(self, function.nodes, {arg.name for arg in function.args})
        scope.expand()
        control = [
            result._replace(
                node=scope.add_done(result.node) if result.node in scope.calls else result.node
            )
            for result in function.control_results
        ]
        nodes = scope.finish()
        results = tuple(r._replace(tensor=scope.resolve(r.tensor)) for r in function.results)
        return dataclasses.replace(
            function, nodes=nodes, results=results, control_results=tuple(control)
        )

    def by_attribute(self, node: Node) -> Node:
        """A call that is kept, with its function named in an attribute: what all others understand."""
        if node.op not in self.graph.functions:
            return node
        bindings = {key: data for key, data in node.attrs.items() if not key.startswith("_")}
        called = instantiate(self.graph.functions[node.op], bindings)
        values = {
            "f": attrs.of_function(node.op, bindings),
            "Tin": attrs.of_types(arg.dtype for arg in called.args),
            "Tout": attrs.of_types(result.dtype for result in called.results),
        }
        op = "StatefulPartitionedCall" if called.is_stateful else "PartitionedCall"
        return node._replace(op=op, attrs=values)

    def bind(self, node: Node) -> Node:
        """A node whose function attributes name functions with their placeholders filled in."""
        if not attrs.functions_in(node.attrs):
            return node
        changed = {}
        for key, data in node.attrs.items():
            if attrs.function_names(data):
                bound = self._bind_attr(data)
                if bound != data:
                    changed[key] = bound
        return node._replace(attrs={**node.attrs, **changed}) if changed else node

    def _bind_attr(self, data: bytes) -> bytes:
        if attrs.kind(data) == "func":
            name, bindings = attrs.to_function(data)
            return attrs.of_function(self._bound(name, bindings))
        return attrs.of_functions(
            (self._bound(name, bindings), {}) for name, bindings in attrs.to_functions(data)
        )

    def _bound(self, name: str, bindings: Bindings) -> str:
        function = self.graph.functions.get(name)
        if function is None or not function.attr_defs or not bindings:
            return name
        key = name, tuple(sorted(bindings.items()))
        if key not in self._names:
            number = 1
            while f"{name}_{number}" in self._taken:
                number += 1
            new = f"{name}_{number}"
            self._taken.add(new)
            self._names[key] = new
            functions = dict(self.graph.functions)
            functions[new] = dataclasses.replace(instantiate(function, bindings), name=new)
            self.graph = dataclasses.replace(self.graph, functions=functions)
            self.effects = Effects(self.graph)
        return self._names[key]


class _Scope:
    """One set of nodes that name each other: the main graph or a function's body."""

    def __init__(
        self, inliner: _Inliner, nodes: Mapping[str, Node], args: Iterable[str] = ()
    ) -> None:
        self._inliner = inliner
        self._nodes = nodes
        self._taken = {*nodes, *args}
        self._numbers: dict[str, int] = {}
        self._out: dict[str, Node] = {}
        self._moved: dict[str, str] = {}
        self._done: dict[str, str] = {}
        # TF1 control flow can leave a call dead; a body's sources must then be dead with it.
        self._can_be_dead = inliner.has_v1_control_flow
        self.calls: dict[str, tuple[Node, list[str]]] = {}
        # Identity nodes of results, and the inputs of the call without which the body gives them.
        self._without: dict[str, list[str]] = {}

    def expand(self) -> None:
        """Copies the nodes, each call replaced by the nodes of its function's body."""
        stack = [(node, "") for node in reversed(list(self._nodes.values()))]
        while stack:
            node, prefix = stack.pop()
            found = self._inliner.inlines(node)
            if found is None:
                self._out[node.name] = self._inliner.bind(self._inliner.by_attribute(node))
            else:
                stack += self._open(node, prefix, *found)
        if self._without:
            self._wait_for_effects_before()

    def _open(
        self, call: Node, prefix: str, function: Function, bindings: Bindings
    ) -> list[tuple[Node, str]]:
        """The nodes of a call's body under names of this scope, still to be expanded themselves."""
        given = list(data_inputs(call))
        body = instantiate(function, bindings)
        if len(given) != len(body.args):
            raise ModelRefused(
                f"the call gives {len(given)} inputs, function {function.name!r} takes {len(body.args)}",
                where=call.name,
                hint="The file is damaged or was edited; write the model again.",
            )
        if not _DEFAULT_CALL_NAME.match(call.name.rpartition("/")[2]):
            prefix = call.name + "/"
        names = {name: self._unique(prefix + name) for name in body.nodes}
        values = dict(zip((arg.name for arg in body.args), given, strict=True))
        entry = self._entry(call, body, given)
        opened: list[Node] = []
        for node in body.nodes.values():
            inputs = [renamed(tensor, names, values) for tensor in node.inputs]
            if entry and (not node.inputs or self._inliner.effects.node(node)):
                inputs += [e for e in entry if e not in inputs]
            # As _replace does it, in a third of the time; every inlined node passes here.
            opened.append(
                Node(names[node.name], node.op, tuple(inputs), node.attrs, node.device, node.tensor)
            )
        self._connect(call, body, names, values, entry)
        return [(node, prefix) for node in reversed(opened)]

    def _entry(self, call: Node, body: Function, given: list[str]) -> list[str]:
        """Control inputs that the sources of a body inherit from its call."""
        entry = [f"^{name}" for name in control_inputs(call)]
        if not self._can_be_dead:
            return entry
        for arg, tensor in zip(body.args, given, strict=True):
            # A control edge from a Switch itself fires in both branches: wait for the tensor.
            gate = self._add(f"{call.name}/{arg.name}", "Identity", (tensor,), arg.dtype)
            entry.append(f"^{gate}")
        return entry

    def _connect(
        self,
        call: Node,
        body: Function,
        names: Mapping[str, str],
        values: Mapping[str, str],
        entry: list[str],
    ) -> None:
        """Where the call's results and its completion are found from now on.

        Where the call took the place of control flow, who waits for it waits for all effects of its body,
        who takes a result only for those that the body's control results name.
        """
        has_effect = self._inliner.effects.node
        effects = [r.node for r in body.control_results if has_effect(body.nodes[r.node])]
        unnamed = _unnamed_effects(body, effects, has_effect)
        is_chosen = CHOSEN_ATTR in call.attrs
        happening = effects if is_chosen else [*effects, *unnamed]
        happens = [f"^{names[node]}" for node in happening]
        inputs = self._inputs_to_wait_for(call, body, entry)
        needs = _Needs(body, inputs, has_effect)
        needed = needs.of(happening)
        for index, result in enumerate(body.results):
            tensor = renamed(result.tensor, names, values)
            without = needs.all_but(needed | needs.of([result.tensor]))
            if happens or without:
                tensor = self._add(
                    f"{call.name}/{result.name}", "Identity", (tensor, *happens), result.dtype
                )
            if without:
                self._without[tensor] = without
            self._moved[join(call.name, index)] = tensor
        done = [r.node for r in body.control_results] + unnamed
        self.calls[call.name] = (call, [f"^{names[node]}" for node in done])

    def _inputs_to_wait_for(
        self, call: Node, body: Function, entry: list[str]
    ) -> list[tuple[str, str]]:
        """Inputs of a call that an effect may precede: the argument, ``^`` for all control inputs,
        and the tensor or control input that is there before the body runs."""
        if not self._inliner.has_effects:
            return []
        control = [("^", f"^{name}") for name in control_inputs(call)]
        gates = [e[1:] for e in entry[len(control) :]] if self._can_be_dead else data_inputs(call)
        given = zip((arg.name for arg in body.args), gates, strict=True)
        return [(arg, tensor) for arg, tensor in given if not self._is_idle(tensor)] + control

    def _is_idle(self, tensor: str) -> bool:
        """Whether it is plain that nothing happens on the way to a tensor."""
        node = self._nodes.get(node_of(tensor))
        return node is not None and not node.inputs and not self._inliner.effects.node(node)

    def _wait_for_effects_before(self) -> None:
        """Lets results wait for those inputs that an effect precedes; the others need no Identity."""
        waits = {
            name: self._resolved(tuple(f"^{self._awaitable(t)}" for t in inputs))
            for name, inputs in self._without.items()
        }
        nodes = self.finish()
        for name, control in waits.items():
            nodes[name] = nodes[name]._replace(inputs=(*nodes[name].inputs, *control))
        has_effect = self._inliner.effects.node
        late = behind(nodes, {name for name, node in nodes.items() if has_effect(node)})
        for name, control in waits.items():
            node = self._out[name]
            inputs = dict.fromkeys([*node.inputs, *(c for c in control if c[1:] in late)])
            if len(inputs) > 1:
                self._out[name] = node._replace(inputs=tuple(inputs))
            else:
                del self._out[name]
                self._moved[name] = node.inputs[0]

    def _awaitable(self, tensor: str) -> str:
        return tensor[1:] if tensor.startswith("^") else node_of(self.resolve(tensor))

    def _add(self, name: str, op: str, inputs: tuple[str, ...], dtype: DType | None = None) -> str:
        unique = self._unique(name)
        values = {} if dtype is None else {"T": attrs.of_type(dtype)}
        self._out[unique] = Node(unique, op, inputs, values)
        return unique

    def _unique(self, name: str) -> str:
        if name not in self._taken:
            self._taken.add(name)
            return name
        number = self._numbers.get(name, 1)
        while f"{name}_{number}" in self._taken:
            number += 1
        self._numbers[name] = number + 1
        self._taken.add(f"{name}_{number}")
        return f"{name}_{number}"

    def add_done(self, call_name: str, *, name: str | None = None) -> str:
        """A NoOp that stands for a call's completion."""
        if call_name not in self._done:
            call, control = self.calls[call_name]
            before = [f"^{node_of(tensor)}" for tensor in call.inputs]
            inputs = tuple(dict.fromkeys([*before, *control]))
            if name is None:
                name = self._unique(f"{call_name}/done")
            self._out[name] = Node(name, "NoOp", inputs)
            self._done[call_name] = name
        return self._done[call_name]

    def resolve(self, tensor: str) -> str:
        """The tensor of the finished scope that a tensor has become."""
        seen = []
        while tensor in self._moved:
            seen.append(tensor)
            tensor = self._moved[tensor]
        for passed in seen:
            self._moved[passed] = tensor
        return tensor

    def finish(self) -> dict[str, Node]:
        """The nodes with every input resolved."""
        finished: dict[str, Node] = {}
        pending = list(self._out)
        while pending:
            for name in pending:
                finished[name] = self._finished(self._out[name])
            pending = [name for name in self._out if name not in finished]
        return finished

    def _finished(self, node: Node) -> Node:
        inputs = node.inputs
        if self._moved.keys().isdisjoint(inputs) and not waits(node):
            return node
        for tensor in inputs:
            if tensor in self._moved or tensor[1:] in self.calls:
                return node._replace(inputs=self._resolved(inputs))
        return node

    def _resolved(self, inputs: tuple[str, ...]) -> tuple[str, ...]:
        data = [self.resolve(tensor) for tensor in inputs if not tensor.startswith("^")]
        control = [
            "^" + (self.add_done(name) if name in self.calls else name)
            for name in (tensor[1:] for tensor in inputs if tensor.startswith("^"))
        ]
        return (*data, *dict.fromkeys(c for c in control))


def _unnamed_effects(
    body: Function, named: Iterable[str], has_effect: Callable[[Node], bool]
) -> list[str]:
    """Nodes with an effect that no control result waits for, as TF1's functions have them.

    They run as well, but for those that may be dead.
    """
    acting = [name for name, node in body.nodes.items() if has_effect(node)]
    if not acting:
        return []
    before = walk.reached_nodes(body.nodes, named)
    gated = behind(body.nodes, {n.name for n in body.nodes.values() if n.op in V1_CONTROL_FLOW})
    return [name for name in acting if name not in before and name not in gated]


class _Needs:
    """Which inputs of a call the tensors and nodes of its body need.

    Args:
        inputs: By argument (``^`` for all control inputs), the tensors that are of interest.
    """

    def __init__(
        self, body: Function, inputs: Sequence[tuple[str, str]], has_effect: Callable[[Node], bool]
    ) -> None:
        self._inputs = inputs
        self._bits = {arg: 1 << n for n, arg in enumerate(dict(inputs))}
        self._found = dict(self._bits)  # by node or argument
        for name in walk.inputs_first(body.nodes) if inputs else ():
            node = body.nodes[name]
            # An output of control flow may need none of its inputs.
            given = control_inputs(node) if node.op in FUNCTIONAL else node.inputs
            # What starts in the body, or does something, waits for what the call waits for.
            begins = not node.inputs or has_effect(node)
            self._found[name] = self.of(given) | (self._bits.get("^", 0) if begins else 0)

    def of(self, tensors: Iterable[str]) -> int:
        """The arguments that some tensors need, as bits."""
        found = 0
        for tensor in tensors:
            found |= self._found.get(node_of(tensor), 0)
        return found

    def all_but(self, needed: int) -> list[str]:
        """The tensors of interest whose arguments are not among the given."""
        return [tensor for arg, tensor in self._inputs if not needed & self._bits[arg]]


def call_of(graph: Graph, node: Node) -> tuple[str, Bindings] | None:
    """The function that a node plainly calls, with the values of its attribute placeholders."""
    if node.op in CALLS:
        name, bindings = attrs.to_function(node.attrs["f"])
        return (name, bindings) if name in graph.functions else None
    if node.op in graph.functions:
        return node.op, node.attrs
    return None


def instantiate(function: Function, bindings: Bindings) -> Function:
    """A function with its attribute placeholders filled in.

    Raises:
        ModelRefused: A placeholder has no value.
    """
    if not function.attr_defs:
        return function

    def bound(data: bytes, where: str) -> bytes:
        return _bind_placeholder(data, bindings, f"{function.name}/{where}")

    def dtype_of(dtype: DType, type_attr: str) -> DType:
        if not type_attr:
            return dtype
        if type_attr not in bindings:
            raise _unbound(type_attr, function.name)
        return attrs.to_type(bindings[type_attr])

    nodes = {
        node.name: node._replace(attrs={k: bound(v, node.name) for k, v in node.attrs.items()})
        for node in function.nodes.values()
    }
    return dataclasses.replace(
        function,
        nodes=nodes,
        args=tuple(
            a._replace(dtype=dtype_of(a.dtype, a.type_attr), type_attr="") for a in function.args
        ),
        results=tuple(
            r._replace(dtype=dtype_of(r.dtype, r.type_attr), type_attr="") for r in function.results
        ),
        attr_defs=(),
    )


def _bind_placeholder(data: bytes, bindings: Bindings, where: str) -> bytes:
    kind = attrs.kind(data)
    if kind == "placeholder":
        name = attrs.message(data).placeholder
        if name not in bindings:
            raise _unbound(name, where)
        return bindings[name]
    if kind == "func":
        name, inner = attrs.to_function(data)
        bound = {key: _bind_placeholder(v, bindings, where) for key, v in inner.items()}
        return attrs.of_function(name, bound)
    return data


def _unbound(name: str, where: str) -> ModelRefused:
    return ModelRefused(
        f"attribute {name!r} has no value in the call",
        where=where,
        hint="The file is damaged or was edited; write the model again.",
    )


def renamed(tensor: str, names: Mapping[str, str], values: Mapping[str, str]) -> str:
    """A tensor or control input of a body under its name in the scope that the body is copied into.

    Args:
        tensor: As the body says it.
        names: The body's nodes to their new names.
        values: Its arguments to the tensors that are given for them.
    """
    if tensor.startswith("^"):
        name = tensor[1:]
        return f"^{names[name]}" if name in names else f"^{node_of(values[name])}"
    if tensor in values:
        return values[tensor]
    name, colon, index = tensor.partition(":")
    return names[name] + colon + index


def _expanded_sizes(graph: Graph) -> dict[str, int]:
    """How many nodes each function comes to once the calls in its body are inlined."""
    sizes: dict[str, int] = {}
    for name in walk.function_order(graph):
        body = graph.functions[name].nodes.values()
        calls = (call_of(graph, node) for node in body)
        sizes[name] = sum(1 if call is None else sizes[call[0]] for call in calls)
    return sizes
