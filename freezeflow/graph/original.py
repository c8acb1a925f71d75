"""What TensorFlow needs to know to run a model as it was, without any of our rewriting."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from freezeflow.graph.graph import Graph
from freezeflow.graph.restore import SavedTensor
from freezeflow.values import Signature

# Where a SavedModel keeps TensorFlow Serving's warm-up requests.
WARMUP_REQUESTS = Path("assets.extra", "tf_serving_warmup_requests")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """A source as TensorFlow itself would load it.

    Args:
        file: The file with its graph; ``.pbtxt`` is text.
        message: What the file holds.
        tags: The tags of the meta graph, for a SavedModel.
        graph: The part of the graph that runs, as read; only names, ops and attributes are used, to
            prune the file's own graph and to check its ops. A node of another op than the file's own
            takes that one's place: a placeholder for what is fed, a shared table for an anonymous one.
        signatures: Name to signature, with the tensors of the file's own graph.
        restore_op: Node that restores the variables; empty where none does.
        filename_tensor: The tensor that takes the checkpoint's prefix while the restore op runs.
        checkpoint: The checkpoint's prefix as TensorFlow takes it (``folder/`` for an empty name);
            empty where nothing is restored.
        assigned: Handle node to the tensor of the checkpoint that fills it, for variables that no
            restore op fills as wished: TensorFlow 2 fills some by the object graph, and other weights
            and averages are assigned one by one.
        tables: Table node to the tensors of its keys and values, the same.
        init: Nodes that run after restoring, in order.
        assets: Tensor to the path that is fed for it while `init` runs.
        mapped: Path that an ImmutableConst names to the file beside the graph that it is to map.
    """

    file: Path
    message: Literal["SavedModel", "MetaGraphDef", "GraphDef"]
    tags: frozenset[str] = frozenset()
    graph: Graph
    signatures: Mapping[str, Signature]
    restore_op: str = ""
    filename_tensor: str = ""
    checkpoint: str = ""
    assigned: Mapping[str, SavedTensor] = dataclasses.field(default_factory=dict)
    tables: Mapping[str, tuple[SavedTensor, SavedTensor]] = dataclasses.field(default_factory=dict)
    init: tuple[str, ...] = ()
    assets: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    mapped: Mapping[str, Path] = dataclasses.field(default_factory=dict)
