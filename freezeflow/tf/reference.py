"""The original's answers to calls, saved for whatever is compared with it in another process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from freezeflow.graph.model import Scalar
from freezeflow.graph.op_policy import check_runnable, uses_of
from freezeflow.graph.original import Original
from freezeflow.graph.walk import function_order
from freezeflow.proof.calls import Wanted, make_calls
from freezeflow.proof.judge import Refusal, check_answered
from freezeflow.proof.saved_calls import save_calls
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
    requests = make_calls({inquiry.signature_name: inquiry.signature}, inquiry.wanted)
    save_calls(calls, [call.inputs for call in requests])
    side = original_side(original, inquiry.bound, exact=False)
    asked = [(call.signature, call.inputs) for call in requests]
    for path in answers:
        found = side.call(asked, served_config())
        check_answered(requests, found)
        save_calls(path, [a.message if isinstance(a, Refusal) else a for a in found])
    return {}
