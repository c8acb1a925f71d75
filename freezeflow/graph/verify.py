"""What makes a model valid: one small rule each, in lists, run between all stages.

A valid graph imports into TensorFlow and means what it says. Rules look at one node (`node_rules`),
at one body (the main graph or a function's), or at the model; they report every breach and raise
nothing.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import NamedTuple

from freezeflow.errors import ModelRefused, StageFailed
from freezeflow.graph import attrs
from freezeflow.graph.frames import frame_faults
from freezeflow.graph.graph import Arg, Function, Graph, Node, node_of, split
from freezeflow.graph.model import Model
from freezeflow.graph.node_rules import (
    Body,
    Finding,
    constant_fits,
    doubtful,
    function_body,
    main_body,
    node_findings,
    tensor_type,
)
from freezeflow.graph.node_types import NodeTypes
from freezeflow.graph.walk import (
    callees,
    find_cycle,
    find_recursion,
    reached_functions,
    reached_nodes,
)
from freezeflow.values import DType, TensorSpec

# Ops that hold a variable, read it or ask about it: what a frozen graph may not reach.
VARIABLE_OPS = frozenset(
    {
        "VarHandleOp",
        "_VarHandlesOp",
        "ReadVariableOp",
        "_ReadVariablesOp",
        "ResourceGather",
        "ResourceGatherNd",
        "VariableShape",
        "VarIsInitializedOp",
        "DisableCopyOnRead",
        "AssignVariableOp",
        "AssignAddVariableOp",
        "AssignSubVariableOp",
        "Variable",
        "VariableV2",
        "AutoReloadVariable",
        "IsVariableInitialized",
    }
)

# So many findings are shown in an error.
_SHOWN = 5


def verify(model: Model, *, loaded: bool = False) -> tuple[Finding, ...]:
    """Every breach of a rule, in the order of the graph; empty for a valid model.

    Args:
        model: The model.
        loaded: It comes from ``load``, so it may hold variables whose value no checkpoint gives.
    """
    graph = model.graph
    types = NodeTypes(graph)
    memory = _valid_before.get()
    before: Mapping[str | None, _Valid] = {} if memory is None else memory
    keys = _changed(graph, _Valid(graph.nodes, ()), before.get(None))
    main = main_body(graph, types, typed=bool(keys))
    findings = _body_findings(main, keys)
    same = _unchanged_functions(graph, before)
    for name, function in graph.functions.items():
        if name in same and same.issuperset(callees(graph, name)):
            continue
        keys = _changed(graph, _Valid(function.nodes, function.args), before.get(name))
        findings += _body_findings(function_body(graph, function, types, typed=bool(keys)), keys)
    for model_rule in MODEL_RULES:
        findings += model_rule(model, main)
    if memory is not None and not findings:
        memory.clear()
        memory[None] = _Valid(graph.nodes, ())
        memory.update(
            (name, _Valid(f.nodes, f.args, f, callees(graph, name)))
            for name, f in graph.functions.items()
        )
    if not loaded:
        findings += no_variable_is_left(model, main)
    return tuple(findings)


def _body_findings(body: Body, keys: Collection[str]) -> list[Finding]:
    """Every breach in a body of which only some nodes need a look."""
    findings: list[Finding] = []
    for key in doubtful(body, keys):
        findings += node_findings(body, key)
    for rule in BODY_RULES if keys else FRAME_RULES:
        findings += rule(body)
    return findings


class _Valid(NamedTuple):
    """A body, the main graph's or a function's, that was found valid.

    Args:
        nodes: Its nodes.
        args: The function's arguments.
        function: The function; None for the main graph.
        called: The functions that it called, of those that there were.
    """

    nodes: Mapping[str, Node]
    args: tuple[Arg, ...]
    function: Function | None = None
    called: Sequence[str] = ()


# By function name; None for the main graph.
_valid_before: ContextVar[dict[str | None, _Valid] | None] = ContextVar(
    "valid_before", default=None
)


@contextlib.contextmanager
def remembering() -> Iterator[None]:
    """While the block runs, what was found valid and has not changed is not looked at again.

    For a chain of stages in one process: most of them change little of a large graph, and nodes are
    values that nobody changes in place.
    """
    token = _valid_before.set({})
    try:
        yield
    finally:
        _valid_before.reset(token)


def _unchanged_functions(graph: Graph, before: Mapping[str | None, _Valid]) -> set[str]:
    """Functions that were found valid as they are, and call no others than then."""
    return {
        name
        for name, function in graph.functions.items()
        if (valid := before.get(name)) is not None
        and valid.function is function
        and valid.called == callees(graph, name)
    }


def _changed(graph: Graph, body: _Valid, before: _Valid | None) -> Collection[str]:
    """The nodes to look at: all but those that are, and are fed by, what was found valid before.

    Nodes that call functions are always looked at: their functions may be others now. A body that
    has lost nodes and gained none has no cycle that it had not before.
    """
    nodes = body.nodes
    if before is None or before.args != body.args:
        return nodes
    was = before.nodes.get
    if nodes is before.nodes:
        same = set(nodes)
    else:
        same = {name for name, node in nodes.items() if was(name) is node}
    if len(same) == len(nodes) == len(before.nodes):
        ops = graph.functions
        return [n for n, node in nodes.items() if node.op in ops or attrs.functions_in(node.attrs)]
    same.update(arg.name for arg in body.args)
    return [
        name
        for name, node in nodes.items()
        if name not in same
        or node.op in graph.functions
        or not all(tensor in same or node_of(tensor) in same for tensor in node.inputs)
        or attrs.functions_in(node.attrs)
    ]


def check(model: Model, *, stage: str) -> None:
    """Lets a valid model pass.

    Args:
        model: What the stage gave.
        stage: The stage's name.

    Raises:
        ModelRefused: The model that ``load`` read is not valid.
        StageFailed: Another stage gave a model that is not valid.
    """
    findings = verify(model, loaded=stage == "load")
    if not findings:
        return
    shown = [f"{f.node}: {f.message}" if f.node else f.message for f in findings]
    more = f" (and {len(shown) - _SHOWN} more)" if len(shown) > _SHOWN else ""
    text = "; ".join(shown[:_SHOWN]) + more
    if stage == "load":
        raise ModelRefused(
            f"the model is not valid: {text}",
            hint="The file is damaged or was edited; write the model again.",
        )
    raise StageFailed(
        f"{stage} gave a graph that is not valid: {text}",
        where=findings[0].node,
        hint="This is a fault in the stage, not in the model; please report it.",
    )


def unknown_ops(model: Model) -> dict[str, int]:
    """Ops without a definition and how often each is used; the rules on dtypes skip their nodes."""
    graph = model.graph
    counts = Counter(
        node.op
        for nodes in (graph.nodes, *(f.nodes for f in graph.functions.values()))
        for node in nodes.values()
    )
    return {op: counts[op] for op in sorted(counts) if graph.op_def(op) is None}


# ---------------------------------------------------------------- rules on one body


def no_cycle(body: Body) -> Iterator[Finding]:
    cycle = find_cycle(body.nodes)
    if cycle:
        yield body.find("cycles", cycle[0], "is in a cycle that is no loop: " + " -> ".join(cycle))


def frames_hang_together(body: Body) -> Iterator[Finding]:
    for name, message in frame_faults(body.nodes):
        yield body.find("frames", name, message)


def arguments_are_distinct(body: Body) -> Iterator[Finding]:
    if body.function is None:
        return
    names = Counter(arg.name for arg in body.function.args)
    names.update(name for name in body.nodes if name in names)
    for name, count in names.items():
        if count > 1:
            yield body.find("names", name, "is the name of two arguments, or of a node as well")


def results_exist(body: Body) -> Iterator[Finding]:
    if body.function is None:
        return
    for result in body.function.results:
        dtype = tensor_type(body, result.tensor)
        if dtype is None:
            message = f"result {result.name!r} is {result.tensor!r}, which is not there"
            yield body.find("results", "", message)
        elif dtype and result.dtype and dtype is not result.dtype:
            message = f"result {result.name!r} is {dtype.tf_name}, not {result.dtype.tf_name}"
            yield body.find("results", "", message)
    for control in body.function.control_results:
        if control.node not in body.nodes:
            message = f"runs {control.node!r} for its effect, which is not there"
            yield body.find("results", "", message)


# Of a body without changed nodes only these are asked.
FRAME_RULES: tuple[Callable[[Body], Iterator[Finding]], ...] = (
    arguments_are_distinct,
    results_exist,
)

BODY_RULES: tuple[Callable[[Body], Iterator[Finding]], ...] = (
    no_cycle,
    frames_hang_together,
    *FRAME_RULES,
)


# ---------------------------------------------------------------- rules on the model


def functions_have_their_names(model: Model, main: Body) -> Iterator[Finding]:
    for name, function in model.graph.functions.items():
        if function.name != name:
            message = f"a function is kept under {name!r} but named {function.name!r}"
            yield Finding("names", "", message)


def no_function_calls_itself(model: Model, main: Body) -> Iterator[Finding]:
    circle = find_recursion(model.graph)
    if circle:
        message = "calls itself: " + " -> ".join(circle)
        yield Finding("recursion", f"function {circle[0]}", message)


def signatures_fit(model: Model, main: Body) -> Iterator[Finding]:
    for name, signature in model.signatures.items():
        ends = [("input", key, spec) for key, spec in signature.inputs.items()]
        ends += [("output", key, spec) for key, spec in signature.outputs.items()]
        for side, key, spec in ends:
            problem = _problem_of(main, spec)
            if problem:
                message = f"{side} {key!r} of signature {name!r} {problem}"
                yield Finding("signatures", node_of(spec.tensor), message)


def _problem_of(main: Body, spec: TensorSpec) -> str:
    dtype = tensor_type(main, _flat(spec.tensor))
    if dtype is None:
        return f"is {spec.tensor!r}, which is not there"
    if dtype and dtype is not spec.dtype:
        return f"is {dtype.tf_name} in the graph, not {spec.dtype.tf_name}"
    return ""


def _flat(tensor: str) -> str:
    """The graph's own way to write a tensor; signatures also say ``x:0``."""
    return tensor.removesuffix(":0")


def init_nodes_exist(model: Model, main: Body) -> Iterator[Finding]:
    for name in model.init:
        if name not in main.nodes:
            yield Finding("init", name, "is to run once before use, but is not there")


def variables_fit(model: Model, main: Body) -> Iterator[Finding]:
    for handle, value in model.variables.items():
        if handle not in main.nodes:
            yield Finding("variables", handle, "is a variable's handle, but is not there")
            continue
        ends = main.types.ends(value)
        if value.op != "Const" or not ends.outputs:
            yield Finding("variables", handle, "its value is not a constant")
            continue
        declared = main.nodes[handle].attrs.get("dtype")
        if declared is not None and attrs.to_type(declared) is not ends.outputs[0]:
            message = f"its value is {ends.outputs[0].tf_name}, the variable is not"
            yield Finding("variables", handle, message)
        yield from constant_fits(main, handle, value, ends)


def assets_fit(model: Model, main: Body) -> Iterator[Finding]:
    for asset in model.assets:
        name, _ = split(asset.tensor)
        dtype = tensor_type(main, _flat(asset.tensor))
        if dtype is None:
            yield Finding("assets", name, f"is fed with {asset.name!r}, but is not there")
        elif dtype and dtype is not DType.STRING:
            yield Finding("assets", name, f"is fed with a path, but is {dtype.tf_name}")


MODEL_RULES: tuple[Callable[[Model, Body], Iterator[Finding]], ...] = (
    functions_have_their_names,
    no_function_calls_itself,
    signatures_fit,
    init_nodes_exist,
    variables_fit,
    assets_fit,
)


def no_variable_is_left(model: Model, main: Body) -> Iterator[Finding]:
    """A model that claims no variables may reach none from its signatures and its init nodes."""
    suspects = _variable_ops(model)
    if model.variables or not suspects:
        return
    roots = [spec.tensor for s in model.signatures.values() for spec in s.outputs.values()]
    reached = reached_nodes(main.nodes, [*roots, *model.init])
    functions = reached_functions(
        model.graph, (node for name, node in main.nodes.items() if name in reached)
    )
    for function, name, op in suspects:
        if function in functions or (not function and name in reached):
            path = f"function {function}/{name}" if function else name
            yield Finding("variables", path, f"{op} is left in a frozen graph")


def _variable_ops(model: Model) -> list[tuple[str, str, str]]:
    """Function (empty for the main graph), node and op of everything that touches a variable."""
    bodies = [("", model.graph.nodes)]
    bodies += [(name, function.nodes) for name, function in model.graph.functions.items()]
    return [
        (function, name, node.op)
        for function, nodes in bodies
        for name, node in nodes.items()
        if node.op in VARIABLE_OPS
    ]
