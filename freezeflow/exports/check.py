"""Whether an exported file, in its own runtime, answers as the original does.

The original, the runtime, and the comparison are three processes: the first two confined, and
neither sees more of the other than files with arrays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from freezeflow.context import Context
from freezeflow.errors import ValidationFailed
from freezeflow.graph.original import Original
from freezeflow.params import InputTree, param
from freezeflow.proof.wishes import Random
from freezeflow.runtimes.runtime import Names, Precision, Runtime
from freezeflow.values import Json, Signature

if TYPE_CHECKING:
    from freezeflow.proof.calls import Wanted
    from freezeflow.proof.compare import Tolerance
    from freezeflow.proof.saved_calls import Array

FORMAT = "freezeflow.runtime-verdict/1"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """How an exported file is compared with the original."""

    inputs: InputTree | None = param(
        "A file with inputs, as `validate` takes them: .npz with an array for each key, and so on.",
        default=None,
    )
    samples: int = param("How many calls with seeded inputs.", default=4, minimum=0)
    seed: int = param("Seed of the inputs.", default=0, minimum=0)
    sizes: tuple[int, ...] = param(
        "Sizes that unknown dimensions get, taken in turn call by call.", default=(2, 3, 1)
    )
    random: Mapping[str, Random] = param(
        "Input key to what its seeded values look like.", default_factory=dict
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
    allow_ops: Mapping[str, str] = param(
        "Ops of the original that may run although they are not known to be harmless, each with the"
        " reason.",
        default_factory=dict,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checked:
    """The parameter of formats that have a runtime."""

    check: bool | Check = param(
        "Compare the file, in its own runtime, with the original before it is published; a mapping"
        " says how.",
        default=True,
    )


def check_problems(params: Checked) -> list[tuple[str, str]]:
    """Mistakes in how a check is to be done."""
    check = params.check
    if isinstance(check, bool):
        return []
    found = []
    if check.inputs is None and check.samples == 0:
        found.append(("check", "with no samples and no inputs there is nothing to compare"))
    if not check.sizes or min(check.sizes) < 0:
        found.append(("check", "at least one size is needed, none below 0"))
    found += [
        ("check", f"say why {op} may run") for op, why in check.allow_ops.items() if not why.strip()
    ]
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """What is checked.

    Args:
        file: The main file of what was exported.
        names: Its inputs and outputs.
        signature_name: The signature that it answers.
        signature: The same, with the shapes that the file takes.
        bound: Inputs that were bound, which the original gets beside the others.
        precision: Of the file's numbers.
    """

    file: Path
    names: Names
    signature_name: str
    signature: Signature
    bound: Mapping[str, bool | int | float | str]
    precision: Precision


def checked(
    subject: Subject,
    runtime: Runtime,
    check: Check,
    original: Callable[[], Original],
    context: Context,
) -> dict[str, Json]:
    """The verdict on a file that passed: ``runtime``, ``precision``, ``calls``, and by output the metrics.

    Raises:
        ValidationFailed: The runtime refuses the file or a call, or answers otherwise.
        StageFailed: The inputs do not fit, or the original answers none of them.
        ModelRefused: The original would run ops that are not known to be harmless.
    """
    from freezeflow.proof.saved_calls import load_calls
    from freezeflow.tf.reference import Inquiry, answer_original

    folder = context.scratch / "check"
    folder.mkdir()
    calls, first, second, found = (folder / name for name in ("calls", "first", "second", "found"))
    inquiry = Inquiry(
        signature_name=subject.signature_name,
        signature=subject.signature,
        bound=subject.bound,
        wanted=_wanted(check, context.base),
        allow_ops=check.allow_ops,
    )
    context.confined(answer_original, original, inquiry, calls, (first, second))
    context.confined(runtime.answer, subject.file, subject.names, calls, found)
    answers = [load_calls(path) for path in (first, second, found)]
    verdict = _judged(subject, runtime, check, answers)
    context.log(f"{runtime.name}: within the tolerance in {verdict['calls']} calls")
    return {"format": FORMAT, "runtime": runtime.described(), **verdict}


def _wanted(check: Check, base: Path) -> Wanted:
    from freezeflow.proof.calls import Wanted
    from freezeflow.proof.seeded import Wish

    return Wanted(
        samples=check.samples,
        seed=check.seed,
        sizes=check.sizes,
        wishes={
            key: Wish(wish.shape, wish.low, wish.high, (*wish.values, *wish.vocabulary))
            for key, wish in check.random.items()
        },
        files=None if check.inputs is None else Path(base, check.inputs),
    )


def _judged(
    subject: Subject,
    runtime: Runtime,
    check: Check,
    answers: Sequence[Sequence[Mapping[str, Array] | str]],
) -> dict[str, Json]:
    from freezeflow.proof.compare import to_json

    outputs: dict[str, dict[str, Json]] = {}
    refused = 0
    for first, second, found in zip(*answers, strict=True):
        if isinstance(first, str):
            refused += 1
            continue
        again = first if isinstance(second, str) else second
        assert not isinstance(found, str)
        for key, value in first.items():
            tolerance = _tolerance(value, subject.precision, check)
            judged = _compared(key, value, again[key], found, runtime, tolerance)
            outputs[key] = _merged(outputs[key], judged) if key in outputs else judged
    bad = {key: output for key, output in outputs.items() if not output["within"]}
    if bad:
        raise _different(subject, runtime, bad)
    return {
        "precision": subject.precision.name,
        "signature": subject.signature_name,
        "calls": len(answers[0]),
        "refused": refused,
        "outputs": {key: to_json(output) for key, output in outputs.items()},
    }


def _tolerance(original: Array, precision: Precision, check: Check) -> Tolerance:
    """What is allowed: the recipe's wish, else what the precision allows for numbers of that size."""
    import numpy as np

    from freezeflow.proof.compare import Tolerance

    largest = 1.0
    if original.dtype.kind in "fcV" and original.size:
        sizes = np.abs(original.astype(np.complex128 if original.dtype.kind == "c" else np.float64))
        largest = max(1.0, float(np.max(sizes, initial=0.0, where=np.isfinite(sizes))))
    return Tolerance(
        precision.atol * largest if check.atol is None else check.atol,
        precision.rtol if check.rtol is None else check.rtol,
    )


def _compared(
    key: str,
    original: Array,
    again: Array,
    found: Mapping[str, Array],
    runtime: Runtime,
    tolerance: Tolerance,
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
    comparison = compare(original, result, tolerance)
    allowed = {"atol": tolerance.atol, "rtol": tolerance.rtol}
    return {"within": comparison.within, "random": False, **comparison.metrics, **allowed}


def _merged(one: dict[str, Json], other: dict[str, Json]) -> dict[str, Json]:
    from freezeflow.proof.compare import worse

    return {
        **worse(one, other),
        "within": one["within"] and other["within"],
        "random": one["random"] or other["random"],
    }


def _different(
    subject: Subject, runtime: Runtime, bad: Mapping[str, Mapping[str, Json]]
) -> ValidationFailed:
    key, output = max(bad.items(), key=lambda item: (float(item[1].get("bad_share") or 0), item[0]))
    shown = [
        f"{name} {output[name]:.3g}"
        for name in ("max_abs", "max_rel", "bad_share", "atol_needed", "rtol_needed")
        if isinstance(output.get(name), float)
    ]
    return ValidationFailed(
        f"output {key!r} in {runtime.described()} is not what the original gives:"
        f" {output.get('problem') or ', '.join(shown)}",
        where=subject.signature_name,
        hint="Nothing was published. `check: {atol: ..., rtol: ...}` states another tolerance, and"
        " `check: {random: ...}` what the inputs look like.",
    )
