"""The canonical form: models that say the same thing become the same bytes.

What carries no meaning is left out, functions get short stable names, and everything is put in an
order that depends on the graph alone: nodes topologically with their names as tie-break, functions
by name, mappings by key. Bringing a canonical model into canonical form changes nothing.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Mapping

from freezeflow.graph import attrs, colocation
from freezeflow.graph.graph import Arg, Function, Graph, Node
from freezeflow.graph.model import Model
from freezeflow.graph.node_types import NodeTypes
from freezeflow.graph.ops import standard_op
from freezeflow.graph.walk import reached_functions, topological_order, without_unused
from freezeflow.values import DType, Signature

# Node attributes that describe how the graph came about, or repeat what can be inferred.
_IDLE_NODE_ATTRS = frozenset(
    {
        "_output_shapes",
        "_handle_dtypes",
        "_handle_shapes",
        "_has_manual_control_dependencies",
        "_collective_manager_ids",
        "_num_original_outputs",
        "_user_specified_name",
    }
)

# The same for functions. ``api_implements`` lets TensorFlow choose by machine between functions
# that are said to do the same; the others name functions that inference never calls.
_IDLE_FUNCTION_ATTRS = frozenset(
    {
        "_input_shapes",
        "_construction_context",
        "_original_func_name",
        "api_implements",
        "api_preferred_device",
        "forward_function_name",
        "backward_function_name",
        "forward_inference_function_name",
    }
)

_IDLE_ARG_ATTRS = frozenset({"_output_shapes", "_user_specified_name", "_handle_dtypes"})

# Attributes with a default that tells a machine's or a session's settings; the default is meant.
_SESSION_ATTRS = frozenset({"config_proto", "config", "executor_type"})
_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})

# Ops whose declared attributes are not all kept.
_WITH_SETTINGS = _CALLS | {"VarHandleOp"}

# What TensorFlow puts around the name that a person gave a function.
_MADE_PREFIX = re.compile(r"^(?:__(?:inference|forward|backward)_+)+")
_MADE_SUFFIX = re.compile(r"(?:(?:^|_)\d+|_rewritten|_frozen)+$")


def canonical(model: Model, *, keep_devices: bool = False, drop_defaults: bool = False) -> Model:
    """The canonical form of a valid model.

    Args:
        model: The model; it is not pruned, but functions that nothing calls are dropped.
        keep_devices: Keep the devices that nodes ask for.
        drop_defaults: Leave out attributes that equal the op's default.

    Raises:
        ModelRefused: The graph has a cycle that is no loop.
    """
    cleaner = _Cleaner(model.graph, keep_devices=keep_devices, drop_defaults=drop_defaults)
    graph = _rename_functions(cleaner.graph())
    return dataclasses.replace(
        model,
        graph=graph,
        signatures={
            name: Signature(
                dict(sorted(signature.inputs.items())), dict(sorted(signature.outputs.items()))
            )
            for name, signature in sorted(model.signatures.items())
        },
        variables={handle: cleaner.node(node) for handle, node in sorted(model.variables.items())},
        assets=tuple(sorted(model.assets, key=lambda asset: (asset.name, asset.tensor))),
    )


# ---------------------------------------------------------------- nodes


class _Cleaner:
    """Drops what carries no meaning and puts nodes in order."""

    def __init__(self, graph: Graph, *, keep_devices: bool, drop_defaults: bool) -> None:
        self._graph = without_unused(graph)
        self._types = NodeTypes(self._graph)
        self._keep_devices = keep_devices
        self._drop_defaults = drop_defaults

    def graph(self) -> Graph:
        functions = {name: self._function(f) for name, f in self._graph.functions.items()}
        return dataclasses.replace(
            self._graph,
            nodes=self._nodes(self._graph.nodes),
            functions=functions,
            op_defs=dict(sorted(self._graph.op_defs.items())),
        )

    def _function(self, function: Function) -> Function:
        return dataclasses.replace(
            function,
            args=tuple(map(_clean_arg, function.args)),
            nodes=self._nodes(function.nodes),
            control_results=tuple(sorted(function.control_results)),
            attrs={
                key: data
                for key, data in sorted(function.attrs.items())
                if key not in _IDLE_FUNCTION_ATTRS and not key.startswith("experimental_")
            },
            attr_defs=tuple(sorted(function.attr_defs)),
        )

    def _nodes(self, nodes: Mapping[str, Node]) -> Mapping[str, Node]:
        ordered = {name: self.node(nodes[name]) for name in topological_order(nodes)}
        return colocation.drop_dangling(ordered)

    def node(self, node: Node) -> Node:
        if self._is_clean(node):
            return node
        kept = {
            key: data
            for key, data in sorted(node.attrs.items())
            if not self._is_idle(node, key, data)
        }
        data = [tensor for tensor in node.inputs if not tensor.startswith("^")]
        control = sorted({tensor for tensor in node.inputs if tensor.startswith("^")})
        return node._replace(
            inputs=(*data, *control),
            attrs=kept,
            device=node.device if self._keep_devices else "",
        )

    def _is_clean(self, node: Node) -> bool:
        """Whether the node is as it must be; a quick look that settles most nodes."""
        if node.device or self._drop_defaults or node.op in _WITH_SETTINGS:
            return False
        if not node.attrs.keys() <= self._types.kinds(node.op).tags.keys():
            return False
        if len(node.inputs) > 1 and node.inputs[-2].startswith("^"):
            return False
        keys = list(node.attrs)
        return keys == sorted(keys)

    def _is_idle(self, node: Node, key: str, data: bytes) -> bool:
        if key in _IDLE_NODE_ATTRS:
            return True
        if key in _SESSION_ATTRS:
            return node.op in _CALLS
        if key == "_gradient_op_type":
            # A number of the process that traced a call; of use only to take gradients there.
            return b"PartitionedCall-" in data
        if key == "_read_only_resource_inputs":
            return DType.RESOURCE not in (self._types.ends(node).inputs or ())
        if key == "debug_name":
            return node.op == "VarHandleOp"
        definition = self._types.definition(node.op)
        if key.startswith("experimental_"):
            return definition is not None and key not in definition.attr_types
        return (
            self._drop_defaults and definition is not None and definition.defaults.get(key) == data
        )


def _clean_arg(arg: Arg) -> Arg:
    kept = {
        key: data
        for key, data in sorted(arg.attrs.items())
        # It tells which arguments are the same resource.
        if key not in _IDLE_ARG_ATTRS
        and (key != "_resource_arg_unique_id" or arg.dtype is DType.RESOURCE)
    }
    return arg._replace(attrs=kept)


# ---------------------------------------------------------------- functions


def _rename_functions(graph: Graph) -> Graph:
    """Functions named by what a person called them, numbered in the order of first reference."""
    names = _new_names(graph)
    renamed = {
        new: dataclasses.replace(
            graph.functions[old],
            name=new,
            nodes=_with_new_names(graph.functions[old].nodes, names),
        )
        for old, new in names.items()
    }
    return dataclasses.replace(
        graph,
        nodes=_with_new_names(graph.nodes, names),
        functions=dict(sorted(renamed.items())),
    )


def _new_names(graph: Graph) -> dict[str, str]:
    """Old name to new name, in the order of first reference."""
    taken: set[str] = set()
    numbers: Counter[str] = Counter()  # how far each readable name has come
    names: dict[str, str] = {}
    for old in reached_functions(graph, graph.nodes.values()):
        base = new = _readable(old, graph)
        while new in taken:
            numbers[base] += 1
            new = f"{base}_{numbers[base]}"
        taken.add(new)
        names[old] = new
    return names


def _readable(name: str, graph: Graph) -> str:
    """The name without what TensorFlow put around it; never the name of an op."""
    short = _MADE_SUFFIX.sub("", _MADE_PREFIX.sub("", name)) or "function"
    is_op = short in graph.op_defs or standard_op(short) is not None
    return f"{short}_function" if is_op else short


def _with_new_names(nodes: Mapping[str, Node], names: Mapping[str, str]) -> dict[str, Node]:
    if not names:
        return dict(nodes)
    return {name: _renamed(node, names.get) for name, node in nodes.items()}


def _renamed(node: Node, new_name: Callable[[str, str], str]) -> Node:
    changed = {
        key: _rename_in(data, new_name)
        for key, data in node.attrs.items()
        if attrs.function_names(data)
    }
    op = new_name(node.op, node.op)
    if not changed and op == node.op:
        return node
    return node._replace(op=op, attrs={**node.attrs, **changed})


def _rename_in(data: bytes, new_name: Callable[[str, str], str]) -> bytes:
    """A ``func`` attribute or a list of them with the functions' new names, bindings included."""
    if attrs.kind(data) == "func":
        name, bindings = attrs.to_function(data)
        return attrs.of_function(new_name(name, name), _bindings(bindings, new_name))
    return attrs.of_functions(
        (new_name(name, name), _bindings(bindings, new_name))
        for name, bindings in attrs.to_functions(data)
    )


def _bindings(
    bindings: Mapping[str, bytes], new_name: Callable[[str, str], str]
) -> dict[str, bytes]:
    """The values that a call gives to placeholders, without settings of a session."""
    return {
        key: _rename_in(data, new_name) if attrs.function_names(data) else data
        for key, data in sorted(bindings.items())
        if key not in _SESSION_ATTRS
    }
