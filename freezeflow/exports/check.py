"""Whether an exported file, in its own runtime, answers as the original does.

The original, the runtime, and the comparison are three processes: the first two confined, and
neither sees more of the other than files with arrays.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from freezeflow.context import Context
from freezeflow.errors import ModelRefused, RuntimeRefused, ValidationFailed
from freezeflow.graph.original import Original
from freezeflow.params import param
from freezeflow.proof.figure import figure
from freezeflow.proof.wishes import Inputs, input_problems, wanted_of
from freezeflow.runtimes.runtime import FLOAT16, Precision, Runtime, Subject
from freezeflow.values import Json

if TYPE_CHECKING:
    from freezeflow.proof.calls import Wanted
    from freezeflow.proof.compare import Tolerance
    from freezeflow.proof.saved_calls import Array
    from freezeflow.tf.reference import Inquiry, Places

FORMAT = "freezeflow.runtime-verdict/1"

# What a message tells of an output that is not right, where it is not zero.
_SHOWN = (
    "max_abs",
    "max_rel",
    "bad_share",
    "nan_differ",
    "inf_differ",
    "atol_needed",
    "rtol_needed",
    "sway",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check(Inputs):
    """How an exported file is compared with the original."""

    samples: int = param("How many calls with seeded inputs.", default=4, minimum=0)
    sizes: tuple[int, ...] = param(
        "Sizes that unknown dimensions get, taken in turn call by call.", default=(2, 3, 1)
    )
    atol: float | None = param(
        "Absolute tolerance; by default what the format's precision allows.",
        default=None,
        minimum=0,
    )
    rtol: float | None = param(
        "Relative tolerance; by default what the format's precision allows.",
        default=None,
        minimum=0,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checked:
    """The parameter of formats that have a runtime."""

    check: bool | Check = param(
        "Compare the file, in its own runtime, with the original before it is published; a mapping"
        " says how.",
        default=True,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckedOnRequest:
    """The parameter of TensorFlow's own formats, which are written without TensorFlow."""

    check: bool | Check = param(
        "Load the file in TensorFlow and compare every signature with the original before it is"
        " published; a mapping says how. The export then takes TensorFlow.",
        default=False,
    )


def check_problems(params: Checked | CheckedOnRequest) -> list[tuple[str, str]]:
    """Mistakes in how a check is to be done."""
    check = params.check
    if isinstance(check, bool):
        return []
    found = []
    if check.inputs is None and check.samples == 0:
        found.append(("check", "with no samples and no inputs there is nothing to compare"))
    if not check.sizes or min(check.sizes) < 0:
        found.append(("check", "at least one size is needed, none below 0"))
    return found + [("check", message) for _, message in input_problems(check)]


class Trial(NamedTuple):
    """How a file is put to the test.

    Args:
        wanted: Which calls are made.
        atol: Absolute tolerance; None for what the format's precision allows.
        rtol: Relative tolerance, the same.
        allow_ops: Ops of the original that may run although they are not known to be harmless.
        labels: Name of an input file's array with the right classes.
        scores: Output that the labels belong to; None for the only one that fits.
    """

    wanted: Wanted
    atol: float | None
    rtol: float | None
    allow_ops: Mapping[str, str]
    labels: str | None = None
    scores: str | None = None


def trial_of(check: bool | Check, base: Path) -> Trial:
    """The trial that a format's parameter asks for.

    Args:
        check: The parameter.
        base: The folder that relative paths start from.
    """
    wish = check if isinstance(check, Check) else Check()
    wanted = dataclasses.replace(wanted_of(wish, base), samples=wish.samples, sizes=wish.sizes)
    return Trial(wanted, wish.atol, wish.rtol, wish.allow_ops)


def checked(
    subjects: Sequence[Subject],
    runtimes: Sequence[Runtime],
    trial: Trial,
    original: Callable[[], Original],
    context: Context,
) -> list[dict[str, Json]]:
    """The verdicts on a file that passed, runtime by runtime and signature by signature.

    A verdict tells ``runtime``, ``precision``, ``signature``, ``calls``, and by output the metrics.

    Args:
        subjects: The file, once for each signature that it has.
        runtimes: What runs it; all of them exact, or none.
        trial: Calls and tolerance.
        original: Reads the original.
        context: What the step may use of the house.

    Raises:
        ValidationFailed: The runtime refuses the file or a call, or answers otherwise.
        StageFailed: The inputs do not fit, or the original answers none of them.
        ModelRefused: The original would run ops that are not known to be harmless, or draws random
            numbers from a seed, as the runtime does not.
    """
    from freezeflow.tf.reference import Inquiry, Places, answer_original

    folder = Path(tempfile.mkdtemp(prefix="check-", dir=context.scratch))
    places: dict[str, Places] = {}
    for number, subject in enumerate(subjects):
        own = folder / str(number)
        own.mkdir()
        places[subject.signature_name] = Places.within(own)
    inquiry = Inquiry(
        signatures={subject.signature_name: subject.signature for subject in subjects},
        bound=subjects[0].bound,
        wanted=trial.wanted,
        allow_ops=trial.allow_ops,
        exact=runtimes[0].exact,
    )
    asked = context.confined(answer_original, original, inquiry, places)

    def sways(name: str) -> list[dict[str, Array]]:
        return _sways(name, places[name], original, inquiry, context)

    return [
        _verdict(subject, runtime, trial, asked[name], places[name], sways, context)
        for runtime in runtimes
        for name, subject in zip(places, subjects, strict=True)
    ]


def _verdict(
    subject: Subject,
    runtime: Runtime,
    trial: Trial,
    asked: Json,
    places: Places,
    sways: Callable[[str], list[dict[str, Array]]],
    context: Context,
) -> dict[str, Json]:
    """The verdict of a runtime on one signature.

    Where answers are not within what the precision allows, the original is asked how much it makes of a
    change of its inputs in the last place, element by element, and so much is allowed there, but no more
    than half precision is: to ask it each time would take several times as long.
    """
    from freezeflow.proof.compare import to_json
    from freezeflow.proof.saved_calls import load_calls

    found = places.calls.with_name(f"found_{runtime.name}")
    try:
        told = context.confined(runtime.answer, subject, places.calls, found)
    except RuntimeRefused as error:
        error.hint = error.hint or _hint_of_refusal(subject, trial)
        raise
    answers = [load_calls(path) for path in (places.first, places.second, found)]
    outputs = _judged(subject, runtime, trial, answers, asked["origins"])
    if _bad(outputs) and trial.atol is None and trial.rtol is None:
        moved = sways(subject.signature_name)
        outputs = _judged(subject, runtime, trial, answers, asked["origins"], moved)
    if bad := _bad(outputs):
        raise _different(subject, runtime, bad)
    verdict: dict[str, Json] = {
        "format": FORMAT,
        "runtime": runtime.described(),
        "precision": subject.precision.name,
        "signature": subject.signature_name,
        "calls": len(asked["origins"]),
        "refused": asked["refused"],
        "kinds": dict(Counter(asked["kinds"])),
        "outputs": {key: to_json(output) for key, output in outputs.items()},
        **told,
    }
    if trial.labels is not None:
        verdict["accuracy"] = _accuracy(subject, trial, asked, places, answers)
    context.log(
        f"{runtime.name}: {subject.signature_name} is within the tolerance in"
        f" {verdict['calls']} calls"
    )
    return verdict


def _hint_of_refusal(subject: Subject, trial: Trial) -> str:
    """What helps where a runtime does not load a file or answer a call."""
    inputs = subject.signature.inputs
    keys = [key for key, spec in inputs.items() if spec.shape is None or None in spec.shape]
    if not keys:
        return "`fold` before the export, or a signature without it, may leave out what it does not take."
    sizes = ", ".join(map(str, trial.wanted.sizes))
    return (
        f"Shapes are open ({', '.join(keys)}) and got the sizes {sizes} in turn: `check: {{sizes: [...]}}`"
        " states such as the model is for, `batch: N` and `shapes` fix them."
    )


def _accuracy(
    subject: Subject, trial: Trial, asked: Json, places: Places, answers: Sequence[Any]
) -> Json:
    """How often original and runtime are right, by the labels of an input file."""
    from freezeflow.proof.calls import Call
    from freezeflow.proof.judge import Answers, accuracies
    from freezeflow.proof.saved_calls import load_calls

    assert trial.labels is not None
    beside = [{} if isinstance(call, str) else call for call in load_calls(places.beside)]
    calls = [
        Call(subject.signature_name, {}, *each)
        for each in zip(asked["kinds"], asked["origins"], beside, strict=True)
    ]
    return accuracies(subject.signature_name, calls, Answers(*answers), trial.labels, trial.scores)


def _sways(
    name: str,
    places: Places,
    original: Callable[[], Original],
    inquiry: Inquiry,
    context: Context,
) -> list[dict[str, Array]]:
    """How far the original's answers to each call move with the last place of the inputs, by output."""
    from freezeflow.proof.saved_calls import load_calls
    from freezeflow.proof.sway import NUDGES, sway
    from freezeflow.tf.reference import answer_nudged

    to = places.calls.with_name("nudged")
    context.confined(answer_nudged, original, inquiry, name, places.calls, to)
    first, others = load_calls(places.first), load_calls(to)
    return [
        sway(answer, others[number * NUDGES : (number + 1) * NUDGES])
        for number, answer in enumerate(first)
        if not isinstance(answer, str)
    ]


def _judged(
    subject: Subject,
    runtime: Runtime,
    trial: Trial,
    answers: Sequence[Sequence[Mapping[str, Array] | str]],
    origins: Sequence[str],
    sways: Sequence[Mapping[str, Array]] = (),
) -> dict[str, dict[str, Json]]:
    """The worst metrics of each output over all calls."""
    from freezeflow.proof.sway import leeway

    outputs: dict[str, dict[str, Json]] = {}
    sides = zip(*answers, origins, sways or [{}] * len(origins), strict=True)
    for first, second, found, origin, moved in sides:
        assert not isinstance(first, str)
        assert not isinstance(found, str)
        again = first if isinstance(second, str) else second
        for key, value in first.items():
            tolerance = _tolerance(value, subject.precision, trial)
            spare = leeway(moved[key], FLOAT16.atol * _size_of(value)) if key in moved else None
            judged = _compared(key, value, again[key], found, runtime, tolerance, spare)
            if key in moved:
                judged["sway"] = float(moved[key].max(initial=0.0))
            if not judged["within"]:
                judged["call"] = origin
            outputs[key] = _merged(outputs[key], judged) if key in outputs else judged
    return outputs


def _bad(outputs: Mapping[str, dict[str, Json]]) -> dict[str, dict[str, Json]]:
    return {key: output for key, output in outputs.items() if not output["within"]}


def _tolerance(original: Array, precision: Precision, trial: Trial) -> Tolerance:
    """What is allowed: the recipe's wish, else what the precision allows for numbers of that size."""
    from freezeflow.proof.compare import Tolerance

    return Tolerance(
        precision.atol * _size_of(original) if trial.atol is None else trial.atol,
        precision.rtol if trial.rtol is None else trial.rtol,
    )


def _size_of(original: Array) -> float:
    """The largest number of an output that is finite, and at least 1."""
    import numpy as np

    if original.dtype.kind not in "fcV" or not original.size:
        return 1.0
    sizes = np.abs(original.astype(np.complex128 if original.dtype.kind == "c" else np.float64))
    return max(1.0, float(np.max(sizes, initial=0.0, where=np.isfinite(sizes))))


def _compared(
    key: str,
    original: Array,
    again: Array,
    found: Mapping[str, Array],
    runtime: Runtime,
    tolerance: Tolerance,
    spare: Array | None,
) -> dict[str, Json]:
    from freezeflow.proof.compare import compare

    if key not in found:
        return {"within": False, "random": False, "problem": "the runtime does not give it"}
    result = found[key]
    if runtime.narrowed.get(original.dtype.name) == result.dtype.name:
        result = result.astype(original.dtype)
    if not compare(original, again, tolerance).within:
        same = original.dtype == result.dtype and original.ndim == result.ndim
        return {"within": same, "random": True}
    comparison = compare(original, result, tolerance, spare)
    allowed = {"atol": tolerance.atol, "rtol": tolerance.rtol}
    return {"within": comparison.within, "random": False, **comparison.metrics, **allowed}


def _merged(one: dict[str, Json], other: dict[str, Json]) -> dict[str, Json]:
    from freezeflow.proof.compare import worse

    figures = [{k: v for k, v in side.items() if k != "call"} for side in (one, other)]
    call = one.get("call") or other.get("call")
    return {
        **worse(*figures),
        "within": one["within"] and other["within"],
        "random": one["random"] or other["random"],
        **({"call": call} if call else {}),
    }


def _different(
    subject: Subject, runtime: Runtime, bad: Mapping[str, Mapping[str, Json]]
) -> ValidationFailed | ModelRefused:
    """What is wrong: of several outputs the worst of those that should be the same, else of random ones."""

    def is_random(key: str) -> bool:
        return key in subject.random and "problem" not in bad[key]

    key = max(bad, key=lambda key: (not is_random(key), float(bad[key].get("bad_share") or 0), key))
    output = bad[key]
    shown = [f"{name} {figure(name, output[name])}" for name in _SHOWN if output.get(name)]
    differs = f"output {key!r} in {runtime.described()} is not what the original gives"
    told = f"{output.get('problem') or ', '.join(shown)} ({output['call']})"
    if is_random(key):
        return ModelRefused(
            f"{differs}: it depends on {subject.random[key]}, which draws from a seed, and other numbers"
            f" there: {told}",
            where=subject.signature_name,
            hint="Without a seed it is random on both sides, and the check lets it pass; `check: false`"
            " exports it as it is.",
        )
    needed = max(float(each.get("atol_needed", math.inf)) for each in bad.values())
    enough = f"`atol: {_rounded_up(needed)}` would let it pass. " if math.isfinite(needed) else ""
    return ValidationFailed(
        f"{differs}: {told}",
        where=subject.signature_name,
        hint=f"{enough}`atol` and `rtol` state another tolerance, `random` what the inputs look like; for"
        " an export they stand in its `check`.",
    )


def _rounded_up(number: float) -> str:
    """A number in two digits that is not below it, and is no less with what rounding adds."""
    if number == 0:
        return "0"
    place = 10.0 ** (math.floor(math.log10(number)) - 1)
    return f"{(math.floor(number / place) + 1) * place:.1e}"
