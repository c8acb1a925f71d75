"""What TensorFlow needs to know to run a model as it was, without any of our rewriting."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from freezeflow.graph.graph import Graph
from freezeflow.values import Signature


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """A SavedModel as TensorFlow itself would load it.

    Args:
        file: Its ``saved_model.pb`` or ``.pbtxt``.
        tags: The tags of the meta graph.
        graph: The part of the graph that runs, as read; only names, ops and attributes are used, to
            prune the file's own graph and to check its ops.
        signatures: Name to signature, with the tensors of the file's own graph.
        restore_op: Node that restores the variables; empty where there are none.
        filename_tensor: The tensor that takes the checkpoint's prefix.
        checkpoint: The checkpoint's prefix.
        captured: Handle node to checkpoint key, for variables that the restore op leaves out: TensorFlow
            2 fills them by the object graph.
        init: Nodes that run after restoring, in order.
        assets: Tensor to the path that is fed for it while `init` runs.
    """

    file: Path
    tags: frozenset[str]
    graph: Graph
    signatures: Mapping[str, Signature]
    restore_op: str
    filename_tensor: str
    checkpoint: Path
    captured: Mapping[str, str]
    init: tuple[str, ...]
    assets: Mapping[str, Path]
