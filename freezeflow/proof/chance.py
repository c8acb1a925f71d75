"""Outputs that are random and so poor in outcomes that a few answers agree, or differ, by chance.

One random bit is the same twice in every other call. What may be random at all is read off the graph; of
that, more answers tell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from freezeflow.graph.graph import Graph
from freezeflow.graph.op_policy import random_before
from freezeflow.proof.calls import Call
from freezeflow.proof.judge import (
    Answer,
    Answers,
    Measure,
    Refusal,
    failing_outputs,
    is_fixed,
)
from freezeflow.values import Signature

# A random bit is the same again in all of so many rounds once in a thousand million times.
_ROUNDS = 30

# Answers calls, named by their numbers, in a fresh session.
Ask = Callable[[Sequence[int]], Sequence[Answer]]

Ends = set[tuple[str, str]]


def may_be_random(graph: Graph, signatures: Mapping[str, Signature]) -> Ends:
    """Signature and key of each output that a random op lies before."""
    return {
        (name, key)
        for name, signature in signatures.items()
        for key, spec in signature.outputs.items()
        if random_before(graph, spec.tensor) is not None
    }


def random_after_all(
    calls: Sequence[Call], answers: Answers, measure: Measure, suspects: Ends, ask: Ask
) -> Ends:
    """Those outputs that differ in the result and, asked often enough, in the original itself.

    Args:
        calls: All calls.
        answers: What was answered to them.
        measure: What counts as equal.
        suspects: The outputs that may be random; of others a difference is one.
        ask: Asks the original.
    """
    waiting: dict[int, list[str]] = {}
    for index, call in enumerate(calls):
        keys = failing_outputs(index, call.signature, answers, measure)
        if kept := [key for key in keys if (call.signature, key) in suspects]:
            waiting[index] = kept
    found: Ends = set()
    for _ in range(_ROUNDS):
        if not waiting:
            break
        for index, again in zip(waiting, ask(list(waiting)), strict=True):
            keys = _unlike(answers.first[index], again, waiting[index], measure)
            found.update((calls[index].signature, key) for key in keys)
        for index, keys in list(waiting.items()):
            waiting[index] = [key for key in keys if (calls[index].signature, key) not in found]
            if not waiting[index]:
                del waiting[index]
    return found


def asked_until_unlike(calls: Sequence[Call], answers: Answers, ask: Ask) -> Answers:
    """The answers, those of the result asked again until each random output has differed once.

    Args:
        calls: All calls.
        answers: What was answered to them, twice by the result.
        ask: Asks the result.
    """
    for _ in range(_ROUNDS):
        fixed = [end for end in sorted(answers.random) if is_fixed(end, calls, answers)]
        names = {name for name, _ in fixed}
        indices = [index for index, call in enumerate(calls) if call.signature in names]
        if not indices:
            break
        repeated = list(answers.repeated)
        for index, again in zip(indices, ask(indices), strict=True):
            repeated[index] = again
        answers = answers._replace(repeated=repeated)
    return answers


def _unlike(first: Answer, again: Answer, keys: Sequence[str], measure: Measure) -> list[str]:
    if isinstance(first, Refusal) or isinstance(again, Refusal):
        return []
    return [key for key in keys if not measure.same(first[key], again[key])]
