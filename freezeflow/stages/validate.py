"""Proves that the model still means what the original means."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from freezeflow.context import EVIDENCE, INPUTS_FILE, SUBGRAPH_FOLDER, VERDICT_FILE, Context
from freezeflow.errors import StageFailed, ValidationFailed
from freezeflow.exports.registry import RUNTIMES, runtime_named
from freezeflow.graph.op_policy import check_runs
from freezeflow.graph.original import WARMUP_REQUESTS
from freezeflow.graph.storage import model_tensors
from freezeflow.machine import available_bytes
from freezeflow.params import InputTree, param
from freezeflow.proof.wishes import Inputs, input_problems, wanted_of
from freezeflow.stages.stage import Demands, Outcome, Stage, StageInput
from freezeflow.store.files import remove_tree
from freezeflow.store.hashing import hash_file
from freezeflow.values import Json, ModelSource

if TYPE_CHECKING:
    from freezeflow.graph.model import Model
    from freezeflow.graph.original import Original
    from freezeflow.proof.calls import Wanted
    from freezeflow.proof.images import Pictures
    from freezeflow.stages.export import Params as ExportParams
    from freezeflow.tf.validate import Trial

# Original and result, and a little of what the calls take, for each byte of weights; besides, what a
# process of TensorFlow takes. The served level has one of its own, which shares no code's memory.
_MEMORY_FACTOR = 2.2
_MEMORY_BASE = {"exact": 300_000_000, "served": 700_000_000}

# Seeded calls of each signature where the recipe says nothing.
_USUAL_SAMPLES = 4

_USUAL_TOLERANCE = 1e-5


@dataclass(frozen=True, kw_only=True)
class Images:
    """How pictures become inputs."""

    folder: InputTree = param("The folder with the pictures; folders in it count, too.")
    input: str | None = param(
        "The input that takes them; by default the only one of four dimensions.", default=None
    )
    size: tuple[int, int] | None = param(
        "Height and width; by default what the signature says.", default=None
    )
    resize: Literal["nearest", "bilinear", "bicubic", "area", "lanczos"] = param(
        "How they are resized.", default="bilinear"
    )
    scale: float = param("What each value from 0 to 255 is multiplied by.", default=1.0)
    mean: tuple[float, ...] = param(
        "What is subtracted then: one number, or one for each channel.", default=(0.0,)
    )
    std: tuple[float, ...] = param("What it is divided by then, the same.", default=(1.0,))
    layout: Literal["NHWC", "NCHW"] = param("Where the input has its channels.", default="NHWC")
    channels: int | None = param(
        "1 (grey), 3 (colour) or 4 (with transparency); by default what the signature says, else 3.",
        default=None,
    )
    batch: int = param("Pictures of one call.", default=8, minimum=1)


@dataclass(frozen=True, kw_only=True)
class Params(Inputs):
    """How to validate."""

    level: Literal["exact", "served"] = param(
        "`exact`: both in one process, one thread, without Grappler and oneDNN, equal to the byte. "
        "`served`: as TensorFlow runs by default, within the tolerance.",
        default="exact",
        shorthand=True,
    )
    runtime: (
        Literal[
            "tensorflow",
            "tf2_loader",
            "tf1_loader",
            "onnxruntime",
            "litert",
            "openvino",
            "tfjs",
            "tfjs_browser",
            "xla",
            "xla_aot",
        ]
        | None
    ) = param(
        "Another runtime: it runs the file that an export among `needs` (by default the step before) has"
        " published, and its answers are compared with the original's, within a tolerance.",
        default=None,
    )
    images: Images | None = param("Pictures for one of the inputs.", default=None)
    warmup: bool = param(
        "Make the warm-up requests that a SavedModel brings for TensorFlow Serving, if it does.",
        default=True,
    )
    edges: bool = param(
        "Add calls at the edges: zeros, ones, extremes, NaN, infinities, -0.0, denormals; batches of"
        " 0, 1, 2 and 3; each further unknown dimension at two sizes; empty and odd strings.",
        default=False,
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
        "How many calls with seeded inputs; by default 4, and none where `inputs` or `images` cover a"
        " signature.",
        default=None,
        minimum=1,
    )
    sizes: tuple[int, ...] = param(
        "Sizes that unknown dimensions get, taken in turn call by call.", default=(2, 3, 1)
    )
    atol: float | None = param(
        "Absolute tolerance of level `served`, by default 1e-5, and of another runtime, by default what"
        " the file's precision allows.",
        default=None,
        minimum=0,
    )
    rtol: float | None = param("Relative tolerance, the same.", default=None, minimum=0)
    call_seconds: float = param(
        "A call that takes longer is given up, on either side; it counts as no answer.",
        default=300.0,
        minimum=0.001,
    )


def run(stage_input: StageInput, params: Params, context: Context) -> Outcome:
    """Runs original and result, and hands on the model if they agree.

    Raises:
        ModelRefused: One of them would run ops that are not known to be harmless.
        StageFailed: The inputs do not fit, or the original answers none of them.
        ValidationFailed: The result differs from the original.
    """
    from freezeflow.proof.judge import ends_that_differ
    from freezeflow.sources.original import original_of
    from freezeflow.tf.apart import right_process, validate_apart
    from freezeflow.tf.validate import validate

    model = stage_input.model
    if model is None:
        raise StageFailed("validate has no model to check", hint="Put `load` before it.")
    _check_memory(model, params.level, context)
    if params.runtime is not None:
        return _in_runtime(stage_input, params, context)
    original = original_of(stage_input.source, context)
    _check_may_run(original, model, params)
    for name, problem in ends_that_differ(original.signatures, model.signatures, model.bound):
        raise ValidationFailed(problem, where=name)
    trial = _trial(params, stage_input.source, context.base)
    run_here = right_process(exact=trial.measure.exact)
    verdict = (validate if run_here else validate_apart)(original, model, trial, context.scratch)
    verdict["allowed_ops"] = {op: params.allow_ops[op] for op in sorted(params.allow_ops)}
    _report(verdict, context)
    if not verdict["equal"]:
        _leave_evidence(verdict, context)
        raise _difference(verdict, model)
    verdict["inputs"] = str(context.keep(context.scratch / INPUTS_FILE))
    return Outcome(model=model, facts={"verdict": verdict})


def _in_runtime(given: StageInput, params: Params, context: Context) -> Outcome:
    """Compares a file that an export has published with the original, as another runtime answers it."""
    from freezeflow.exports.again import published_subjects
    from freezeflow.exports.check import Trial as FileTrial
    from freezeflow.exports.check import checked
    from freezeflow.sources.original import original_of

    assert given.model is not None
    assert params.runtime is not None
    chosen, runtime = runtime_named(params.runtime)
    subjects = published_subjects({file.path: file.sha256 for file in given.files}, chosen.name)
    trial = FileTrial(
        wanted=_wanted(params, given.source, context.base),
        atol=params.atol,
        rtol=params.rtol,
        allow_ops=params.allow_ops,
        labels=params.labels,
        scores=params.scores,
    )
    verdicts = checked(
        subjects, [runtime], trial, lambda: original_of(given.source, context), context
    )
    return Outcome(model=given.model, facts={"runtime_verdicts": verdicts})


def _check_memory(model: Model, level: str, context: Context) -> None:
    """Says how much memory it will take, before any of it is taken."""
    weights = sum({t.digest: t.nbytes for t in model_tensors(model)}.values())
    needed = int(weights * _MEMORY_FACTOR) + _MEMORY_BASE[level]
    free = available_bytes()
    context.log(f"needs about {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free")
    if free and needed > free:
        raise StageFailed(
            f"validate would need about {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free",
            hint=f"The original and the result, {weights / 1e9:.1f} GB of weights, are in memory at"
            " once. Run it on a larger machine, end what else takes memory, or validate a model with"
            " smaller weights.",
        )


def _leave_evidence(verdict: dict[str, Json], context: Context) -> None:
    """Puts aside what it takes to look into a difference, and to see it again."""
    folder = context.scratch / EVIDENCE
    remove_tree(folder)
    folder.mkdir()
    (context.scratch / INPUTS_FILE).rename(folder / INPUTS_FILE)
    verdict["inputs"] = str(hash_file(folder / INPUTS_FILE))
    if (context.scratch / SUBGRAPH_FOLDER).is_dir():
        (context.scratch / SUBGRAPH_FOLDER).rename(folder / SUBGRAPH_FOLDER)
    (folder / VERDICT_FILE).write_text(json.dumps(verdict, indent=1))


def _check_may_run(original: Original, model: Model, params: Params) -> None:
    if model.variables:
        raise StageFailed(
            "the model still has variables",
            hint="Put `freeze` before `validate`; variables that it keeps (written: keep) change from"
            " call to call, so there is nothing to compare with",
        )
    check_runs(original.graph, params.allow_ops, original.mapped)
    check_runs(model.graph, params.allow_ops)


def _trial(params: Params, source: ModelSource, base: Path) -> Trial:
    from freezeflow.proof.compare import Tolerance
    from freezeflow.proof.judge import Measure
    from freezeflow.tf.validate import Trial

    atol = _USUAL_TOLERANCE if params.atol is None else params.atol
    rtol = _USUAL_TOLERANCE if params.rtol is None else params.rtol
    return Trial(
        measure=Measure(params.level == "exact", Tolerance(atol, rtol)),
        wanted=_wanted(params, source, base),
        labels=params.labels,
        scores=params.scores,
    )


def _wanted(params: Params, source: ModelSource, base: Path) -> Wanted:
    """The calls to make."""
    return dataclasses.replace(
        wanted_of(params, base),
        samples=params.samples,
        usual=_USUAL_SAMPLES,
        sizes=params.sizes,
        pictures=None if params.images is None else _pictures(params.images, base),
        warmup=_warmup(source) if params.warmup else None,
        edges=params.edges,
        seconds=params.call_seconds,
    )


def _pictures(images: Images, base: Path) -> Pictures:
    from freezeflow.proof.images import Pictures

    return Pictures(
        folder=base / images.folder,
        key=images.input,
        size=images.size,
        resize=images.resize,
        scale=images.scale,
        mean=images.mean,
        std=images.std,
        layout=images.layout,
        channels=images.channels,
        batch=images.batch,
    )


def _warmup(source: ModelSource) -> Path | None:
    """The source's own warm-up requests, if it brings some."""
    path = source.path / WARMUP_REQUESTS
    return path if source.kind == "saved_model" and path.is_file() else None


def _report(verdict: dict[str, Json], context: Context) -> None:
    record = verdict["settings"]["confinement"] or {}
    free = [what for what in ("writes", "network") if record.get(what) == "not confined"]
    if free:
        context.warn(
            f"not confined by this system: {' and '.join(free)}; that only ops run which are known to be"
            " harmless holds here, too"
        )
    for name, found in verdict["signatures"].items():
        word = "equal" if found["equal"] else "different"
        context.log(
            f"{name}: {word} in {found['calls']} calls ({found['refused']} refused by both)"
        )
        for key, words in verdict["assumed"].get(name, {}).items():
            context.log(f"{name}: input {key} is taken to be: {words}")
        random = [key for key, output in found["outputs"].items() if output["random"]]
        if random:
            context.warn(
                f"{name}: random in the original itself, only dtype and shape were compared: "
                + ", ".join(random)
            )
        nothing = [key for key, output in found["outputs"].items() if not output["compared"]]
        if nothing:
            context.warn(
                f"{name}: empty or NaN in every call, which proves nothing (`random` or `inputs` can ask"
                f" for others): {', '.join(nothing)}"
            )


def _difference(verdict: dict[str, Json], model: Model) -> ValidationFailed:
    """The error that tells of the worst difference."""
    from freezeflow.proof.judge import figures, severity

    for name, found in verdict["signatures"].items():
        if found["disagreements"]:
            hints = [_begins(verdict["divergence"]), _dropped(model)]
            hint = "\n  ".join(filter(None, hints))
            return ValidationFailed(found["disagreements"][0], where=name, hint=hint)
    _, name, key = max(
        (severity(output), name, key)
        for name, found in verdict["signatures"].items()
        for key, output in found["outputs"].items()
        if not output["equal"]
    )
    output = verdict["signatures"][name]["outputs"][key]
    claim = "equal to the byte" if verdict["level"] == "exact" else "within the tolerance"
    hint = (
        "The model was not exported. `validate: {level: served, atol: ..., rtol: ...}` states "
        "another tolerance."
    )
    hints = [_begins(verdict["divergence"]), _dropped(model)]
    if not hints[1] and verdict["level"] == "exact":
        hints.append(hint)
    return ValidationFailed(
        f"output {key!r} is not {claim}: {figures(output)} ({output['call']})",
        where=name,
        hint="\n  ".join(filter(None, hints)),
    )


def _begins(divergence: dict[str, Json] | None) -> str:
    """Where the difference begins, in a line."""
    if divergence is None:
        return ""
    if "reason" in divergence:
        return f"Where it begins was not found: {divergence['reason']}."
    inside = f" (inside: {divergence['inside']})" if divergence["inside"] else ""
    more = len(divergence["others"])
    others = f" {more} more differences do not come from it." if more else ""
    return (
        f"It begins at {divergence['node']} ({divergence['op']}), which {divergence['says']}{inside}."
        f"{others}"
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


def _runtime_problems(params: Params) -> list[tuple[str, str]]:
    if params.runtime is None:
        return []
    chosen, runtime = runtime_named(params.runtime)
    lacks = chosen.missing_of(runtime.tools) or runtime.missing()
    return [("runtime", lacks)] if lacks else []


def _following(params: Params, before: Sequence[tuple[str, ExportParams]]) -> list[tuple[str, str]]:
    """A runtime needs a file to run."""
    if params.runtime is None:
        return []
    wanted = RUNTIMES[params.runtime]
    if any(stage == "export" and found.format == wanted for stage, found in before):
        return []
    what = f"{params.runtime} runs what `export: {{format: {wanted}}}` writes"
    return [("runtime", f"{what}: put this behind one, or name it in `needs`")]


def _demands(params: Params) -> Demands:
    """What it takes: with another runtime its packages, and the file that an export has published."""
    if params.runtime is None:
        return Demands(in_tensorflow=True)
    _, runtime = runtime_named(params.runtime)
    return Demands(
        in_tensorflow=True,
        tools=runtime.tools,
        versions=runtime.versions,
        confines_itself=True,
        reads_files=True,
    )


def _problems(params: Params) -> list[tuple[str, str]]:
    found = _runtime_problems(params)
    if params.labels is not None and params.inputs is None:
        found.append(("labels", "labels come from the file that `inputs` names, and there is none"))
    if params.images is not None:
        found += _image_problems(params.images)
    if params.scores is not None and params.labels is None:
        found.append(("scores", "`scores` says what `labels` belong to, and there are none"))
    if not params.sizes or min(params.sizes) < 0:
        found.append(("sizes", "at least one size is needed, none below 0"))
    return [*found, *input_problems(params)]


def _image_problems(images: Images) -> list[tuple[str, str]]:
    found = []
    if images.size is not None and min(images.size) < 1:
        found.append(("images", "`size` is a height and a width of at least 1"))
    if images.channels not in (None, 1, 3, 4):
        found.append(("images", "`channels` is 1, 3 or 4"))
    if not all(images.std):
        found.append(("images", "`std` divides, so it cannot be 0"))
    if not {len(images.mean), len(images.std)} <= {1, images.channels or 3}:
        found.append(("images", "`mean` and `std` have one number, or one for each channel"))
    return found


STAGE = Stage(
    name="validate",
    summary="Runs original and result on the same inputs and compares every output.",
    version=6,
    params=Params,
    run=run,
    role="check",
    in_tensorflow=True,
    reads_source=True,
    tools=("tensorflow", "numpy"),
    demands=_demands,
    problems=_problems,
    following=_following,
)
