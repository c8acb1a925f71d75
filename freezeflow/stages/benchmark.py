"""Measures original and result side by side: size, load, first call, latency, memory."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from freezeflow.context import INPUTS_FILE, Context
from freezeflow.errors import StageFailed
from freezeflow.graph.op_policy import check_runs
from freezeflow.params import param
from freezeflow.proof.wishes import Inputs, input_problems, wanted_of
from freezeflow.stages.stage import Outcome, Stage, StageInput
from freezeflow.suggestions import did_you_mean

if TYPE_CHECKING:
    from freezeflow.graph.model import Model
    from freezeflow.tf.benchmark import Course


@dataclass(frozen=True, kw_only=True)
class Params(Inputs):
    """What to measure."""

    calls: int = param(
        "Calls of each side that are timed, in turn; more make p99 mean something.",
        default=50,
        minimum=5,
        shorthand=True,
    )
    signature: str | None = param(
        "Which signature is called; by default serving_default, else the first.", default=None
    )
    size: int = param("Size of unknown dimensions in seeded inputs.", default=1, minimum=1)
    threads: int | None = param(
        "Threads of both sides; by default what TensorFlow takes.", default=None, minimum=1
    )
    grappler: bool = param("Let Grappler optimise both sides, as TensorFlow does.", default=True)


def run(stage_input: StageInput, params: Params, context: Context) -> Outcome:
    """Times original and result, each in a process of its own, call by call in turn.

    Raises:
        ModelRefused: One of them would run ops that are not known to be harmless.
        StageFailed: The inputs do not fit, or a side answers with an error.
    """
    from freezeflow.sources.original import original_of
    from freezeflow.sources.registry import source_files
    from freezeflow.tf.benchmark import measure

    model = stage_input.model
    if model is None:
        raise StageFailed("benchmark has no model to measure", hint="Put `load` before it.")
    if model.variables:
        raise StageFailed("the model still has variables", hint="Put `freeze` before `benchmark`.")
    original = original_of(stage_input.source, context)
    check_runs(original.graph, params.allow_ops, original.mapped)
    check_runs(model.graph, params.allow_ops)
    source_bytes = sum(path.stat().st_size for path in source_files(stage_input.source))
    course = _course(model, params, context.base)
    found = measure(original, model, course, source_bytes, context.scratch)
    for key, words in found["assumed"].items():
        context.log(f"input {key} is taken to be: {words}")
    found["inputs"] = str(context.keep(context.scratch / INPUTS_FILE))
    return Outcome(model=model, facts={"benchmark": found})


def _course(model: Model, params: Params, base: Path) -> Course:
    from freezeflow.tf.benchmark import Course

    names = list(model.signatures)
    usual = "serving_default" if "serving_default" in names else names[0]
    name = params.signature or usual
    if name not in names:
        raise StageFailed(f"there is no signature {name!r}", hint=did_you_mean(name, names))
    return Course(
        signature=name,
        wanted=dataclasses.replace(wanted_of(params, base), usual=1, sizes=(params.size,)),
        calls=params.calls,
        threads=params.threads,
        grappler=params.grappler,
    )


def _problems(params: Params) -> list[tuple[str, str]]:
    return list(input_problems(params))


STAGE = Stage(
    name="benchmark",
    summary="Measure original and result side by side: size, load, first call, latency, memory.",
    version=2,
    params=Params,
    run=run,
    role="check",
    in_tensorflow=True,
    reads_source=True,
    tools=("tensorflow", "numpy"),
    problems=_problems,
)
