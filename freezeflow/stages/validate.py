"""Proves that the model still means what the original means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from freezeflow.context import Context
from freezeflow.errors import StageFailed, ValidationFailed
from freezeflow.graph.op_policy import check_runnable, uses_of
from freezeflow.graph.walk import function_order
from freezeflow.params import InputPath, param
from freezeflow.stages.stage import Outcome, Stage, StageInput
from freezeflow.values import Json

if TYPE_CHECKING:
    from freezeflow.graph.model import Model
    from freezeflow.graph.original import Original
    from freezeflow.tf.validate import Trial

# Seeded calls of each signature where the recipe says nothing.
_USUAL_SAMPLES = 4


@dataclass(frozen=True, kw_only=True)
class Random:
    """What seeded inputs of one key look like."""

    shape: tuple[int, ...] | None = param("Its shape, in place of the signature's.", default=None)
    low: float | None = param("The smallest number.", default=None)
    high: float | None = param(
        "The largest number: included for integers, excluded for floats.", default=None
    )
    values: tuple[float, ...] = param("Numbers to choose from, in place of a range.", default=())
    vocabulary: tuple[str, ...] = param("Strings to choose from.", default=())


@dataclass(frozen=True, kw_only=True)
class Params:
    """How to validate."""

    level: Literal["exact", "served"] = param(
        "`exact`: both in one process, one thread, without Grappler and oneDNN, equal to the byte. "
        "`served`: as TensorFlow runs by default, within the tolerance.",
        default="exact",
        shorthand=True,
    )
    inputs: InputPath | None = param(
        "An .npz file with one array for each input, under the signature's keys.", default=None
    )
    labels: str | None = param(
        "The array of that file with the right classes: the accuracy of both models is reported.",
        default=None,
    )
    scores: str | None = param(
        "The output that the labels belong to; by default the only one with scores for each label.",
        default=None,
    )
    samples: int | None = param(
        "How many calls with seeded inputs; by default 4, and none where `inputs` covers a signature.",
        default=None,
        minimum=1,
    )
    seed: int = param("Seed of the inputs.", default=0, minimum=0)
    sizes: tuple[int, ...] = param(
        "Sizes that unknown dimensions get, taken in turn call by call.", default=(2, 3, 1)
    )
    random: Mapping[str, Random] = param(
        "Input key to what its seeded values look like.", default_factory=dict
    )
    atol: float = param("Absolute tolerance of level `served`.", default=1e-5, minimum=0)
    rtol: float = param("Relative tolerance of level `served`.", default=1e-5, minimum=0)
    allow_ops: Mapping[str, str] = param(
        "Ops that may run although they are not known to be harmless, each with the reason.",
        default_factory=dict,
    )


def run(stage_input: StageInput, params: Params, context: Context) -> Outcome:
    """Runs original and result, and hands on the model if they agree.

    Raises:
        ModelRefused: One of them would run ops that are not known to be harmless.
        StageFailed: The inputs do not fit, or the original answers none of them.
        ValidationFailed: The result differs from the original.
    """
    from freezeflow.sources.original import original_of
    from freezeflow.tf.apart import right_process, validate_apart
    from freezeflow.tf.validate import validate

    model = stage_input.model
    if model is None:
        raise StageFailed("validate has no model to check", hint="put `load` before it")
    original = original_of(stage_input.source, context)
    _check_may_run(original, model, params)
    trial = _trial(params, context.base)
    run_here = right_process(exact=trial.exact)
    verdict = (validate if run_here else validate_apart)(original, model, trial, context.scratch)
    _report(verdict, context)
    _raise_if_different(verdict, model)
    allowed = {op: params.allow_ops[op] for op in sorted(params.allow_ops)}
    return Outcome(model=model, facts={"verdict": {**verdict, "allowed_ops": allowed}})


def _check_may_run(original: Original, model: Model, params: Params) -> None:
    if model.variables:
        raise StageFailed("the model still has variables", hint="put `freeze` before `validate`")
    for graph in (original.graph, model.graph):
        function_order(graph)
        check_runnable(uses_of(graph), graph.functions, params.allow_ops)


def _trial(params: Params, base: Path) -> Trial:
    from freezeflow.proof.compare import Tolerance
    from freezeflow.proof.seeded import Wish
    from freezeflow.tf.validate import Trial

    return Trial(
        exact=params.level == "exact",
        tolerance=Tolerance(params.atol, params.rtol),
        samples=_USUAL_SAMPLES if params.samples is None else params.samples,
        samples_always=params.samples is not None,
        seed=params.seed,
        sizes=params.sizes,
        wishes={
            key: Wish(wish.shape, wish.low, wish.high, (*wish.values, *wish.vocabulary))
            for key, wish in params.random.items()
        },
        file=None if params.inputs is None else base / params.inputs,
        labels=params.labels,
        scores=params.scores,
    )


def _report(verdict: dict[str, Json], context: Context) -> None:
    for name, found in verdict["signatures"].items():
        word = "equal" if found["equal"] else "different"
        context.log(
            f"{name}: {word} in {found['calls']} calls ({found['refused']} refused by both)"
        )
        random = [key for key, output in found["outputs"].items() if output["random"]]
        if random:
            context.warn(
                f"{name}: random in the original itself, only dtype and rank were compared: "
                + ", ".join(random)
            )


def _raise_if_different(verdict: dict[str, Json], model: Model) -> None:
    from freezeflow.tf.validate import figures, severity

    for name, found in verdict["signatures"].items():
        if found["disagreements"]:
            raise ValidationFailed(found["disagreements"][0], where=name, hint=_dropped(model))
    bad = [
        (severity(output), name, key)
        for name, found in verdict["signatures"].items()
        for key, output in found["outputs"].items()
        if not output["equal"]
    ]
    if not bad:
        return
    _, name, key = max(bad)
    output = verdict["signatures"][name]["outputs"][key]
    claim = "equal to the byte" if verdict["level"] == "exact" else "within the tolerance"
    hint = (
        "The model was not exported. `validate: {level: served, atol: ..., rtol: ...}` states "
        "another tolerance."
    )
    raise ValidationFailed(
        f"output {key!r} is not {claim}: {figures(output)}",
        where=name,
        hint=_dropped(model) or (hint if verdict["level"] == "exact" else ""),
    )


def _dropped(model: Model) -> str:
    """The likely reason of a difference: a meaning that was changed by wish."""
    if not model.writes_dropped:
        return ""
    first, *others = model.writes_dropped
    more = f" and {len(others)} more" if others else ""
    return (
        f"`freeze` dropped {first}{more}, which an output of the original sees (written: drop); bind "
        "the input that switches it off instead, or leave `validate` out."
    )


def _problems(params: Params) -> list[tuple[str, str]]:
    found = []
    if params.labels is not None and params.inputs is None:
        found.append(("labels", "labels come from the file that `inputs` names, and there is none"))
    if params.scores is not None and params.labels is None:
        found.append(("scores", "`scores` says what `labels` belong to, and there are none"))
    if not params.sizes or min(params.sizes) < 0:
        found.append(("sizes", "at least one size is needed, none below 0"))
    for op, reason in params.allow_ops.items():
        if not reason.strip():
            found.append(("allow_ops", f"say why {op} may run"))
    return found


STAGE = Stage(
    name="validate",
    summary="Runs original and result on the same inputs and compares every output.",
    version=1,
    params=Params,
    run=run,
    role="check",
    in_tensorflow=True,
    reads_source=True,
    tools=("tensorflow", "numpy"),
    problems=_problems,
)
