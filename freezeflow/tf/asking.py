"""Finds inputs that the original answers, and asks it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from freezeflow.graph.original import Original
from freezeflow.proof.calls import Call, Signatures, Wanted, assumed, make_calls
from freezeflow.proof.judge import Answer, Refusal, check_answered, check_in_time
from freezeflow.proof.needs import needs_of
from freezeflow.proof.seeded import OTHER_HABITS, Habits
from freezeflow.tf.sides import Side
from freezeflow.values import Signature


class Asked(NamedTuple):
    """What was asked, and the answers.

    Args:
        calls: The calls.
        answers: What the original answered to them, in one fresh session.
        assumed: Signature to input key to what seeded inputs were taken to look like, in words.
    """

    calls: Sequence[Call]
    answers: Sequence[Answer]
    assumed: Mapping[str, Mapping[str, str]]

    @property
    def requests(self) -> list[tuple[str, Mapping[str, Any]]]:
        """Signature and inputs of each call."""
        return _requests(self.calls)


def ask(
    original: Original, side: Side, signatures: Signatures, wanted: Wanted, config: Any
) -> Asked:
    """Makes the calls of each signature; where the original refuses all, with inputs of other kinds.

    Args:
        original: The original.
        side: The same in TensorFlow.
        signatures: The signatures that are called.
        wanted: Which calls.
        config: The session's configuration.

    Raises:
        StageFailed: The inputs do not fit, or the original answers no call of a signature, or one not in
            time.
    """
    wanted = dataclasses.replace(wanted, needs=needs_of(original))
    calls = make_calls(signatures, wanted)
    answers = side.call(_requests(calls), config, wanted.seconds)
    check_in_time(calls, answers)
    habits = {
        name: found
        for name, signature in signatures.items()
        if (found := _habits(side, name, signature, wanted, config, calls, answers)) is not None
    }
    if habits:
        wanted = dataclasses.replace(wanted, habits=habits)
        calls = make_calls(signatures, wanted)
        answers = side.call(_requests(calls), config, wanted.seconds)
        check_in_time(calls, answers)
    check_answered(calls, answers)
    return Asked(calls, answers, assumed(signatures, calls, wanted))


def _requests(calls: Sequence[Call]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(call.signature, call.inputs) for call in calls]


def _habits(
    side: Side,
    name: str,
    signature: Signature,
    wanted: Wanted,
    config: Any,
    calls: Sequence[Call],
    answers: Sequence[Answer],
) -> Habits | None:
    """What inputs that are made up should look like, where those that are usual do not do."""
    pairs = [p for p in zip(calls, answers, strict=True) if p[0].signature == name]
    taken = [not isinstance(a, Refusal) for call, a in pairs if call.kind == "seeded"]
    if not taken or all(taken):
        return None
    if any(taken):
        # Where the size decides: as many more calls as were refused, of a size that was not.
        sizes = [wanted.sizes[number % len(wanted.sizes)] for number in range(len(taken))]
        good = {size for size, is_taken in zip(sizes, taken, strict=True) if is_taken}
        bad = {size for size, is_taken in zip(sizes, taken, strict=True) if not is_taken}
        return None if good & bad else Habits(more=(min(good),) * taken.count(False))
    answered = any(not isinstance(answer, Refusal) for _, answer in pairs)
    return None if answered else _other_habits(side, name, signature, wanted, config)


def _other_habits(
    side: Side, name: str, signature: Signature, wanted: Wanted, config: Any
) -> Habits | None:
    """The first kind of inputs that the original answers."""
    for habits in OTHER_HABITS:
        trial = Wanted(
            samples=1,
            seed=wanted.seed,
            sizes=wanted.sizes,
            wishes={key: wish for key, wish in wanted.wishes.items() if key in signature.inputs},
            needs=wanted.needs,
            habits={name: habits},
        )
        calls = make_calls({name: signature}, trial)
        (answer,) = side.call(_requests(calls), config, wanted.seconds)
        check_in_time(calls, [answer])
        if not isinstance(answer, Refusal):
            return habits
    return None
