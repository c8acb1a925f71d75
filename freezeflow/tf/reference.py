"""The original's answers to calls, saved for whatever is compared with it in another process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from freezeflow.graph.model import Scalar
from freezeflow.graph.op_policy import check_runs
from freezeflow.graph.original import Original
from freezeflow.graph.weights import largest_constants
from freezeflow.proof.calls import Call, Wanted
from freezeflow.proof.judge import Answer, Refusal
from freezeflow.proof.saved_calls import save_calls
from freezeflow.tf.asking import ask
from freezeflow.tf.sessions import exact_config, served_config
from freezeflow.tf.sides import original_side
from freezeflow.tf.weights import where_mapped
from freezeflow.values import Json, Signature


class Inquiry(NamedTuple):
    """Which calls the original is to answer.

    Args:
        signatures: Name to signature, with the shapes that are asked for.
        bound: Inputs with a fixed value, beside those of the signature.
        wanted: The calls.
        allow_ops: Ops that may run although they are not known to be harmless, with the reason.
        exact: Whether it runs as the exact level does: one thread, without Grappler.
    """

    signatures: Mapping[str, Signature]
    bound: Mapping[str, Scalar]
    wanted: Wanted
    allow_ops: Mapping[str, str]
    exact: bool = False


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


def answer_original(
    load: Callable[[], Original], inquiry: Inquiry, places: Mapping[str, Places]
) -> Json:
    """Saves the calls, and the original's answers to them, each time from a fresh session.

    Args:
        load: Reads the original.
        inquiry: What it is asked.
        places: Where the calls of each signature are saved.

    Returns:
        For each signature, ``origins`` and ``kinds`` of the calls that it answers, and how many it
        ``refused``.

    Raises:
        ModelRefused: It would run ops that are not known to be harmless.
        StageFailed: The inputs do not fit, or it answers none of a signature's calls.
    """
    original = load()
    check_runs(original.graph, inquiry.allow_ops, original.mapped)
    nbytes = sum(size for _, size in largest_constants(original.graph))
    scratch = next(iter(places.values())).calls.parent
    mapped = where_mapped(scratch, nbytes, exact=inquiry.exact)
    side = original_side(original, inquiry.bound, exact=inquiry.exact, mapped=mapped)
    config = exact_config() if inquiry.exact else served_config()
    asked = ask(original, side, inquiry.signatures, inquiry.wanted, config)
    second = side.call(asked.requests, config, inquiry.wanted.seconds)
    return {
        name: _saved(
            [
                trio
                for trio in zip(asked.calls, asked.answers, second, strict=True)
                if trio[0].signature == name
            ],
            found,
        )
        for name, found in places.items()
    }


def _saved(trios: Sequence[tuple[Call, Answer, Answer]], places: Places) -> Json:
    """Saves what a signature was asked and what the original answered twice."""
    answered = [trio for trio in trios if not isinstance(trio[1], Refusal)]
    save_calls(places.calls, [call.inputs for call, _, _ in answered])
    save_calls(places.beside, [call.beside for call, _, _ in answered])
    first = [answer for _, answer, _ in answered]
    second = [answer for _, _, answer in answered]
    for path, found in ((places.first, first), (places.second, second)):
        save_calls(path, [a.message if isinstance(a, Refusal) else a for a in found])
    return {
        "origins": [f"{call.kind}: {call.origin}" for call, _, _ in answered],
        "kinds": [call.kind for call, _, _ in answered],
        "refused": len(trios) - len(answered),
    }
