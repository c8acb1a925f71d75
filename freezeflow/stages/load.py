"""Reads a model: its graph, the chosen signatures, and the variables that they reach."""

from __future__ import annotations

import dataclasses

from freezeflow.context import Context
from freezeflow.sources.registry import load_source
from freezeflow.stages.stage import Outcome, Stage, StageInput


@dataclasses.dataclass(frozen=True, kw_only=True)
class Params:
    """``load`` has no parameters: the recipe's ``model`` block says what to read."""


def load(given: StageInput, params: Params, context: Context) -> Outcome:
    """Reads the source that the recipe names, without TensorFlow.

    Raises:
        ModelRefused: The model is damaged, or lacks what was asked for.
    """
    model = load_source(given.source, context)
    values = model.variables.values()
    return Outcome(
        model=model,
        facts={
            "variables": len(model.variables),
            "variable_bytes": sum(node.tensor.nbytes for node in values if node.tensor is not None),
            "functions": len(model.graph.functions),
            "signatures": list(model.signatures),
        },
    )


STAGE = Stage(
    name="load",
    summary="Read the model: graph, signatures, and the variables that they reach.",
    version=4,
    params=Params,
    run=load,
    role="load",
)
