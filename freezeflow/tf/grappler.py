"""TensorFlow's own graph optimiser, run over a frozen graph."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.python.grappler import tf_optimizer

from freezeflow.errors import StageFailed
from freezeflow.graph.model import Model
from freezeflow.graph.write import graph_def_bytes

v1 = tf.compat.v1

# What one GraphDef message can hold, with room for what the optimiser adds.
_MAX_BYTES = 1_900_000_000


def optimise(model: Model, passes: Sequence[str], iterations: int, to: Path) -> None:
    """Runs passes over a model and writes the GraphDef that comes out.

    The ends of all signatures and the nodes that run once before use are kept.

    Raises:
        StageFailed: The graph is too large for one message, or the optimiser fails.
    """
    data = graph_def_bytes(model.graph)
    if len(data) > _MAX_BYTES:
        raise StageFailed(
            f"the graph has {len(data):,} bytes; Grappler takes no more than {_MAX_BYTES:,}",
            hint="Leave `grappler` out; `fold` has no such limit.",
        )
    meta_graph = v1.MetaGraphDef()
    meta_graph.graph_def.ParseFromString(data)
    _name_ends(meta_graph, model)
    config = v1.ConfigProto(device_count={"GPU": 0})
    rewriter = config.graph_options.rewrite_options
    rewriter.optimizers[:] = list(passes)
    rewriter.min_graph_nodes = -1
    rewriter.meta_optimizer_iterations = iterations
    rewriter.fail_on_optimizer_errors = True
    try:
        optimised = tf_optimizer.OptimizeGraph(config, meta_graph)
    except (tf.errors.OpError, ValueError) as error:
        message = str(error).strip().splitlines()
        raise StageFailed(
            f"Grappler failed: {message[0] if message else 'no message'}",
            hint="Leave out the pass that fails, or `grappler` altogether.",
        ) from None
    to.write_bytes(optimised.SerializeToString(deterministic=True))


def _name_ends(meta_graph: Any, model: Model) -> None:
    for name, signature in model.signatures.items():
        target = meta_graph.signature_def[name]
        for ends, side in ((signature.inputs, target.inputs), (signature.outputs, target.outputs)):
            for key, spec in ends.items():
                tensor = spec.tensor if ":" in spec.tensor else f"{spec.tensor}:0"
                side[key].name = tensor
                side[key].dtype = int(spec.dtype)
                shape = side[key].tensor_shape
                if spec.shape is None:
                    shape.unknown_rank = True
                for size in spec.shape or ():
                    shape.dim.add(size=-1 if size is None else size)
    # The one collection whose nodes count as fetched, whatever they are for.
    meta_graph.collection_def["train_op"].node_list.value.extend(model.init)
