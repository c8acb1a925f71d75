"""A model as tf2onnx takes it for what it is.

It takes the first two variables of every While for a counter of rounds, from zero, and for the most that
there may be, as TensorFlow 2 puts them there; and it leaves them out of what the loop gives. Other loops
get such a pair of their own: the most is -1, which says that there is none.

Source: tf2onnx 1.17, ``onnx_opset/controlflow.py`` (``While``).
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

from freezeflow.graph import attrs
from freezeflow.graph.canonical import canonical
from freezeflow.graph.constants import const
from freezeflow.graph.graph import Arg, Function, Node, Result, data_inputs, join, node_of
from freezeflow.graph.inline import instantiate
from freezeflow.graph.library import Library, free
from freezeflow.graph.model import Model
from freezeflow.graph.scalars import scalar
from freezeflow.graph.walk import reached_nodes
from freezeflow.values import DType

_WHILES = frozenset({"While", "StatelessWhile"})

_NO_LIMIT = -1


def onnx_form(model: Model) -> Model:
    """The model with a counter and a limit as the first two variables of every loop.

    Args:
        model: A frozen model with one signature, whose outputs are nodes of their own.

    Returns:
        The model in canonical form; the very same where all loops have them.
    """
    library = Library(model.graph)
    nodes, _ = _with_counters(model.graph.nodes, [], library)
    library.rewrite(lambda function: _counting(function, library))
    if nodes is model.graph.nodes and library.functions == model.graph.functions:
        return model
    graph = dataclasses.replace(model.graph, nodes=nodes, functions=library.functions)
    return canonical(dataclasses.replace(model, graph=graph))


def with_counter_shapes(model: Model) -> Model:
    """The model with loops whose functions say that the counter and the limit are scalars.

    In functions within functions tf2onnx does not find that out by itself, and ONNX Runtime wants it.

    Args:
        model: As `onnx_form` gives it.
    """
    graph = model.graph
    bodies = [graph.nodes, *(function.nodes for function in graph.functions.values())]
    functions = dict(graph.functions)
    shape = {"_output_shapes": attrs.of_shapes([()])}
    for node in (node for nodes in bodies for node in nodes.values() if node.op in _WHILES):
        for name in attrs.functions_in(node.attrs):
            first, second, *others = functions[name].args
            numbers = (arg._replace(attrs={**arg.attrs, **shape}) for arg in (first, second))
            functions[name] = dataclasses.replace(functions[name], args=(*numbers, *others))
    return dataclasses.replace(model, graph=dataclasses.replace(graph, functions=functions))


def _counting(function: Function, library: Library) -> Function:
    ends = [result.tensor for result in function.results]
    nodes, moved = _with_counters(function.nodes, ends, library)
    results = tuple(r._replace(tensor=moved.get(r.tensor, r.tensor)) for r in function.results)
    return dataclasses.replace(function, nodes=nodes, results=results)


def _with_counters(
    nodes: Mapping[str, Node], ends: Iterable[str], library: Library
) -> tuple[Mapping[str, Node], Mapping[str, str]]:
    """A body whose loops count, and where the tensors that they give are.

    Args:
        nodes: The main graph's nodes or a function's.
        ends: Tensors that are taken from outside.
        library: Gets the functions.
    """
    loops = [node for node in nodes.values() if node.op in _WHILES]
    if not loops:
        return nodes, {}
    taken = {tensor for node in nodes.values() for tensor in data_inputs(node)} | set(ends)
    made = dict(nodes)
    moved: dict[str, str] = {}
    for node in loops:
        if not _counts(node, nodes, taken, library.functions):
            made.update((each.name, each) for each in _counted(node, nodes, library))
            count = len(list(data_inputs(node)))
            moved |= {join(node.name, n): join(node.name, n + 2) for n in range(count)}
    if not moved:
        return nodes, {}
    made = {
        name: node._replace(inputs=tuple(moved.get(tensor, tensor) for tensor in node.inputs))
        for name, node in made.items()
    }
    return made, moved


# ---------------------------------------------------------------- which loops count


def _counts(
    node: Node, nodes: Mapping[str, Node], taken: Container[str], functions: Mapping[str, Function]
) -> bool:
    """Whether a loop's first two variables are a counter and a limit, and nothing else."""
    condition, body = (functions[attrs.to_function(node.attrs[key])[0]] for key in ("cond", "body"))
    given = list(data_inputs(node))
    if len(given) < 2 or node.name in taken or join(node.name, 1) in taken:
        return False
    counter, limit = body.args[0].name, body.args[1].name
    goes_round = [result.tensor for result in body.results[2:]]
    goes_round += [control.node for control in body.control_results]
    return (
        scalar(nodes, given[0], {}) == 0
        and scalar(body.nodes, body.results[0].tensor, {counter: 0}) == 1
        and _plain(body.nodes, body.results[1].tensor) == limit
        and counter not in _needed(body.nodes, goes_round)
        and _is_limited(condition, is_open=scalar(nodes, given[1], {}) == _NO_LIMIT)
    )


def _is_limited(condition: Function, *, is_open: bool) -> bool:
    """Whether the condition asks of the counter whether it is below the limit, and nothing else.

    Args:
        condition: A loop's condition.
        is_open: There is no limit, and so nothing to ask.
    """
    counter, limit = (arg.name for arg in condition.args[:2])
    others, asked = [], False
    stack = [condition.results[0].tensor]
    while stack:
        tensor = _plain(condition.nodes, stack.pop())
        node = condition.nodes.get(tensor)
        inputs = [] if node is None else [_plain(condition.nodes, t) for t in data_inputs(node)]
        if node is not None and node.op == "LogicalAnd":
            stack += inputs
        elif node is not None and node.op == "Less" and inputs == [counter, limit]:
            asked = True
        else:
            others.append(tensor)
    return asked is not is_open and counter not in _needed(condition.nodes, others)


def _plain(nodes: Mapping[str, Node], tensor: str) -> str:
    """The tensor that a tensor is."""
    while (node := nodes.get(tensor)) is not None and node.op == "Identity":
        tensor = node.inputs[0]
    return tensor


def _needed(nodes: Mapping[str, Node], tensors: Sequence[str]) -> set[str]:
    """Names of the nodes and arguments that some tensors need."""
    reached = reached_nodes(nodes, tensors)
    names = {node_of(tensor) for name in reached for tensor in nodes[name].inputs}
    return names | reached | set(map(node_of, tensors))


# ---------------------------------------------------------------- loops that count


def _counted(node: Node, nodes: Mapping[str, Node], library: Library) -> Iterator[Node]:
    """A loop with a counter and a limit before its variables, and what they begin with."""
    start, limit = (
        _number(free(nodes, f"{node.name}/{word}"), number)
        for word, number in (("counter", 0), ("limit", _NO_LIMIT))
    )
    yield start
    yield limit
    condition, body = (
        instantiate(library.functions[name], bindings)
        for name, bindings in (attrs.to_function(node.attrs[key]) for key in ("cond", "body"))
    )
    values = {
        **node.attrs,
        "T": attrs.of_types([DType.INT32, DType.INT32, *attrs.to_types(node.attrs["T"])]),
        "cond": attrs.of_function(library.add(_with_args(condition))),
        "body": attrs.of_function(library.add(_counting_body(body))),
    }
    if "output_shapes" in node.attrs and (shapes := attrs.to_shapes(node.attrs["output_shapes"])):
        values["output_shapes"] = attrs.of_shapes([(), (), *shapes])
    yield node._replace(inputs=(start.name, limit.name, *node.inputs), attrs=values)


def _with_args(function: Function) -> Function:
    taken = {*function.nodes, *(arg.name for arg in function.args)}
    added = (Arg(free(taken, word), DType.INT32) for word in ("counter", "limit"))
    return dataclasses.replace(function, args=(*added, *function.args))


def _counting_body(body: Function) -> Function:
    grown = _with_args(body)
    counter, limit = (arg.name for arg in grown.args[:2])
    taken = {*body.nodes, *(arg.name for arg in grown.args)}
    one = _number(free(taken, "counter/one"), 1)
    kind = {"T": attrs.of_type(DType.INT32)}
    more = Node(free(taken, "counter/more"), "AddV2", (counter, one.name), kind)
    words = {result.name for result in body.results}
    results = (
        Result(free(words, "counter"), more.name, DType.INT32),
        Result(free(words, "limit"), limit, DType.INT32),
    )
    nodes = {**body.nodes, one.name: one, more.name: more}
    return dataclasses.replace(grown, nodes=nodes, results=(*results, *body.results))


def _number(name: str, number: int) -> Node:
    return const(name, DType.INT32, (), struct.pack("<i", number))
