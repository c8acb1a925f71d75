"""Runs original and result on the same inputs and says whether the result means the same.

The original runs twice, each time in a fresh session: an output that differs from itself is random
and can only be compared by dtype and shape. Then the result runs the same calls in the same order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from freezeflow.errors import StageFailed
from freezeflow.graph.model import Model
from freezeflow.graph.original import Original
from freezeflow.proof.compare import Comparison, Tolerance, accuracy, compare, to_json, worse
from freezeflow.tf.inputs import Array, Wish, inputs_from, read_arrays, seeded_inputs
from freezeflow.tf.sessions import exact_config, served_config, settings
from freezeflow.tf.sides import Arrays, Refusal, original_side, result_side
from freezeflow.values import Json, Signature

VERDICT_FORMAT = "freezeflow.verdict/1"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """How a model is put to the test.

    Args:
        exact: Level A (one thread, no Grappler, equal to the byte); else level B, as served.
        tolerance: What level B lets pass.
        samples: Number of seeded calls of each signature that the file does not cover, and of the
            covered ones, too, where `samples_always` is set.
        samples_always: See `samples`.
        seed: Seed of the inputs.
        sizes: Sizes of unknown dimensions, taken in turn call by call.
        wishes: Input key to what is known about it.
        file: An ``.npz`` file with inputs by key.
        labels: Name of the file's array with the right classes.
        scores: Output that the labels belong to; None for the only one that fits.
    """

    exact: bool
    tolerance: Tolerance
    samples: int
    samples_always: bool
    seed: int
    sizes: tuple[int, ...]
    wishes: Mapping[str, Wish]
    file: Path | None
    labels: str | None
    scores: str | None


class Call(NamedTuple):
    """One call: which signature, with which inputs, from where."""

    signature: str
    inputs: Arrays
    from_file: bool


Answer = dict[str, Array] | Refusal


def validate(original: Original, model: Model, trial: Trial, scratch: Path) -> dict[str, Json]:
    """Compares a model with its original on every signature that the model has.

    Args:
        original: The original.
        model: The result, frozen.
        trial: Inputs and level.
        scratch: A folder for asset files.

    Returns:
        The verdict: ``format``, ``level``, ``equal`` (it passed), ``tolerance`` (null at the exact
        level), ``seed``, ``signatures`` (calls, refused calls, outputs with their metrics, accuracy),
        ``settings``.

    Raises:
        StageFailed: The inputs do not fit, or the original cannot be restored, or answers no call at
            all.
        UsageError: An input was bound that the original does not have.
    """
    arrays = {} if trial.file is None else read_arrays(trial.file)
    calls = _calls(model.signatures, trial, arrays)
    requests = [(call.signature, call.inputs) for call in calls]
    config = exact_config() if trial.exact else served_config()
    side = original_side(original, model.bound)
    first = side.call(requests, config)
    second = side.call(requests, config)
    _check_answered(calls, first)
    del side
    found = result_side(model, scratch).call(requests, config)
    signatures = {
        name: _signature_verdict(name, calls, (first, second, found), trial, arrays)
        for name in model.signatures
    }
    return {
        "format": VERDICT_FORMAT,
        "level": "exact" if trial.exact else "served",
        "equal": all(verdict["equal"] for verdict in signatures.values()),
        "tolerance": None if trial.exact else trial.tolerance._asdict(),
        "seed": trial.seed,
        "signatures": signatures,
        "settings": settings(exact=trial.exact),
    }


# ---------------------------------------------------------------- inputs


def _calls(
    signatures: Mapping[str, Signature], trial: Trial, arrays: Mapping[str, Array]
) -> list[Call]:
    unknown = set(trial.wishes) - {key for s in signatures.values() for key in s.inputs}
    if unknown:
        raise StageFailed(f"no signature has an input named {min(unknown)!r}")
    calls = []
    for name, signature in signatures.items():
        covered = bool(signature.inputs) and set(signature.inputs) <= set(arrays)
        if covered:
            inputs = inputs_from(arrays, signature, str(trial.file))
            calls.append(Call(name, inputs, True))
        for number in range(trial.samples if trial.samples_always or not covered else 0):
            size = trial.sizes[number % len(trial.sizes)]
            inputs = seeded_inputs(
                signature, trial.wishes, seed=trial.seed, number=number, size=size
            )
            calls.append(Call(name, inputs, False))
    if trial.file is not None and not any(call.from_file for call in calls):
        needed = "; ".join(f"{n}: {', '.join(s.inputs)}" for n, s in signatures.items())
        raise StageFailed(
            f"holds {', '.join(sorted(arrays)) or 'nothing'}, no signature's inputs",
            where=str(trial.file),
            hint=f"The inputs are: {needed}.",
        )
    return calls


def _check_answered(calls: Sequence[Call], answers: Sequence[Answer]) -> None:
    """Refuses to judge a signature that the original answers with errors alone."""
    answered = {c.signature for c, a in zip(calls, answers, strict=True) if isinstance(a, dict)}
    for call, answer in zip(calls, answers, strict=True):
        if call.signature not in answered and isinstance(answer, Refusal):
            raise StageFailed(
                f"the original refuses every input that was tried: {answer.message}",
                where=call.signature,
                hint="Say what its inputs look like (validate: {random: {KEY: {shape: ..., low: ..., "
                "high: ...}}}), or give a file with `inputs`.",
            )


# ---------------------------------------------------------------- judging


def _signature_verdict(
    name: str,
    calls: Sequence[Call],
    answers: tuple[list[Answer], list[Answer], list[Answer]],
    trial: Trial,
    arrays: Mapping[str, Array],
) -> dict[str, Json]:
    mine = [index for index, call in enumerate(calls) if call.signature == name]
    outputs: dict[str, dict[str, Json]] = {}
    refused, disagreements = 0, []
    for index in mine:
        first, second, found = (side[index] for side in answers)
        if isinstance(first, Refusal) or isinstance(found, Refusal):
            refused += 1
            if not (isinstance(first, Refusal) and isinstance(found, Refusal)):
                disagreements.append(_disagreement(first, found))
            continue
        again = first if isinstance(second, Refusal) else second
        for key, value in first.items():
            judged = _judge(value, again[key], found[key], trial)
            outputs[key] = _merge(outputs[key], judged) if key in outputs else judged
    verdict: dict[str, Json] = {
        "equal": not disagreements and all(o["equal"] for o in outputs.values()),
        "calls": len(mine),
        "refused": refused,
        "disagreements": disagreements,
        "outputs": {key: to_json(output) for key, output in outputs.items()},
    }
    if trial.labels is not None:
        verdict["accuracy"] = _accuracies(mine, calls, answers, trial, arrays)
    return verdict


def _disagreement(first: Answer, found: Answer) -> str:
    if isinstance(first, Refusal):
        return f"the original refuses an input that the result takes: {first.message}"
    assert isinstance(found, Refusal)
    return f"the result refuses an input that the original takes: {found.message}"


def _judge(original: Array, again: Array, result: Array, trial: Trial) -> dict[str, Json]:
    """One output of one call: ``equal`` (passed), ``random``, and the metrics."""
    tolerance = Tolerance(0.0, 0.0) if trial.exact else trial.tolerance
    if not _passes(compare(original, again, tolerance), trial):
        same_kind = original.dtype == result.dtype and original.ndim == result.ndim
        return {"equal": same_kind, "random": True}
    comparison = compare(original, result, tolerance)
    return {"equal": _passes(comparison, trial), "random": False, **comparison.metrics}


def _passes(comparison: Comparison, trial: Trial) -> bool:
    return comparison.equal if trial.exact else comparison.within


def _merge(one: dict[str, Json], other: dict[str, Json]) -> dict[str, Json]:
    merged = worse(one, other)
    merged["equal"] = one["equal"] and other["equal"]
    merged["random"] = one["random"] or other["random"]
    return merged


# ---------------------------------------------------------------- accuracy


def _accuracies(
    mine: Sequence[int],
    calls: Sequence[Call],
    answers: tuple[list[Answer], list[Answer], list[Answer]],
    trial: Trial,
    arrays: Mapping[str, Array],
) -> dict[str, Json] | None:
    """Accuracy of both sides on the file's labels; None where the file does not cover a signature."""
    labels = arrays.get(trial.labels or "")
    if labels is None:
        raise StageFailed(f"holds no array named {trial.labels!r}", where=str(trial.file))
    index = next((index for index in mine if calls[index].from_file), None)
    if index is None:
        return None
    first, _, found = (side[index] for side in answers)
    if isinstance(first, Refusal) or isinstance(found, Refusal):
        return None
    key = trial.scores or _scores(first, labels)
    if key not in first:
        raise StageFailed(f"no output is named {key!r}", hint=f"There are: {', '.join(first)}.")
    return {
        "output": key,
        "labels": len(labels),
        "original": accuracy(first[key], labels),
        "result": accuracy(found[key], labels),
    }


def _scores(outputs: Mapping[str, Array], labels: Array) -> str:
    """The only output with a row of scores, or else a class, for each label."""
    for rank, kinds in ((2, "fV"), (1, "iu")):
        fitting = [
            key
            for key, value in outputs.items()
            if value.ndim == rank
            and value.shape[0] == labels.shape[0]
            and value.dtype.kind in kinds
        ]
        if len(fitting) == 1:
            return fitting[0]
    raise StageFailed(
        "it is not clear which output the labels belong to",
        hint=f"Name it: validate: {{scores: OUTPUT}}. There are: {', '.join(outputs)}.",
    )


def figures(verdict: Mapping[str, Json]) -> str:
    """The metrics of an output that did not pass, in one line."""
    if "problem" in verdict:
        return str(verdict["problem"])
    shown = []
    for key in (
        "max_abs",
        "max_rel",
        "max_ulp",
        "bad_share",
        "nan_differ",
        "inf_differ",
        "atol_needed",
    ):
        value: Any = verdict.get(key)
        if value:
            shown.append(f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}")
    return ", ".join(shown) or "the bytes differ, the numbers do not (-0.0, NaN)"


def severity(verdict: Mapping[str, Json]) -> tuple[bool, float, float]:
    """Orders outputs from good to bad."""
    return (
        "problem" in verdict,
        float(verdict.get("bad_share") or 0.0),
        float(np.nan_to_num(verdict.get("max_abs") or 0.0)),
    )
