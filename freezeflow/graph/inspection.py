"""What a model consists of, as plain values for people and programs."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from freezeflow.checkpoint import Entry
from freezeflow.errors import FreezeflowError
from freezeflow.graph import attrs
from freezeflow.graph.canonical import canonical
from freezeflow.graph.freeze import WriteEffect
from freezeflow.graph.graph import Graph, Node
from freezeflow.graph.model import Model
from freezeflow.graph.op_policy import RANDOM
from freezeflow.graph.ops import standard_op
from freezeflow.graph.variables import PYTHON_CALLS, WRITES
from freezeflow.graph.write import graph_def_pieces, size_of
from freezeflow.values import DType, Shape, Signature, SourceKind

# The ops that are a table: HashTableV2, MutableDenseHashTable, AnonymousMutableHashTable ...
_TABLES = re.compile(r"(Anonymous)?(Mutable)?(Dense)?HashTable(OfTensors)?(V2)?")

# Of the random ops, those whose numbers follow from their inputs.
_SEEDED = frozenset({"RandomGammaGrad", "RandomIndexShuffle", "RngSkip"})


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
    """A variable: the node that holds it, dtype, shape, bytes of its value.

    Args:
        trainable: Whether it was trained; None where the model does not say.
    """

    name: str
    dtype: DType
    shape: Shape
    nbytes: int
    trainable: bool | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TableFacts:
    """A look-up table that a signature reaches.

    Args:
        name: The node that holds it.
        op: What kind of table.
        key: Dtype of its keys.
        value: Dtype of its values.
    """

    name: str
    op: str
    key: DType
    value: DType


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFacts:
    """What the checkpoint holds.

    Args:
        tensors: How many tensors.
        nbytes: Their bytes.
        duplicates: How many of them hold the same bytes as another one, which is counted once.
        duplicate_bytes: The bytes of these.
    """

    tensors: int
    nbytes: int
    duplicates: int
    duplicate_bytes: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SignatureFacts:
    """A signature, and whether it freezes.

    Args:
        name: Its name.
        signature: Its inputs and outputs; None where they cannot be told.
        variables: The variables that it reaches.
        assets: The files that it reads: name to bytes.
        tables: The tables that it reaches.
        writes: The writes that it does, and whether an output sees them.
        random_ops: Ops that give other numbers from call to call, with how often they are used.
        frozen_nodes: Nodes once it is frozen; None where it cannot be.
        frozen_bytes: Bytes of the frozen graph's file.
        obstacle: What stops a freeze.
    """

    name: str
    signature: Signature | None
    variables: tuple[VariableFacts, ...] = ()
    assets: Mapping[str, int] = dataclasses.field(default_factory=dict)
    tables: tuple[TableFacts, ...] = ()
    writes: tuple[WriteEffect, ...] = ()
    random_ops: Mapping[str, int] = dataclasses.field(default_factory=dict)
    frozen_nodes: int | None = None
    frozen_bytes: int | None = None
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
        checkpoint: What its checkpoint holds; None without one.
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
    checkpoint: CheckpointFacts | None
    signatures: tuple[SignatureFacts, ...]

    @property
    def freezes(self) -> bool:
        """Nothing would stop a freeze of any signature."""
        return all(found.obstacle is None for found in self.signatures)


def graph_facts(graph: Graph) -> GraphFacts:
    """Counts what is in a graph and its functions."""
    counts = Counter(node.op for node in _all_nodes(graph))
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


def variables_of(model: Model, trainable: Mapping[str, bool]) -> tuple[VariableFacts, ...]:
    """The variables of a loaded model, by name."""
    return tuple(
        _variable(name, node, trainable.get(name)) for name, node in sorted(model.variables.items())
    )


def tables_of(model: Model) -> tuple[TableFacts, ...]:
    """The tables of a model, by name."""
    tables = [node for node in _all_nodes(model.graph) if _TABLES.fullmatch(node.op)]
    return tuple(
        TableFacts(
            name=node.name,
            op=node.op,
            key=attrs.to_type(node.attrs["key_dtype"]),
            value=attrs.to_type(node.attrs["value_dtype"]),
        )
        for node in sorted(tables, key=lambda node: node.name)
        if {"key_dtype", "value_dtype"} <= node.attrs.keys()
    )


def random_ops_of(model: Model) -> dict[str, int]:
    """The ops of a model that give other numbers from call to call, the most used first."""
    counts = Counter(
        node.op
        for node in _all_nodes(model.graph)
        if node.op in RANDOM and not node.op.startswith("Stateless") and node.op not in _SEEDED
    )
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def has_writes(model: Model) -> bool:
    """Whether any op of a model writes a variable."""
    return any(WRITES.match(node.op) for node in _all_nodes(model.graph))


def frozen_bytes_of(model: Model) -> int:
    """Bytes of the file that a frozen model becomes."""
    return size_of(list(graph_def_pieces(canonical(model).graph)))


def checkpoint_facts(entries: Sequence[Entry]) -> CheckpointFacts:
    """Sums up a checkpoint; bytes are taken for the same where their checksums are."""
    groups: dict[tuple[object, ...], int] = {}
    duplicates = duplicate_bytes = 0
    for entry in entries:
        if entry.checksum is None or not entry.nbytes:
            continue
        what = (entry.dtype, entry.shape, entry.nbytes, entry.checksum)
        groups[what] = groups.get(what, 0) + 1
        if groups[what] > 1:
            duplicates += 1
            duplicate_bytes += entry.nbytes
    return CheckpointFacts(
        tensors=len(entries),
        nbytes=sum(entry.nbytes for entry in entries),
        duplicates=duplicates,
        duplicate_bytes=duplicate_bytes,
    )


def _all_nodes(graph: Graph) -> Iterator[Node]:
    yield from graph.nodes.values()
    for function in graph.functions.values():
        yield from function.nodes.values()


def assets_of(model: Model) -> dict[str, int]:
    """The files that a model reads, with their bytes."""
    return {asset.name: asset.content.nbytes for asset in model.assets}


def _variable(name: str, value: Node, trainable: bool | None) -> VariableFacts:
    dtype = attrs.to_type(value.attrs["dtype"])
    shape = attrs.read_shape(attrs.message(value.attrs["value"]).tensor.tensor_shape)
    assert shape is not None
    elements = math.prod(length or 0 for length in shape)
    nbytes = value.tensor.nbytes if value.tensor is not None else elements * dtype.item_bytes
    return VariableFacts(name=name, dtype=dtype, shape=shape, nbytes=nbytes, trainable=trainable)
