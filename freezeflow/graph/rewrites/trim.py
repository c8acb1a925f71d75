"""If, Case and While with no more inputs and outputs than are used.

Constants that go into a branch or go round a loop unchanged move into the function, where they can be
folded. What a function takes and does not need, and what it gives and nobody takes, is left out on both
sides of the call. Only where the functions have this one caller, so that nothing is there twice.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from freezeflow.graph import attrs
from freezeflow.graph.effects import V1_CONTROL_FLOW, Effects
from freezeflow.graph.foldable import constant_bytes
from freezeflow.graph.graph import (
    Function,
    Graph,
    Node,
    control_inputs,
    data_inputs,
    join,
    node_of,
    split,
)
from freezeflow.graph.tensor_values import elements
from freezeflow.graph.walk import named_functions, reached_nodes
from freezeflow.values import DType

IFS = frozenset({"If", "StatelessIf"})
CASES = frozenset({"Case", "StatelessCase"})
WHILES = frozenset({"While", "StatelessWhile"})

# Constants of so many bytes may come to lie in several functions.
_TINY = 64


def trim_calls(graph: Graph, known: Collection[str]) -> Graph:
    """The graph with every call of functional control flow trimmed, once; itself if there is nothing.

    Args:
        graph: The graph.
        known: Tensors of the main graph that are taken from outside (``x``, ``x:1``), and fed nodes.
    """
    trimmer = _Trimmer(graph)
    changed = trimmer.scope("", set(known))
    for name in list(graph.functions):
        changed |= trimmer.scope(name, trimmer.ends_of(name))
    return trimmer.graph() if changed else graph


def count_callers(graph: Graph) -> Counter[str]:
    """How many nodes of the graph and its functions name each function."""
    bodies = (graph.nodes, *(function.nodes for function in graph.functions.values()))
    return Counter(
        name for nodes in bodies for node in nodes.values() for name in functions_of(graph, node)
    )


class _Call:
    """One node of functional control flow.

    Args:
        node: The node.
        functions: The functions that it names: branches, or condition and body.
    """

    def __init__(self, node: Node, functions: Sequence[Function]) -> None:
        self.node = node
        self.functions = list(functions)
        self.is_loop = node.op in WHILES
        self.first = 0 if self.is_loop else 1
        self.inputs = list(data_inputs(node))[self.first :]

    @property
    def givers(self) -> list[Function]:
        """The functions whose results are the node's outputs."""
        return self.functions[1:] if self.is_loop else self.functions


class _Trimmer:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._effects = Effects(graph)
        self._functions = dict(graph.functions)
        self._main = dict(graph.nodes)
        self._callers = count_callers(graph)

    def graph(self) -> Graph:
        return dataclasses.replace(self._graph, nodes=self._main, functions=self._functions)

    def ends_of(self, function: str) -> set[str]:
        """Tensors of a function's body that its caller takes."""
        return {result.tensor for result in self._functions[function].results}

    def scope(self, name: str, known: set[str]) -> bool:
        nodes = dict(self._functions[name].nodes if name else self._main)
        scope = _Scope(nodes, known, fixed=not name)
        changed = False
        for node in list(nodes.values()):
            call = self._call(nodes[node.name]) if node.name in nodes else None
            if call is not None:
                changed |= self._trim(scope, call)
        if changed and name:
            function = self._functions[name]
            results = tuple(r._replace(tensor=scope.moved(r.tensor)) for r in function.results)
            self._functions[name] = dataclasses.replace(function, nodes=nodes, results=results)
        elif changed:
            self._main = nodes
        return changed

    def _call(self, node: Node) -> _Call | None:
        """The node as a call that may be trimmed; None for any other."""
        if node.op not in IFS | CASES | WHILES:
            return None
        names = functions_of(self._graph, node)
        if any(self._callers[name] != 1 or name not in self._functions for name in names):
            return None
        functions = [self._functions[name] for name in names]
        if any(function.attr_defs for function in functions) or len(functions) < 1:
            return None
        types = attrs.to_types(node.attrs["T" if node.op in WHILES else "Tin"])
        call = _Call(node, functions)
        fits = all(len(function.args) == len(types) for function in functions)
        return call if fits and DType.RESOURCE not in types else None

    # ------------------------------------------------------------ one call

    def _trim(self, scope: _Scope, call: _Call) -> bool:
        if call.is_loop and _never_runs(call.functions[0]) and scope.pass_through(call):
            return True
        moved = self._move_constants(scope, call)
        args, results = self._live(scope, call)
        count = len(call.givers[0].results)
        if len(args) == len(call.inputs) and len(results) == count:
            if moved:
                self._store(call)
            return moved
        self._cut(scope, call, args, results)
        return True

    def _store(self, call: _Call) -> None:
        for function in call.functions:
            self._functions[function.name] = function

    def _move_constants(self, scope: _Scope, call: _Call) -> bool:
        """Constants among the inputs become constants of the functions."""
        changed = False
        for index, tensor in enumerate(call.inputs):
            source = scope.constant(tensor)
            if source is None or (call.is_loop and not _goes_round(call, index)):
                continue
            users = [f for f in call.functions if _uses(f, f.args[index].name, loop=call.is_loop)]
            others = len(scope.users.get(source.name, ())) > 1 or source.name in scope.known
            if not users or (len(users) + others > 1 and constant_bytes(source) > _TINY):
                continue
            call.functions = [
                _with_constant(f, index, source) if f in users else f for f in call.functions
            ]
            changed = True
            if call.is_loop:
                self._give_constant(scope, call, index, source)
        return changed

    def _give_constant(self, scope: _Scope, call: _Call, index: int, source: Node) -> None:
        """Who takes the constant from the loop takes it from where it is, if the loop runs anyway."""
        name = call.node.name
        if scope.is_plain and join(name, index) not in scope.ends and scope.taken(name) - {index}:
            scope.redirect(join(name, index), source.name)

    def _live(self, scope: _Scope, call: _Call) -> tuple[list[int], list[int]]:
        """Numbers of the arguments and of the results that are needed."""
        taken = scope.taken(call.node.name)
        if scope.keeps_numbers(call.node.name):
            taken = set(range(len(call.givers[0].results)))
        if not call.is_loop:
            needed = (_needed(f, self._effects, taken) for f in call.functions)
            return sorted(set().union(*needed)), sorted(taken)
        condition, body = call.functions
        live = taken | _needed(condition, self._effects, [0])
        while True:
            more = live | _needed(body, self._effects, live)
            if more == live:
                return sorted(live), sorted(live)
            live = more

    def _cut(self, scope: _Scope, call: _Call, args: list[int], results: list[int]) -> None:
        """Leaves out all other arguments and results."""
        call.functions = [
            _cut_function(f, self._effects, args, None if call.is_loop and not place else results)
            for place, f in enumerate(call.functions)
        ]
        self._store(call)
        node = call.node
        head = list(data_inputs(node))[: call.first]
        waits = [f"^{name}" for name in control_inputs(node)]
        inputs = [*head, *(call.inputs[index] for index in args), *waits]
        scope.replace(node._replace(inputs=tuple(inputs), attrs=_cut_attrs(node, args, results)))
        scope.renumber(node.name, {old: new for new, old in enumerate(results)})


class _Scope:
    """The nodes around a call, with who uses what."""

    def __init__(self, nodes: dict[str, Node], known: set[str], *, fixed: bool) -> None:
        self.nodes = nodes
        self.ends = known
        self._fixed = fixed
        self._moved: dict[str, str] = {}
        self.is_plain = not any(node.op in V1_CONTROL_FLOW for node in nodes.values())
        self.known = {node_of(tensor) for tensor in known}
        self.users: dict[str, set[str]] = {}
        for node in nodes.values():
            for tensor in node.inputs:
                self.users.setdefault(node_of(tensor), set()).add(node.name)

    def constant(self, tensor: str) -> Node | None:
        """The Const that gives a tensor, if it waits for nothing."""
        node = self.nodes.get(tensor)
        if node is None or node.op != "Const" or node.inputs or node.name in self.known:
            return None
        return node

    def taken(self, name: str) -> set[int]:
        """Numbers of a node's outputs that someone takes."""
        found = {split(end)[1] for end in self.ends if node_of(end) == name}
        for user in self.users.get(name, ()):
            for tensor in data_inputs(self.nodes[user]):
                if node_of(tensor) == name:
                    found.add(split(tensor)[1])
        return found

    def keeps_numbers(self, name: str) -> bool:
        """Whether an output with a number is known outside by just that number."""
        return self._fixed and any(node_of(end) == name and split(end)[1] for end in self.ends)

    def moved(self, tensor: str) -> str:
        """What has become of a tensor that the scope's caller takes."""
        return self._moved.get(tensor, tensor)

    def redirect(self, tensor: str, target: str) -> None:
        """Lets the users of a tensor take another one."""
        for user in list(self.users.get(node_of(tensor), ())):
            node = self.nodes[user]
            inputs = tuple(target if t == tensor else t for t in node.inputs)
            self.nodes[user] = node._replace(inputs=inputs)
            self.users.setdefault(node_of(target), set()).add(user)

    def pass_through(self, call: _Call) -> bool:
        """Lets what takes a loop's outputs take its inputs; False where that is not the same."""
        name = call.node.name
        users = [self.nodes[user] for user in self.users.get(name, ())]
        awaited = any(f"^{name}" in user.inputs for user in users)
        if awaited or any(control_inputs(call.node)) or not self.is_plain:
            return False
        if self._fixed and name in self.known:
            return False
        for index, tensor in enumerate(call.inputs):
            self.redirect(join(name, index), tensor)
            if join(name, index) in self.ends:
                self._moved[join(name, index)] = tensor
        del self.nodes[name]
        return True

    def replace(self, node: Node) -> None:
        self.nodes[node.name] = node

    def renumber(self, name: str, numbers: Mapping[int, int]) -> None:
        """Gives the outputs of a node their new numbers, wherever they are taken."""
        for user in self.users.get(name, ()):
            node = self.nodes[user]
            inputs = tuple(
                join(name, numbers[split(tensor)[1]])
                if not tensor.startswith("^") and node_of(tensor) == name
                else tensor
                for tensor in node.inputs
            )
            self.nodes[user] = node._replace(inputs=inputs)
        for end in self.ends:
            if node_of(end) == name:
                self._moved[end] = join(name, numbers[split(end)[1]])


# ---------------------------------------------------------------- functions


def functions_of(graph: Graph, node: Node) -> list[str]:
    """The functions that a node names, in the order of its kind."""
    if node.op in IFS:
        keys: tuple[str, ...] = ("then_branch", "else_branch")
    elif node.op in WHILES:
        keys = ("cond", "body")
    elif node.op in CASES:
        return [name for name, _ in attrs.to_functions(node.attrs["branches"])]
    else:
        return list(named_functions(graph, node))
    return [attrs.to_function(node.attrs[key])[0] for key in keys]


def _goes_round(call: _Call, index: int) -> bool:
    """Whether a loop hands a value on from one time round to the next as it is."""
    body = call.functions[1]
    return body.results[index].tensor == body.args[index].name


def _never_runs(condition: Function) -> bool:
    """Whether a loop's condition is the constant False."""
    node = condition.nodes.get(condition.results[0].tensor)
    if node is None or node.op != "Const" or node.inputs or len(condition.nodes) > 1:
        return False
    message = attrs.message(node.attrs["value"]).tensor
    return DType(message.dtype) is DType.BOOL and elements(message) == [False]


def _uses(function: Function, arg: str, *, loop: bool) -> bool:
    """Whether a body takes an argument for more than handing it on to the next time round."""
    if any(arg in node.inputs for node in function.nodes.values()):
        return True
    return not loop and any(result.tensor == arg for result in function.results)


def _with_constant(function: Function, index: int, source: Node) -> Function:
    """The function with a Const in place of an argument, which is there still but for nothing."""
    arg = function.args[index]
    taken = {a.name for a in function.args} | function.nodes.keys()
    name = f"{arg.name}_unused"
    while name in taken:
        name += "_"
    args = (*function.args[:index], arg._replace(name=name), *function.args[index + 1 :])
    nodes = {arg.name: source._replace(name=arg.name), **function.nodes}
    return dataclasses.replace(function, args=args, nodes=nodes)


def _roots(function: Function, effects: Effects, results: Iterable[int]) -> list[str]:
    """What is computed in every call: some results, and what happens anyway."""
    roots = [function.results[index].tensor for index in results]
    roots += [control.node for control in function.control_results]
    return roots + [node.name for node in function.nodes.values() if effects.node(node)]


def _needed(function: Function, effects: Effects, results: Iterable[int]) -> set[int]:
    """Numbers of the arguments that some results need, and what happens in every call."""
    roots = _roots(function, effects, results)
    names = {node_of(root) for root in roots}
    for name in reached_nodes(function.nodes, roots):
        names |= {node_of(tensor) for tensor in function.nodes[name].inputs}
    return {index for index, arg in enumerate(function.args) if arg.name in names}


def _cut_function(
    function: Function, effects: Effects, args: list[int], results: list[int] | None
) -> Function:
    """The function with some arguments and results, and without the nodes that only others needed."""
    if results is None:
        results = list(range(len(function.results)))
    reached = reached_nodes(function.nodes, _roots(function, effects, results))
    return dataclasses.replace(
        function,
        args=tuple(function.args[index] for index in args),
        results=tuple(function.results[index] for index in results),
        nodes={name: node for name, node in function.nodes.items() if name in reached},
        attrs={key: data for key, data in function.attrs.items() if key != "_input_shapes"},
    )


def _cut_attrs(node: Node, args: list[int], results: list[int]) -> dict[str, bytes]:
    """The attributes of a call that list its inputs and outputs, without those that are left out."""
    idle = ("_read_only_resource_inputs", "_num_original_outputs", "_output_shapes")
    values = {key: data for key, data in node.attrs.items() if key not in idle}
    lists = {"T": args} if node.op in WHILES else {"Tin": args, "Tout": results}
    for key, kept in lists.items():
        types = attrs.to_types(values[key])
        values[key] = attrs.of_types(types[index] for index in kept)
    shapes = attrs.to_shapes(values["output_shapes"]) if "output_shapes" in values else ()
    if shapes:
        values["output_shapes"] = attrs.of_shapes(shapes[index] for index in results)
    return values
