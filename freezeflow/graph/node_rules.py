"""The rules of validity that look at one node and what feeds it; `verify` runs them.

Source of the rules: what TensorFlow's importer checks (upstream
``core/common_runtime/graph_constructor.cc``, ``core/framework/node_def_util.cc``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from freezeflow.graph import attrs
from freezeflow.graph.graph import Function, Graph, Node, data_inputs, join, split
from freezeflow.graph.node_types import PLACEHOLDER_TAG, Ends, NodeTypes, tag_of
from freezeflow.graph.walk import named_functions
from freezeflow.values import DType


class Finding(NamedTuple):
    """A breach of a rule.

    Args:
        rule: The rule's name.
        node: Path of the node: ``x``, or ``function f/x`` in a function; empty for the whole model.
        message: What is wrong, in one line.
    """

    rule: str
    node: str
    message: str


class Body(NamedTuple):
    """The main graph or a function's body, prepared for the rules.

    Args:
        graph: The graph it belongs to.
        path: What stands before its nodes' names in findings.
        nodes: Its nodes.
        given: Dtype of each tensor that nodes may take, INVALID where it cannot be told; only of the
            arguments where no edge will be looked at.
        args: Names of the function's arguments.
        types: The graph's node types.
        function: The function; None for the main graph.
    """

    graph: Graph
    path: str
    nodes: Mapping[str, Node]
    given: Mapping[str, DType]
    args: frozenset[str]
    types: NodeTypes
    function: Function | None

    def has(self, name: str) -> bool:
        """Whether there is a node or an argument of that name."""
        return name in self.nodes or name in self.args

    def find(self, rule: str, name: str, message: str) -> Finding:
        return Finding(rule, self.path + name, message)


def main_body(graph: Graph, types: NodeTypes, *, typed: bool = True) -> Body:
    """The main graph; `typed` says whether edges will be looked at."""
    given = _tensors(graph.nodes, types) if typed else {}
    return Body(graph, "", graph.nodes, given, frozenset(), types, None)


def function_body(
    graph: Graph, function: Function, types: NodeTypes, *, typed: bool = True
) -> Body:
    """A function's body; `typed` says whether edges will be looked at."""
    given = _tensors(function.nodes, types) if typed else {}
    given.update((arg.name, arg.dtype) for arg in function.args)
    args = frozenset(arg.name for arg in function.args)
    return Body(graph, f"function {function.name}/", function.nodes, given, args, types, function)


def _tensors(nodes: Mapping[str, Node], types: NodeTypes) -> dict[str, DType]:
    given: dict[str, DType] = {}
    for name, node in nodes.items():
        outputs = types.look(node).ends.outputs
        if not outputs:
            continue
        given[name] = outputs[0]
        for index in range(1, len(outputs)):
            given[f"{name}:{index}"] = outputs[index]
    return given


def tensor_type(body: Body, tensor: str) -> DType | None:
    """Dtype of a tensor, INVALID where it cannot be told; None where there is no such tensor."""
    found = body.given.get(tensor)
    if found is not None or tensor.endswith(":0"):
        return found
    name, index = split(tensor)
    if name not in body.nodes:
        return None
    outputs = body.types.ends(body.nodes[name]).outputs
    if outputs is None:
        return DType.INVALID
    return outputs[index] if index < len(outputs) else None


# ---------------------------------------------------------------- rules

# As upstream's IsValidNodeName; function bodies may also hold names with a leading underscore.
_NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*")
_INNER_NAME = re.compile(r"[A-Za-z0-9._][A-Za-z0-9_.\\/>-]*")


def name_is_valid(body: Body, key: str, node: Node, ends: Ends) -> Iterator[Finding]:
    pattern = _NAME if body.function is None else _INNER_NAME
    if not pattern.fullmatch(node.name):
        yield body.find("names", key, f"{node.name!r} is not a name that TensorFlow allows")
    if node.name != key:
        yield body.find("names", key, f"is kept under {key!r} but named {node.name!r}")


def inputs_exist(body: Body, key: str, node: Node, ends: Ends) -> Iterator[Finding]:
    for tensor in node.inputs:
        if tensor.startswith("^"):
            if not body.has(tensor[1:]):
                yield body.find("inputs", key, f"waits for {tensor[1:]!r}, which is not there")
        elif tensor_type(body, tensor) is None:
            yield body.find("inputs", key, f"takes {tensor!r}, {_why_missing(body, tensor)}")


def _why_missing(body: Body, tensor: str) -> str:
    name, _, index = tensor.partition(":")
    if name not in body.nodes:
        return "which is not there"
    if index == "0":
        return f"which is written {name!r}"
    outputs = body.types.ends(body.nodes[name]).outputs or ()
    return f"but {name!r} has {len(outputs)} outputs"


def control_inputs_come_last(body: Body, key: str, node: Node, ends: Ends) -> Iterator[Finding]:
    controls = [tensor.startswith("^") for tensor in node.inputs]
    if controls != sorted(controls):
        yield body.find("inputs", key, "has a data input behind a control input")


def types_are_told(body: Body, key: str, node: Node, ends: Ends) -> Iterator[Finding]:
    if ends.problem:
        yield body.find("attributes", key, f"{node.op} {ends.problem}")


def inputs_agree(body: Body, key: str, node: Node, ends: Ends) -> Iterator[Finding]:
    if ends.inputs is None:
        return
    given = list(data_inputs(node))
    if len(given) != len(ends.inputs):
        message = f"{node.op} has {len(given)} data inputs and needs {len(ends.inputs)}"
        yield body.find("types", key, message)
        return
    for number, (tensor, wanted) in enumerate(zip(given, ends.inputs, strict=True)):
        dtype = tensor_type(body, tensor)
        if dtype and wanted and dtype is not wanted:
            yield body.find(
                "types",
                key,
                f"{node.op} needs {wanted.tf_name} as input {number},"
                f" but {tensor!r} is {dtype.tf_name}",
            )


def references_are_fed(body: Body, key: str, node: Node, ends: Ends) -> Iterator[Finding]:
    given = list(data_inputs(node))
    for number in sorted(ends.ref_inputs):
        name, index = split(given[number]) if number < len(given) else ("", 0)
        if name not in body.nodes:
            continue
        source = body.types.ends(body.nodes[name])
        if source.outputs is not None and index not in source.ref_outputs:
            yield body.find(
                "references",
                key,
                f"{node.op} needs a variable as input {number}, but {join(name, index)!r}"
                f" ({body.nodes[name].op}) is a value",
            )


def attributes_fit(body: Body, key: str, node: Node, ends: Ends) -> Iterator[Finding]:
    definition = body.types.definition(node.op)
    if definition is None or node.op in body.graph.functions:
        return
    for name, kind in definition.attr_types.items():
        data = node.attrs.get(name)
        if data is None:
            if name not in definition.defaults:
                yield body.find("attributes", key, f"{node.op} lacks attribute {name!r}")
            continue
        if data[:1] not in (tag_of(kind), PLACEHOLDER_TAG):
            yield body.find("attributes", key, f"attribute {name!r} of {node.op} is not a {kind}")


def functions_exist(body: Body, key: str, node: Node, ends: Ends) -> Iterator[Finding]:
    for name in named_functions(body.graph, node):
        if name not in body.graph.functions:
            yield body.find("functions", key, f"names function {name!r}, which is not there")


def constant_fits(body: Body, key: str, node: Node, ends: Ends) -> Iterator[Finding]:
    if "value" not in node.attrs or not ends.outputs:
        return
    tensor = attrs.message(node.attrs["value"]).tensor
    if tensor.dtype != ends.outputs[0]:
        yield body.find("tensors", key, f"its value is not {ends.outputs[0].tf_name}")
        return
    sizes = tuple(dim.size for dim in tensor.tensor_shape.dim)
    if tensor.tensor_shape.unknown_rank or min(sizes, default=0) < 0:
        yield body.find("tensors", key, "the shape of its value is not known")
        return
    nbytes = math.prod(sizes) * ends.outputs[0].item_bytes
    if node.tensor is not None:
        held = node.tensor
        if (held.dtype, held.shape, held.nbytes) != (ends.outputs[0], sizes, nbytes):
            yield body.find(
                "tensors",
                key,
                f"{held.dtype.tf_name}{list(held.shape)} in {held.nbytes} bytes is kept for"
                f" {ends.outputs[0].tf_name}{list(sizes)}",
            )
    elif tensor.tensor_content and nbytes and len(tensor.tensor_content) != nbytes:
        message = f"{len(tensor.tensor_content)} bytes are kept where {nbytes} are needed"
        yield body.find("tensors", key, message)


# Function attribute -> attributes that list the dtypes of its arguments and its results, for each
# op that calls functions with its own inputs. None: the function has one result of any dtype.
_Ends = tuple[tuple[str, ...], tuple[str, ...] | None]
_CALL: Mapping[str, _Ends] = {"f": (("Tin",), ("Tout",))}
_IF: Mapping[str, _Ends] = {
    "then_branch": (("Tin",), ("Tout",)),
    "else_branch": (("Tin",), ("Tout",)),
}
_CASE: Mapping[str, _Ends] = {"branches": (("Tin",), ("Tout",))}
_WHILE: Mapping[str, _Ends] = {"cond": (("T",), None), "body": (("T",), ("T",))}
_CALLS: Mapping[str, Mapping[str, _Ends]] = {
    "PartitionedCall": _CALL,
    "StatefulPartitionedCall": _CALL,
    "RemoteCall": _CALL,
    "If": _IF,
    "StatelessIf": _IF,
    "Case": _CASE,
    "StatelessCase": _CASE,
    "While": _WHILE,
    "StatelessWhile": _WHILE,
    "BatchFunction": {"f": (("Tin", "Tcaptured"), ("Tout",))},
    "MapDefun": {"f": (("Targuments", "Tcaptured"), ("output_types",))},
}


def calls_agree(body: Body, key: str, node: Node, ends: Ends) -> Iterator[Finding]:
    for attr, (takes, gives) in _CALLS.get(node.op, {}).items():
        lists = {name: node.attrs.get(name) for name in (*takes, *(gives or ()))}
        if any(data is None or data.startswith(PLACEHOLDER_TAG) for data in lists.values()):
            continue
        wanted = [dtype for name in takes for dtype in attrs.to_types(node.attrs[name])]
        returned = (
            None
            if gives is None
            else [dtype for name in gives for dtype in attrs.to_types(node.attrs[name])]
        )
        for name, bindings in _calls(node.attrs.get(attr, b"")):
            function = body.graph.functions.get(name)
            if function is not None:
                for problem in _disagreements(function, bindings, wanted, returned):
                    yield body.find("calls", key, f"{node.op} calls {name!r} as {attr}: {problem}")


def _calls(data: bytes) -> tuple[tuple[str, dict[str, bytes]], ...]:
    kind = attrs.kind(data)
    if kind == "func":
        return (attrs.to_function(data),)
    return attrs.to_functions(data) if kind == "list" else ()


def _disagreements(
    function: Function,
    bindings: Mapping[str, bytes],
    wanted: list[DType],
    returned: list[DType] | None,
) -> Iterator[str]:
    args = [_bound(arg.dtype, arg.type_attr, bindings) for arg in function.args]
    yield from _differences("argument", args, wanted)
    results = [_bound(result.dtype, result.type_attr, bindings) for result in function.results]
    if returned is not None:
        yield from _differences("result", results, returned)
    elif len(results) != 1:
        yield f"it has {len(results)} results, not one"


def _bound(dtype: DType, type_attr: str, bindings: Mapping[str, bytes]) -> DType:
    if type_attr in bindings and attrs.kind(bindings[type_attr]) == "type":
        return attrs.to_type(bindings[type_attr])
    return dtype


def _differences(what: str, has: list[DType], wanted: list[DType]) -> Iterator[str]:
    if len(has) != len(wanted):
        yield f"it has {len(has)} {what}s, the call {len(wanted)}"
        return
    for number, (dtype, other) in enumerate(zip(has, wanted, strict=True)):
        if dtype and other and dtype is not other:
            yield f"{what} {number} is {dtype.tf_name}, the call has {other.tf_name}"


def only_constants_hold_tensors(body: Body, key: str, node: Node, ends: Ends) -> Iterator[Finding]:
    if node.tensor is not None and node.op != "Const":
        yield body.find("tensors", key, f"is no Const but a {node.op}, and yet holds a tensor")


NodeRule = Callable[[Body, str, Node, Ends], Iterator[Finding]]

# Rules about a node and its attributes.
OWN_RULES: tuple[NodeRule, ...] = (
    name_is_valid,
    attributes_fit,
    functions_exist,
    only_constants_hold_tensors,
)

# Rules about the nodes of one op.
RULES_OF_OP: Mapping[str, tuple[NodeRule, ...]] = {
    "Const": (constant_fits,),
    **dict.fromkeys(_CALLS, (calls_agree,)),
}

# Rules about what feeds a node.
EDGE_RULES: tuple[NodeRule, ...] = (
    types_are_told,
    control_inputs_come_last,
    inputs_exist,
    inputs_agree,
    references_are_fed,
)


def node_findings(body: Body, key: str) -> Iterator[Finding]:
    """Every breach of a rule at one node."""
    node = body.nodes[key]
    ends = body.types.ends(node)
    for rule in (*OWN_RULES, *RULES_OF_OP.get(node.op, ()), *EDGE_RULES):
        yield from rule(body, key, node, ends)


def doubtful(body: Body, keys: Iterable[str]) -> Iterator[str]:
    """Those of some nodes at which a rule may be broken: a quick look settles most of a large graph.

    A node is left out only where all of `OWN_RULES` and `EDGE_RULES` hold, and no other is for its op.
    """
    nodes, given, types = body.nodes, body.given.get, body.types
    for key in keys:
        node = nodes[key]
        op, inputs = node.op, node.inputs
        look = types.look(node)
        wanted = look.ends.inputs
        if (
            not look.is_fine
            or node.name != key
            or not _NAME.fullmatch(key)
            or (node.tensor is not None and op != "Const")
            or wanted is None
            or look.ends.ref_inputs
            or op in _CALLS
        ):
            yield key
            continue
        count = len(wanted)
        if len(inputs) == count:
            fed = tuple(map(given, inputs)) == wanted
        else:
            fed = tuple(map(given, inputs[:count])) == wanted and all(
                tensor.startswith("^") and body.has(tensor[1:]) for tensor in inputs[count:]
            )
        if not fed or (op == "Const" and any(constant_fits(body, key, node, look.ends))):
            yield key
