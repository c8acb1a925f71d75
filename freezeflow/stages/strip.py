"""Leaves out what no output needs, and by wish the ops that only check or print."""

from __future__ import annotations

import dataclasses
from typing import Literal

from freezeflow.context import Context
from freezeflow.errors import StageFailed
from freezeflow.graph.model import Model
from freezeflow.graph.strip import strip
from freezeflow.params import param
from freezeflow.stages.stage import Outcome, Stage, StageInput
from freezeflow.values import Json

DebuggingOp = Literal[
    "Assert",
    "CheckNumerics",
    "CheckNumericsV2",
    "DebugIdentity",
    "DebugIdentityV2",
    "DebugIdentityV3",
    "Print",
    "PrintV2",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Params:
    """Parameters of ``strip``."""

    remove: tuple[DebuggingOp, ...] = param(
        "Ops to take out that only check or print. What passes through one passes on unchanged; a"
        " model without its asserts no longer refuses inputs that they refused.",
        default=(),
        shorthand=True,
    )
    identities: bool = param(
        "Take out Identity nodes where that is exactly the same. Ends of signatures keep theirs.",
        default=False,
    )


def run(given: StageInput, params: Params, context: Context) -> Outcome:
    """Prunes to the signatures and initializers; the meaning stays.

    Raises:
        StageFailed: There is no model to strip.
    """
    if given.model is None:
        raise StageFailed("strip has no model to work on", hint="Put `load` before it.")
    stripped = strip(given.model, remove=params.remove, drop_identities=params.identities)
    facts: dict[str, Json] = {
        "nodes_before": count_nodes(given.model),
        "nodes_after": count_nodes(stripped.model),
        "functions_before": len(given.model.graph.functions),
        "functions_after": len(stripped.model.graph.functions),
        "removed": dict(stripped.removed),
    }
    if params.identities:
        facts["identities_removed"] = stripped.identities
    return Outcome(model=stripped.model, facts=facts)


def count_nodes(model: Model) -> int:
    """Nodes of the main graph and of all functions."""
    bodies = [model.graph.nodes, *(f.nodes for f in model.graph.functions.values())]
    return sum(map(len, bodies))


STAGE = Stage(
    name="strip",
    summary="Leave out what no output needs; on request also debugging ops and Identity nodes.",
    version=2,
    params=Params,
    run=run,
)
