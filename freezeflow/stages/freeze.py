"""Turns a loaded model into one without variables: self-contained, called by its signature's names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from freezeflow.context import Context
from freezeflow.graph import attrs
from freezeflow.graph.assets import embed_assets
from freezeflow.graph.bind import bind_inputs, settle_branches
from freezeflow.graph.freeze import freeze_variables
from freezeflow.graph.model import Model
from freezeflow.graph.rename import name_ends
from freezeflow.graph.tables import inline_tables
from freezeflow.params import param
from freezeflow.stages.stage import Outcome, Stage, StageInput


@dataclasses.dataclass(frozen=True, kw_only=True)
class Params:
    """Parameters of ``freeze``."""

    names: Literal["signature", "graph"] = param(
        "Call inputs and outputs after the signature's keys, or keep the graph's own names.",
        default="signature",
    )
    bind: Mapping[str, bool | int | float | str] = param(
        "Inputs fixed to a value, by signature key or tensor name, as in {is_training: false};"
        " branches that this rules out are left out.",
        default_factory=dict,
    )
    written: Literal["error", "keep", "drop"] = param(
        "What to do about a variable that a signature writes and an output sees: refuse the model,"
        " keep the variable alive, so that only a SavedModel can hold the result, or drop the write, so"
        " that the variable keeps its saved value (this changes the meaning).",
        default="error",
    )
    tables: Literal["init", "inline"] = param(
        "Static look-up tables keep an initializer, which the manifest names, or become pure ops, so"
        " that the graph needs none.",
        default="init",
    )


def freeze(given: StageInput, params: Params, context: Context) -> Outcome:
    """Inlines calls, turns variables into constants, and embeds vocabulary files.

    Raises:
        UsageError: An input to bind is not there, or its value does not suit it.
        ModelRefused: An output depends on a variable that is written, a variable has no value, an
            asset is read in a way that needs the file, or an op does what is not known.
    """
    assert given.model is not None
    for name in _marked_for_compilation(given.model):
        context.warn(
            f"function {name} is marked jit_compile and inlined: without XLA's kernels the last bits of"
            " results may differ"
        )
    loaded = bind_inputs(given.model, params.bind) if params.bind else settle_branches(given.model)
    frozen = freeze_variables(loaded, written=params.written)
    for write in frozen.seen_writes:
        context.warn(f"dropped a write that an output sees: {write}")
    dropped = (*loaded.writes_dropped, *frozen.seen_writes)
    changed = dataclasses.replace(frozen.model, writes_dropped=dropped)
    model = name_ends(embed_assets(changed), after_signature=params.names == "signature")
    inlined = 0
    if params.tables == "inline":
        model, inlined, left = inline_tables(model, context.put_tensor)
        for reason in left:
            context.warn(f"a table stays: {reason}")
    return Outcome(
        model=model,
        facts={
            "variables_frozen": frozen.variables,
            "variables_kept": sorted(model.variables),
            "writes_dropped": frozen.writes_dropped,
            "tables_inlined": inlined,
            "init": list(model.init),
        },
    )


def _marked_for_compilation(model: Model) -> list[str]:
    """Functions that XLA compiles in the original."""
    mark = attrs.of_bool(True)
    functions = model.graph.functions.values()
    return sorted(f.name for f in functions if f.attrs.get("_XlaMustCompile") == mark)


STAGE = Stage(
    name="freeze",
    summary="Turn variables into constants and inline calls; name the ends after the signature.",
    version=9,
    params=Params,
    run=freeze,
)
