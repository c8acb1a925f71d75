"""Weights in half as many bytes: float16 or bfloat16, cast back where they are used."""

from __future__ import annotations

import dataclasses
from typing import Literal

from freezeflow.context import Context
from freezeflow.errors import StageFailed
from freezeflow.graph.model import Model
from freezeflow.params import param
from freezeflow.stages.stage import Outcome, Stage, StageInput
from freezeflow.values import DType, Json


@dataclasses.dataclass(frozen=True, kw_only=True)
class Params:
    """Parameters of ``cast``."""

    to: Literal["float16", "bfloat16"] = param(
        "How weights are stored. float16 keeps more digits, bfloat16 the whole range of float32.",
        default="float16",
        shorthand=True,
    )
    compute: Literal["float32", "half"] = param(
        "What is computed in. With `half`, matrix products, convolutions and the like compute in the "
        "dtype of `to`; reductions, softmax and exponentials stay in float32, and so do the "
        "signatures' inputs and outputs.",
        default="float32",
    )
    min_elements: int = param(
        "Constants with fewer elements stay as they are.", default=256, minimum=1
    )
    keep: tuple[str, ...] = param(
        "Names of constants that stay as they are; `*` stands for anything.", default=()
    )


def run(given: StageInput, params: Params, context: Context) -> Outcome:
    """Casts the weights, and by wish what computes with them.

    Raises:
        StageFailed: There is no model, or it is not frozen yet.
    """
    from freezeflow.graph.cast import cast_weights
    from freezeflow.graph.half import compute_in
    from freezeflow.graph.strip import ends_of, strip

    model = frozen_model(given, "cast")
    dtype = DType.from_tf_name(params.to)
    graph, loss = cast_weights(
        model.graph,
        dtype,
        min_elements=params.min_elements,
        keep=params.keep,
        fixed=fed_nodes(model),
        put=context.put_tensor,
        scratch=context.scratch,
    )
    facts: dict[str, Json] = loss.facts()
    if params.compute == "half":
        graph, facts["nodes_in_half"] = compute_in(graph, dtype, ends_of(model))
    model = strip(dataclasses.replace(model, graph=graph)).model
    return Outcome(model=model, facts=facts)


def frozen_model(given: StageInput, stage: str) -> Model:
    """The model of a stage that works on weights.

    Raises:
        StageFailed: There is no model, or it is not frozen yet.
    """
    if given.model is None:
        raise StageFailed(f"{stage} has no model to work on", hint="Put `load` before it.")
    if given.model.variables:
        raise StageFailed(
            f"{stage} works on constants, and the weights of this model are variables",
            hint="Put `freeze` before it.",
        )
    return given.model


def fed_nodes(model: Model) -> frozenset[str]:
    """Nodes whose outputs a caller replaces."""
    ends = (spec.tensor for s in model.signatures.values() for spec in s.inputs.values())
    return frozenset(tensor.partition(":")[0] for tensor in ends)


STAGE = Stage(
    name="cast",
    summary="Store weights as float16 or bfloat16; on request compute in it, too.",
    version=1,
    params=Params,
    run=run,
)
