"""A model: one graph with its signatures, what must run once before use, its assets, its variables."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from freezeflow.graph.graph import Graph, Node
from freezeflow.values import Digest, Signature, TensorRef

# What an input can be bound to.
Scalar = bool | int | float | str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """A file that the model needs.

    Args:
        name: Its file name in the SavedModel's ``assets`` folder.
        tensor: The string tensor of the graph that is fed with the file's path.
        content: Its bytes, as a uint8 tensor of one dimension.
    """

    name: str
    tensor: str
    content: TensorRef


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What flows from stage to stage.

    Args:
        graph: The graph.
        signatures: Name to signature, sorted by name.
        init: Names of nodes that run once, in order, before the first call (table initializers).
        variables: Name of a variable's handle node in the main graph to a Const node that holds the
            value that the checkpoint gives it. Empty once a model is frozen.
        assets: Files that the graph reads by path.
        bound: Inputs that the model no longer has, as a recipe names them (signature key, else tensor
            name of the source's graph), to the value that each was fixed to.
        writes_dropped: Writes of variables, in words, that an output of the source sees and that were
            taken out by wish: with them the source may answer otherwise.
        source_kind: Which reader it came from: ``saved_model`` and so on.
        source_digest: Digest of the source's files; None for a graph that comes from none.
    """

    graph: Graph
    signatures: Mapping[str, Signature]
    init: tuple[str, ...] = ()
    variables: Mapping[str, Node] = dataclasses.field(default_factory=dict)
    assets: tuple[Asset, ...] = ()
    bound: Mapping[str, Scalar] = dataclasses.field(default_factory=dict)
    writes_dropped: tuple[str, ...] = ()
    source_kind: str = ""
    source_digest: Digest | None = None
