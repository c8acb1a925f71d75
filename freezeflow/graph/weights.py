"""Large constants taken out of the graph file: into variables of a checkpoint, or into files beside it.

A graph file cannot have more than 2 GB, and its constants are copied into memory when it is loaded.
What stays: constants inside of functions where that is said, those that wait for other nodes (they
may lie in a loop's frame, which a variable's handle does not), and dtypes that TensorFlow's ops for the
other form do not know.
Source of the ops: upstream ``core/kernels/resource_variable_ops.cc``, ``immutable_constant_op.cc``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping

from freezeflow.graph import attrs
from freezeflow.graph.constants import const
from freezeflow.graph.graph import Graph, Node
from freezeflow.graph.model import Model
from freezeflow.values import DType, TensorRef

# Measured with TensorFlow 2.21: AssignVariableOp has no kernel for them.
NO_VARIABLES = frozenset(
    {
        DType.QINT16,
        DType.QUINT16,
        DType.FLOAT8_E4M3FNUZ,
        DType.FLOAT8_E4M3B11FNUZ,
        DType.FLOAT8_E5M2FNUZ,
    }
)


def as_variables(model: Model) -> Model:
    """The model with the large constants of its main graph as variables that a checkpoint fills.

    A constant's name becomes that of the node which reads the variable, so its consumers stay as they
    are; the variable's own node stands before it.
    """
    nodes: dict[str, Node] = {}
    variables = dict(model.variables)
    taken = set(model.graph.nodes)
    for name, node in model.graph.nodes.items():
        if not _is_movable(node) or node.tensor is None or node.tensor.dtype in NO_VARIABLES:
            nodes[name] = node
            continue
        handle = _free(f"{name}/variable", taken)
        nodes[handle] = _handle(handle, name, node, node.tensor)
        nodes[name] = Node(
            name,
            "ReadVariableOp",
            (handle,),
            {"dtype": attrs.of_type(node.tensor.dtype)},
            node.device,
        )
        variables[handle] = node._replace(name=handle)
    graph = dataclasses.replace(model.graph, nodes=nodes)
    return dataclasses.replace(model, graph=graph, variables=variables)


def as_mapped_files(
    model: Model, file_of: Callable[[TensorRef], str], *, least_bytes: int
) -> tuple[Model, dict[str, TensorRef]]:
    """The model with large constants as files that TensorFlow maps into memory.

    Args:
        model: The model.
        file_of: The path that the graph is to name for a tensor.
        least_bytes: What a constant must have at least.

    Returns:
        The model, and the tensor that each file must hold, byte for byte, by path.
    """
    files: dict[str, TensorRef] = {}

    def moved(nodes: Mapping[str, Node]) -> dict[str, Node]:
        return {name: _mapped(node) for name, node in nodes.items()}

    def _mapped(node: Node) -> Node:
        tensor = node.tensor
        if tensor is None or node.op != "Const" or tensor.nbytes < least_bytes:
            return node
        path = file_of(tensor)
        files[path] = tensor
        values = {
            "dtype": attrs.of_type(tensor.dtype),
            "shape": attrs.of_shape(tensor.shape),
            "memory_region_name": attrs.of_bytes(path.encode()),
        }
        return Node(node.name, "ImmutableConst", node.inputs, values, node.device)

    functions = {
        name: dataclasses.replace(function, nodes=moved(function.nodes))
        for name, function in model.graph.functions.items()
    }
    graph = dataclasses.replace(model.graph, nodes=moved(model.graph.nodes), functions=functions)
    return dataclasses.replace(model, graph=graph), files


def mapped_files(graph: Graph) -> Iterator[str]:
    """The paths of the files whose contents a graph maps into memory; some may come twice."""
    for nodes in _bodies(graph):
        yield from (file_mapped_by(node) for node in nodes.values() if node.op == "ImmutableConst")


def file_mapped_by(node: Node) -> str:
    """The path that an ImmutableConst names."""
    return attrs.to_bytes(node.attrs["memory_region_name"]).decode(errors="replace")


def from_mapped_files(graph: Graph, tensor_of: Callable[[Node], TensorRef | None]) -> Graph:
    """The graph with mapped files as constants again: the reverse of `as_mapped_files`.

    Args:
        graph: The graph.
        tensor_of: The tensor that a node maps; None for one that stays as it is.
    """

    def read(nodes: Mapping[str, Node]) -> dict[str, Node]:
        return {name: _read(node) for name, node in nodes.items()}

    def _read(node: Node) -> Node:
        tensor = tensor_of(node) if node.op == "ImmutableConst" else None
        if tensor is None:
            return node
        made = const(node.name, tensor.dtype, tensor.shape, tensor)
        return made._replace(inputs=node.inputs, device=node.device)

    functions = {
        name: dataclasses.replace(function, nodes=read(function.nodes))
        for name, function in graph.functions.items()
    }
    return dataclasses.replace(graph, nodes=read(graph.nodes), functions=functions)


def _bodies(graph: Graph) -> list[Mapping[str, Node]]:
    return [graph.nodes, *(function.nodes for function in graph.functions.values())]


def largest_constants(graph: Graph) -> Iterator[tuple[str, int]]:
    """Name and bytes of each out-of-line constant, functions included, the largest first."""
    sizes = [
        (node.tensor.nbytes, name)
        for nodes in _bodies(graph)
        for name, node in nodes.items()
        if node.tensor is not None
    ]
    for nbytes, name in sorted(sizes, key=lambda item: (-item[0], item[1])):
        yield name, nbytes


def _is_movable(node: Node) -> bool:
    return node.op == "Const" and node.tensor is not None and not node.inputs


def _handle(handle: str, shared_name: str, node: Node, tensor: TensorRef) -> Node:
    values = {
        "container": attrs.of_bytes(b""),
        "dtype": attrs.of_type(tensor.dtype),
        "shape": attrs.of_shape(tensor.shape),
        "shared_name": attrs.of_bytes(shared_name.encode()),
    }
    return Node(handle, "VarHandleOp", (), values, node.device)


def _free(name: str, taken: Collection[str]) -> str:
    while name in taken:
        name += "_"
    return name
