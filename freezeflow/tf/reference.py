"""The original's answers to calls, saved for whatever is compared with it in another process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from freezeflow.errors import StageFailed
from freezeflow.graph.model import Scalar
from freezeflow.graph.op_policy import check_runnable, uses_of
from freezeflow.graph.original import Original
from freezeflow.graph.walk import function_order
from freezeflow.proof.saved_calls import save_calls
from freezeflow.proof.wishes import Random
from freezeflow.tf.inputs import Array, Wish, inputs_from, read_arrays, seeded_inputs
from freezeflow.tf.sessions import served_config
from freezeflow.tf.sides import Refusal, original_side
from freezeflow.values import Json, Signature


class Inquiry(NamedTuple):
    """Which calls the original is to answer.

    Args:
        signature_name: Which signature.
        signature: The same, with the shapes that are asked for.
        bound: Inputs with a fixed value, beside those of the signature.
        file: An ``.npz`` file with inputs by key; None for none.
        samples: Number of calls with seeded inputs.
        seed: Their seed.
        sizes: Sizes of unknown dimensions, taken in turn call by call.
        random: Input key to what is known about it.
        allow_ops: Ops that may run although they are not known to be harmless, with the reason.
    """

    signature_name: str
    signature: Signature
    bound: Mapping[str, Scalar]
    file: Path | None
    samples: int
    seed: int
    sizes: tuple[int, ...]
    random: Mapping[str, Random]
    allow_ops: Mapping[str, str]


def answer_original(
    load: Callable[[], Original], inquiry: Inquiry, calls: Path, answers: Sequence[Path]
) -> Json:
    """Saves the calls, and the original's answers to them, each time from a fresh session.

    Raises:
        ModelRefused: It would run ops that are not known to be harmless.
        StageFailed: The inputs do not fit, or it answers none of the calls.
    """
    original = load()
    function_order(original.graph)
    check_runnable(uses_of(original.graph), original.graph.functions, inquiry.allow_ops)
    inputs = _inputs(inquiry)
    save_calls(calls, inputs)
    side = original_side(original, inquiry.bound)
    requests = [(inquiry.signature_name, call) for call in inputs]
    for path in answers:
        found = side.call(requests, served_config())
        _check_answered(found, inquiry.signature_name)
        save_calls(path, [a.message if isinstance(a, Refusal) else a for a in found])
    return {}


def _inputs(inquiry: Inquiry) -> list[dict[str, Array]]:
    signature = inquiry.signature
    unknown = set(inquiry.random) - set(signature.inputs)
    if unknown:
        raise StageFailed(
            f"the signature has no input named {min(unknown)!r}",
            where=inquiry.signature_name,
            hint=f"There are: {', '.join(signature.inputs)}.",
        )
    calls = []
    if inquiry.file is not None:
        arrays = read_arrays(inquiry.file)
        missing = set(signature.inputs) - set(arrays)
        if missing:
            raise StageFailed(
                f"holds no array named {min(missing)!r}",
                where=str(inquiry.file),
                hint=f"The inputs are: {', '.join(signature.inputs)}.",
            )
        calls.append(inputs_from(arrays, signature, str(inquiry.file)))
    wishes = {
        key: Wish(wish.shape, wish.low, wish.high, (*wish.values, *wish.vocabulary))
        for key, wish in inquiry.random.items()
    }
    for number in range(inquiry.samples):
        size = inquiry.sizes[number % len(inquiry.sizes)]
        calls.append(seeded_inputs(signature, wishes, seed=inquiry.seed, number=number, size=size))
    return calls


def _check_answered(answers: Sequence[dict[str, Array] | Refusal], signature_name: str) -> None:
    refusals = [answer for answer in answers if isinstance(answer, Refusal)]
    if len(refusals) == len(answers):
        raise StageFailed(
            f"the original refuses every input that was tried: {refusals[0].message}",
            where=signature_name,
            hint="Say what its inputs look like (check: {random: {KEY: {shape: ..., low: ..., high:"
            " ...}}}), or give a file with `inputs`.",
        )
