"""What a model consists of, as plain values for people and programs."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from freezeflow.errors import FreezeflowError
from freezeflow.graph import attrs
from freezeflow.graph.graph import Graph, Node
from freezeflow.graph.model import Model
from freezeflow.graph.ops import standard_op
from freezeflow.graph.variables import PYTHON_CALLS
from freezeflow.values import DType, Shape, Signature, SourceKind

# The ops that are a table: HashTableV2, MutableDenseHashTable, AnonymousMutableHashTable ...
_TABLES = re.compile(r"(Anonymous)?(Mutable)?(Dense)?HashTable(OfTensors)?(V2)?")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GraphFacts:
    """What is in a graph and its functions.

    Args:
        nodes: Nodes of the main graph and of all functions.
        functions: How many functions.
        ops: Op to how often it is used, the most used first.
        custom_ops: Those of them that TensorFlow itself does not have.
        python_calls: Those that call Python code, which no graph holds.
        tables: How many lookup tables.
    """

    nodes: int
    functions: int
    ops: Mapping[str, int]
    custom_ops: tuple[str, ...]
    python_calls: tuple[str, ...]
    tables: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class VariableFacts:
    """A variable: the node that holds it, dtype, shape, bytes of its value."""

    name: str
    dtype: DType
    shape: Shape
    nbytes: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SignatureFacts:
    """A signature, and whether it freezes.

    Args:
        name: Its name.
        signature: Its inputs and outputs; None where they cannot be told.
        variables: The variables that it reaches.
        assets: The files that it reads: name to bytes.
        frozen_nodes: Nodes once it is frozen; None where it cannot be.
        obstacle: What stops a freeze.
    """

    name: str
    signature: Signature | None
    variables: tuple[VariableFacts, ...] = ()
    assets: Mapping[str, int] = dataclasses.field(default_factory=dict)
    frozen_nodes: int | None = None
    obstacle: FreezeflowError | None = None

    @property
    def variable_bytes(self) -> int:
        """Bytes of all its variables' values."""
        return sum(variable.nbytes for variable in self.variables)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What a model consists of, and what would stop a freeze.

    Args:
        path: Where it is.
        kind: What kind of model.
        files: How many files it consists of.
        nbytes: Their bytes.
        tag_sets: The tag sets of its meta graphs.
        tags: The tag set that was looked at.
        written_by: The version of TensorFlow that wrote it; empty where it does not say.
        graph: What is in the graph, training and saving included.
        signatures: Its signatures; for a graph without any, the one that can be told from it.
    """

    path: Path
    kind: SourceKind
    files: int
    nbytes: int
    tag_sets: tuple[tuple[str, ...], ...]
    tags: tuple[str, ...]
    written_by: str
    graph: GraphFacts
    signatures: tuple[SignatureFacts, ...]

    @property
    def freezes(self) -> bool:
        """Nothing would stop a freeze of any signature."""
        return all(found.obstacle is None for found in self.signatures)


def graph_facts(graph: Graph) -> GraphFacts:
    """Counts what is in a graph and its functions."""
    bodies = [graph.nodes, *(function.nodes for function in graph.functions.values())]
    counts = Counter(node.op for nodes in bodies for node in nodes.values())
    ops = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    return GraphFacts(
        nodes=sum(counts.values()),
        functions=len(graph.functions),
        ops=ops,
        custom_ops=tuple(
            sorted(op for op in ops if op not in graph.functions and standard_op(op) is None)
        ),
        python_calls=tuple(sorted(op for op in ops if op in PYTHON_CALLS)),
        tables=sum(number for op, number in ops.items() if _TABLES.fullmatch(op)),
    )


def variables_of(model: Model) -> tuple[VariableFacts, ...]:
    """The variables of a loaded model, by name."""
    return tuple(_variable(name, node) for name, node in sorted(model.variables.items()))


def assets_of(model: Model) -> dict[str, int]:
    """The files that a model reads, with their bytes."""
    return {asset.name: asset.content.nbytes for asset in model.assets}


def _variable(name: str, value: Node) -> VariableFacts:
    dtype = attrs.to_type(value.attrs["dtype"])
    shape = attrs.read_shape(attrs.message(value.attrs["value"]).tensor.tensor_shape)
    assert shape is not None
    elements = math.prod(length or 0 for length in shape)
    nbytes = value.tensor.nbytes if value.tensor is not None else elements * dtype.item_bytes
    return VariableFacts(name=name, dtype=dtype, shape=shape, nbytes=nbytes)
