"""What two sides answered, judged: output by output, over all calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from typing import NamedTuple

import numpy as np

from freezeflow.errors import StageFailed
from freezeflow.proof.calls import Call
from freezeflow.proof.compare import (
    Comparison,
    Tolerance,
    compare,
    count_right,
    same_bytes,
    to_json,
    worse,
)
from freezeflow.proof.dtypes import Array
from freezeflow.proof.figure import figure
from freezeflow.suggestions import did_you_mean
from freezeflow.values import Json, Signature

# Calls that both sides refused and that a verdict names.
_NAMED_REFUSALS = 5


# Of so many random elements, even of random bits, all are the same again once in a million times.
_NO_CHANCE = 20

_FIXED = "the original's is random, the result's is the same every time"


class Refusal(NamedTuple):
    """A call that a side answered with an error, or not in time.

    Args:
        message: The error's first line.
        is_late: It was given up.
    """

    message: str
    is_late: bool = False


Answer = Mapping[str, Array] | Refusal


class Answers(NamedTuple):
    """What was answered to each call.

    Args:
        first: By the original.
        second: By the original, asked again in a fresh session.
        result: By the result.
        repeated: By the result, asked again in a fresh session; empty where nothing is random.
        random: Signature and key of each output that differs from itself in some call of the original; in
            others it may be the same by chance; some have only differed when they were asked more often.
    """

    first: Sequence[Answer]
    second: Sequence[Answer]
    result: Sequence[Answer]
    repeated: Sequence[Answer] = ()
    random: Set[tuple[str, str]] = frozenset()

    def of_call(self, index: int) -> tuple[Answer, Answer, Answer]:
        """What the original answered to a call, what it answered again, and the result's answer."""
        first, second = self.first[index], self.second[index]
        return first, first if isinstance(second, Refusal) else second, self.result[index]


class Measure(NamedTuple):
    """What counts as equal: every byte, or every element within a tolerance."""

    exact: bool
    tolerance: Tolerance

    def passes(self, comparison: Comparison) -> bool:
        return comparison.equal if self.exact else comparison.within

    def same(self, original: Array, result: Array) -> bool:
        """Whether two tensors count as equal; without figures where the bytes tell."""
        if same_bytes(original, result):
            return True
        return not self.exact and self.compare(original, result).within

    def compare(self, original: Array, result: Array) -> Comparison:
        return compare(original, result, Tolerance(0.0, 0.0) if self.exact else self.tolerance)


def ends_that_differ(
    original: Mapping[str, Signature], result: Mapping[str, Signature], bound: Collection[str]
) -> Iterator[tuple[str, str]]:
    """Ends of signatures that are only on one side.

    Args:
        original: The original's signatures.
        result: The result's.
        bound: Inputs that the result has no more because they have a fixed value.

    Yields:
        A signature's name, and what it has or lacks.
    """
    for name in original:
        if name not in result:
            yield name, "the result has no such signature"
    for name in result:
        if name not in original:
            yield name, "the original has no such signature"
            continue
        one, other = original[name], result[name]
        for kind, there, here in (
            ("input", one.inputs, other.inputs),
            ("output", one.outputs, other.outputs),
        ):
            for key in sorted(there.keys() - here.keys() - set(bound)):
                yield name, f"the result has no {kind} {key!r}"
            for key in sorted(here.keys() - there.keys()):
                yield name, f"the original has no {kind} {key!r}"


def check_in_time(calls: Sequence[Call], answers: Sequence[Answer]) -> None:
    """Refuses to go on with an original that does not come to an end.

    Raises:
        StageFailed: It does not answer a call in time.
    """
    for call, answer in zip(calls, answers, strict=True):
        if isinstance(answer, Refusal) and answer.is_late:
            raise StageFailed(
                f"the original gives {answer.message} ({told(call)})",
                where=call.signature,
                hint="Either it has a loop that does not end with this input (`random: {KEY: {low: ...,"
                " high: ...}}` makes other ones, at the edges, too), or it takes longer (`call_seconds`).",
            )


def check_answered(calls: Sequence[Call], answers: Sequence[Answer]) -> None:
    """Refuses to judge a signature that the original answers with errors alone.

    Raises:
        StageFailed: There is one.
    """
    answered = {
        c.signature for c, a in zip(calls, answers, strict=True) if not isinstance(a, Refusal)
    }
    for call, answer in zip(calls, answers, strict=True):
        if call.signature not in answered and isinstance(answer, Refusal):
            raise StageFailed(
                f"the original refuses every input that was tried: {answer.message}",
                where=call.signature,
                hint="Say what its inputs look like (validate: {random: {KEY: {shape: ..., low: ..., "
                "high: ...}}}), or give a file with `inputs`.",
            )


def judge_signature(
    name: str, calls: Sequence[Call], answers: Answers, measure: Measure
) -> dict[str, Json]:
    """The verdict on one signature: calls, refusals, and every output with its metrics."""
    mine = [index for index, call in enumerate(calls) if call.signature == name]
    outputs: dict[str, dict[str, Json]] = {}
    refused: list[str] = []
    disagreements: list[str] = []
    for index in mine:
        first, again, found = answers.of_call(index)
        if isinstance(first, Refusal) or isinstance(found, Refusal):
            refused.append(calls[index].origin)
            if not (isinstance(first, Refusal) and isinstance(found, Refusal)):
                disagreements.append(_disagreement(calls[index], first, found))
            continue
        assert not isinstance(again, Refusal)
        for key, value in first.items():
            is_random = (name, key) in answers.random
            judged = _judge(value, again[key], found[key], measure, is_random=is_random)
            judged["compared"] = _count(value)
            if not judged["equal"]:
                judged["call"] = told(calls[index])
            outputs[key] = _merge(outputs[key], judged) if key in outputs else judged
    for key, output in outputs.items():
        if output["random"] and output["equal"] and is_fixed((name, key), calls, answers):
            output.update(equal=False, problem=_FIXED, call="all calls")
    return {
        "equal": not disagreements and all(o["equal"] for o in outputs.values()),
        "calls": len(mine),
        "kinds": dict(Counter(calls[index].kind for index in mine)),
        "refused": len(refused),
        "refused_calls": refused[:_NAMED_REFUSALS],
        "disagreements": disagreements,
        "outputs": {key: to_json(output) for key, output in outputs.items()},
    }


def first_failure(calls: Sequence[Call], answers: Answers, measure: Measure) -> int | None:
    """The first call in which the sides give outputs that differ, by its number."""
    for index, call in enumerate(calls):
        if failing_outputs(index, call.signature, answers, measure):
            return index
    return None


def first_late(answers: Answers) -> int | None:
    """The call with which the result does not come to an end, by its number."""
    for index, found in enumerate(answers.result):
        if isinstance(found, Refusal) and found.is_late:
            return index
    return None


def failing_outputs(index: int, name: str, answers: Answers, measure: Measure) -> list[str]:
    """The keys of the outputs that differ in a call of a signature; none where a side refuses it."""
    first, again, found = answers.of_call(index)
    if isinstance(first, Refusal) or isinstance(again, Refusal) or isinstance(found, Refusal):
        return []
    return [
        key
        for key, value in first.items()
        if not _judge(
            value, again[key], found[key], measure, is_random=(name, key) in answers.random
        )["equal"]
    ]


def told(call: Call) -> str:
    """A call in words."""
    return f"{call.kind}: {call.origin}"


def _disagreement(call: Call, first: Answer, found: Answer) -> str:
    if isinstance(first, Refusal):
        what = f"the original refuses an input that the result takes: {first.message}"
    else:
        assert isinstance(found, Refusal)
        does = "does not come to an end with" if found.is_late else "refuses"
        what = f"the result {does} an input that the original takes: {found.message}"
    return f"{what} ({told(call)})"


def _judge(
    original: Array, again: Array, result: Array, measure: Measure, *, is_random: bool
) -> dict[str, Json]:
    """One output of one call: ``equal`` (passed), ``random``, and the metrics."""
    if is_random:
        same_kind = original.dtype == result.dtype and original.ndim == result.ndim
        if original.shape == again.shape:
            same_kind = same_kind and original.shape == result.shape
        return {"equal": same_kind, "random": True}
    comparison = measure.compare(original, result)
    return {"equal": measure.passes(comparison), "random": False, **comparison.metrics}


def _count(array: Array) -> int:
    """The elements that say something: equal NaNs prove little."""
    if array.dtype.kind in "OSU" or array.dtype.names is not None:
        return array.size
    return array.size - int(np.count_nonzero(array != array))


def random_outputs(
    calls: Sequence[Call], answers: Answers, measure: Measure
) -> set[tuple[str, str]]:
    """Signature and key of each output of the original that differs from itself in some call."""
    found: set[tuple[str, str]] = set()
    for index, call in enumerate(calls):
        first, again, _ = answers.of_call(index)
        if not isinstance(first, Refusal) and not isinstance(again, Refusal):
            keys = (key for key, value in first.items() if not measure.same(value, again[key]))
            found.update((call.signature, key) for key in keys)
    return found


def is_fixed(end: tuple[str, str], calls: Sequence[Call], answers: Answers) -> bool:
    """Whether an output never changes that changes in the original, as often as cannot be chance.

    Args:
        end: Its signature and key.
        calls: All calls.
        answers: What was answered to them, twice by the result.
    """
    name, key = end
    changed = 0
    for index, call in enumerate(calls):
        first, again, found = answers.of_call(index)
        sides = (first, again, found, answers.repeated[index])
        if call.signature != name or any(isinstance(side, Refusal) for side in sides):
            continue
        one, other, left, right = (side[key] for side in sides if not isinstance(side, Refusal))
        if not same_bytes(left, right):
            return False
        changed += int(np.count_nonzero(one != other)) if one.shape == other.shape else one.size
    return changed >= _NO_CHANCE


def _merge(one: dict[str, Json], other: dict[str, Json]) -> dict[str, Json]:
    figures = [
        {key: value for key, value in side.items() if key not in ("equal", "random", "call")}
        for side in (one, other)
    ]
    merged = worse(*figures)
    merged = {
        "equal": one["equal"] and other["equal"],
        "random": one["random"] or other["random"],
        **merged,
    }
    call = one.get("call") or other.get("call")
    return {**merged, "call": call} if call else merged


# ---------------------------------------------------------------- accuracy


def accuracies(
    name: str,
    calls: Sequence[Call],
    answers: Answers,
    labels: str,
    scores: str | None,
) -> dict[str, Json] | None:
    """Accuracy of both sides on the labels of files; None where no file covers a signature.

    Args:
        name: The signature.
        calls: All calls.
        answers: What was answered to them.
        labels: Name of the files' array with the right classes.
        scores: The output that they belong to; None for the only one that fits.

    Raises:
        StageFailed: No file has such an array, or it is not clear what belongs to it.
    """
    mine = [i for i, call in enumerate(calls) if call.signature == name and call.kind == "file"]
    labelled = [index for index in mine if labels in calls[index].beside]
    if mine and not labelled:
        raise StageFailed(f"holds no array named {labels!r}", where=calls[mine[0]].origin)
    key, count, right, kept = scores, 0, 0, 0
    for index in labelled:
        first, result = answers.first[index], answers.result[index]
        if isinstance(first, Refusal) or isinstance(result, Refusal):
            continue
        wanted = calls[index].beside[labels]
        key = key or _scores(first, wanted)
        if key not in first:
            raise StageFailed(f"no output is named {key!r}", hint=did_you_mean(key, first))
        if not _fits(first[key], wanted):
            raise StageFailed(
                f"labels of shape {list(wanted.shape)} do not belong to output {key!r} of"
                f" {first[key].dtype}{list(first[key].shape)}",
                where=calls[index].origin,
                hint="Each label is the number of a class: the output has a row of scores for it, or"
                " one whole number.",
            )
        count += wanted.size
        right += count_right(first[key], wanted)
        if result[key].shape == first[key].shape:
            kept += count_right(result[key], wanted)
    if not count:
        return None
    shares = {"original": right / count, "result": kept / count}
    return {"output": key, "labels": count, **shares}


def _scores(outputs: Mapping[str, Array], labels: Array) -> str:
    """The only output with a row of scores, or else a class, for each label."""
    fitting = [key for key, value in outputs.items() if _fits(value, labels)]
    rows = [key for key in fitting if outputs[key].dtype.kind in "fV"]
    for found in (rows, fitting):
        if len(found) == 1:
            return found[0]
    raise StageFailed(
        "it is not clear which output the labels belong to",
        hint=f"Name it: validate: {{scores: OUTPUT}}. There are: {', '.join(outputs)}.",
    )


def _fits(value: Array, labels: Array) -> bool:
    """Whether an output has several scores, or one whole number, for each label."""
    if value.shape == labels.shape:
        return value.dtype.kind in "iu"
    rows = value.shape[:-1] == labels.shape and value.ndim > 1 and value.shape[-1] > 1
    return rows and value.dtype.kind in "fViu"


# ---------------------------------------------------------------- in words


def figures(verdict: Mapping[str, Json]) -> str:
    """The metrics of an output that did not pass, in one line."""
    if "problem" in verdict:
        return str(verdict["problem"])
    shown = []
    names = (
        "max_abs",
        "max_rel",
        "max_ulp",
        "bad_share",
        "nan_differ",
        "inf_differ",
        "atol_needed",
    )
    for key in names:
        if verdict.get(key):
            shown.append(f"{key} {figure(key, verdict[key])}")
    return ", ".join(shown) or "the bytes differ, the numbers do not (-0.0, NaN)"


def severity(verdict: Mapping[str, Json]) -> tuple[bool, float, float]:
    """Orders outputs from good to bad."""
    return (
        "problem" in verdict,
        float(verdict.get("bad_share") or 0.0),
        float(np.nan_to_num(verdict.get("max_abs") or 0.0)),
    )
