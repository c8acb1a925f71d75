"""The original's answers to calls, saved for whatever is compared with it in another process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from freezeflow.graph.model import Scalar
from freezeflow.graph.op_policy import check_runs
from freezeflow.graph.original import Original
from freezeflow.graph.weights import largest_constants
from freezeflow.proof.calls import Call, Wanted
from freezeflow.proof.judge import Answer, Refusal
from freezeflow.proof.saved_calls import Saved, load_calls, save_calls
from freezeflow.proof.sway import NUDGES, nudged
from freezeflow.tf.asking import ask
from freezeflow.tf.sessions import exact_config, served_config
from freezeflow.tf.sides import Side, original_side
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
    side, config = _ready(original, inquiry, next(iter(places.values())).calls.parent)
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


def answer_nudged(
    load: Callable[[], Original], inquiry: Inquiry, name: str, calls: Path, to: Path
) -> Json:
    """Saves the original's answers to calls whose inputs differ in the last place.

    Args:
        load: Reads the original.
        inquiry: What it was asked before.
        name: The signature that is called.
        calls: Where its calls are saved.
        to: Where the answers are saved: `NUDGES` of the first call, then of the second...

    Raises:
        ModelRefused: It would run ops that are not known to be harmless.
    """
    side, config = _ready(load(), inquiry, calls.parent)
    made = [call for call in load_calls(calls) if not isinstance(call, str)]
    requests = [(name, nudged(call, number)) for call in made for number in range(NUDGES)]
    save_calls(to, _plain(side.call(requests, config, inquiry.wanted.seconds)))
    return {}


def _ready(original: Original, inquiry: Inquiry, scratch: Path) -> tuple[Side, Any]:
    """The original in TensorFlow, and the configuration of its sessions."""
    check_runs(original.graph, inquiry.allow_ops, original.mapped)
    nbytes = sum(size for _, size in largest_constants(original.graph))
    mapped = where_mapped(scratch, nbytes, exact=inquiry.exact)
    side = original_side(original, inquiry.bound, exact=inquiry.exact, mapped=mapped)
    return side, exact_config() if inquiry.exact else served_config()


def _plain(answers: Sequence[Answer]) -> list[Saved]:
    return [each.message if isinstance(each, Refusal) else each for each in answers]


def _saved(trios: Sequence[tuple[Call, Answer, Answer]], places: Places) -> Json:
    """Saves what a signature was asked and what the original answered twice."""
    answered = [trio for trio in trios if not isinstance(trio[1], Refusal)]
    save_calls(places.calls, [call.inputs for call, _, _ in answered])
    save_calls(places.beside, [call.beside for call, _, _ in answered])
    save_calls(places.first, _plain([answer for _, answer, _ in answered]))
    save_calls(places.second, _plain([answer for _, _, answer in answered]))
    return {
        "origins": [f"{call.kind}: {call.origin}" for call, _, _ in answered],
        "kinds": [call.kind for call, _, _ in answered],
        "refused": len(trios) - len(answered),
    }
