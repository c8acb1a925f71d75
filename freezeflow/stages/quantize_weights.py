"""Weights in a quarter of their bytes: int8 with a scale for each channel."""

from __future__ import annotations

import dataclasses

from freezeflow.context import Context
from freezeflow.params import param
from freezeflow.stages.cast import fed_nodes, frozen_model
from freezeflow.stages.stage import Outcome, Stage, StageInput


@dataclasses.dataclass(frozen=True, kw_only=True)
class Params:
    """Parameters of ``quantize_weights``."""

    min_elements: int = param(
        "Constants with fewer elements stay as they are.", default=1024, minimum=1
    )
    keep: tuple[str, ...] = param(
        "Names of constants that stay as they are; `*` stands for anything.", default=()
    )


def run(given: StageInput, params: Params, context: Context) -> Outcome:
    """Quantises the weights of matrix products, convolutions and look-ups.

    Raises:
        StageFailed: There is no model, or it is not frozen yet.
    """
    from freezeflow.graph.quantize import quantize_weights

    model = frozen_model(given, "quantize_weights")
    graph, loss = quantize_weights(
        model.graph,
        min_elements=params.min_elements,
        keep=params.keep,
        fixed=fed_nodes(model),
        put=context.put_tensor,
        scratch=context.scratch,
    )
    return Outcome(model=dataclasses.replace(model, graph=graph), facts=loss.facts())


STAGE = Stage(
    name="quantize_weights",
    summary="Store weights as int8 with a scale for each channel, multiplied out in the graph.",
    version=1,
    params=Params,
    run=run,
)
