"""Exact constant folding: what is the same in every call is computed once, here."""

from __future__ import annotations

from dataclasses import dataclass

from freezeflow.context import Context
from freezeflow.errors import StageFailed
from freezeflow.graph import fold as folding
from freezeflow.graph.foldable import node_bytes
from freezeflow.graph.graph import Graph
from freezeflow.graph.model import Model
from freezeflow.graph.walk import function_order
from freezeflow.params import param
from freezeflow.stages.stage import Outcome, Stage, StageInput
from freezeflow.values import Json


@dataclass(frozen=True, kw_only=True)
class Params:
    """How far to fold."""

    max_growth: int = param(
        "Bytes by which the whole graph may grow. With 0, constants are only computed where that "
        "makes the graph smaller, or no larger than what other parts saved.",
        default=0,
        minimum=0,
    )
    max_bytes: int = param(
        "The largest tensor that is computed on the way, in bytes.",
        default=1024**3,
        minimum=0,
    )
    batch_norms: bool = param(
        "Fold batch norms into the weights before them (Conv2D, Conv3D, depthwise and transposed "
        "convolutions, MatMul). Results then differ by rounding: validate with `level: served`. "
        "Weights that others use as well are copied.",
        default=False,
    )


def run(stage_input: StageInput, params: Params, context: Context) -> Outcome:
    """Folds with TensorFlow's own kernels, so that no bit changes but where batch norms are folded.

    Raises:
        ModelRefused: Functions call each other in a circle, or the graph has a cycle.
        StageFailed: There is no model to fold.
    """
    from freezeflow.tf.evaluate import TensorFlowEvaluation

    model = stage_input.model
    if model is None:
        raise StageFailed("fold has no model to work on", hint="Put `load` before it.")
    function_order(model.graph)
    folded = folding.fold(
        model,
        folding.Folding(
            evaluate=lambda graph, found: TensorFlowEvaluation(
                graph, found, max_bytes=params.max_bytes
            ),
            put=context.put_tensor,
            max_bytes=params.max_bytes,
            max_growth=params.max_growth,
            batch_norms=params.batch_norms,
        ),
    )
    facts = _facts(model, folded)
    if params.batch_norms:
        facts["batch_norms_folded"] = folded.norms.folded
        facts["batch_norms_left"] = dict(sorted(folded.norms.left.items()))
        facts["bytes_copied"] = folded.norms.copied
        for name, reason in sorted(folded.norms.left.items()):
            context.log(f"batch norm {name} stays: {reason}")
    return Outcome(model=folded.model, facts=facts)


def _facts(before: Model, folded: folding.Folded) -> dict[str, Json]:
    after = folded.model
    return {
        "nodes_before": _count(before.graph),
        "nodes_after": _count(after.graph),
        "nodes_folded": folded.nodes_folded,
        "nodes_left": folded.nodes_left,
        "bytes_folded": folded.bytes_folded,
        "bytes_before": _bytes(before.graph),
        "bytes_after": _bytes(after.graph),
    }


def _count(graph: Graph) -> int:
    return len(graph.nodes) + sum(len(function.nodes) for function in graph.functions.values())


def _bytes(graph: Graph) -> int:
    bodies = [graph.nodes, *(function.nodes for function in graph.functions.values())]
    return sum(node_bytes(node) for nodes in bodies for node in nodes.values())


STAGE = Stage(
    name="fold",
    summary="Computes what is constant with TensorFlow's own kernels, and changes no bit.",
    version=9,
    params=Params,
    run=run,
    in_tensorflow=True,
    tools=("tensorflow",),
)
