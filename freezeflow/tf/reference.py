"""The original's answers to calls, saved for whatever is compared with it in another process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from freezeflow.graph.model import Scalar
from freezeflow.graph.op_policy import check_runnable, uses_of
from freezeflow.graph.original import Original
from freezeflow.graph.walk import function_order
from freezeflow.proof.calls import Wanted
from freezeflow.proof.judge import Refusal
from freezeflow.proof.saved_calls import save_calls
from freezeflow.tf.asking import ask
from freezeflow.tf.sessions import served_config
from freezeflow.tf.sides import original_side
from freezeflow.values import Json, Signature


class Inquiry(NamedTuple):
    """Which calls the original is to answer.

    Args:
        signature_name: Which signature.
        signature: The same, with the shapes that are asked for.
        bound: Inputs with a fixed value, beside those of the signature.
        wanted: The calls.
        allow_ops: Ops that may run although they are not known to be harmless, with the reason.
    """

    signature_name: str
    signature: Signature
    bound: Mapping[str, Scalar]
    wanted: Wanted
    allow_ops: Mapping[str, str]


class Places(NamedTuple):
    """Where calls and answers are saved; each holds only calls that the original answers.

    Args:
        calls: The calls.
        beside: What a file held beside each call's inputs (labels).
        first: The original's answers.
        second: Its answers from another session.
    """

    calls: Path
    beside: Path
    first: Path
    second: Path

    @staticmethod
    def within(folder: Path) -> Places:
        """The places in a folder."""
        return Places(*(folder / name for name in Places._fields))


def answer_original(load: Callable[[], Original], inquiry: Inquiry, places: Places) -> Json:
    """Saves the calls, and the original's answers to them, each time from a fresh session.

    Returns:
        ``origins`` and ``kinds`` of the calls that it answers, and how many it ``refused``.

    Raises:
        ModelRefused: It would run ops that are not known to be harmless.
        StageFailed: The inputs do not fit, or it answers none of the calls.
    """
    original = load()
    function_order(original.graph)
    check_runnable(uses_of(original.graph), original.graph.functions, inquiry.allow_ops)
    side = original_side(original, inquiry.bound, exact=False)
    signatures = {inquiry.signature_name: inquiry.signature}
    asked = ask(original, side, signatures, inquiry.wanted, served_config())
    requests, first = asked.calls, asked.answers
    second = side.call(asked.requests, served_config())
    answered = [n for n, answer in enumerate(first) if not isinstance(answer, Refusal)]
    for path, found in ((places.first, first), (places.second, second)):
        kept = (found[n] for n in answered)
        save_calls(path, [a.message if isinstance(a, Refusal) else a for a in kept])
    save_calls(places.calls, [requests[n].inputs for n in answered])
    save_calls(places.beside, [requests[n].beside for n in answered])
    return {
        "origins": [f"{requests[n].kind}: {requests[n].origin}" for n in answered],
        "kinds": [requests[n].kind for n in answered],
        "refused": len(requests) - len(answered),
    }
