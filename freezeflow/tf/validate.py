"""Runs original and result on the same inputs and says whether the result means the same.

The original runs twice, each time in a fresh session: an output that differs from itself is random
and can only be compared by dtype and shape. Then the result runs the same calls in the same order; where
something is random, twice, too, because it must still be. Where that could be chance (`proof.chance`), they
run more often.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

from freezeflow.context import INPUTS_FILE
from freezeflow.graph.model import Model
from freezeflow.graph.op_policy import RANDOM, uses_of
from freezeflow.graph.original import Original
from freezeflow.graph.storage import model_tensors
from freezeflow.proof.calls import Wanted, kept_requests
from freezeflow.proof.chance import (
    Ask,
    asked_until_unlike,
    may_be_random,
    random_after_all,
)
from freezeflow.proof.images import pillow_version
from freezeflow.proof.judge import Answers, Measure, accuracies, judge_signature, random_outputs
from freezeflow.proof.requests import encode_requests
from freezeflow.tf.asking import ask
from freezeflow.tf.locate import locate
from freezeflow.tf.sessions import exact_config, served_config, settings
from freezeflow.tf.sides import Side, original_side, result_side
from freezeflow.tf.weights import where_mapped
from freezeflow.values import Json

VERDICT_FORMAT = "freezeflow.verdict/1"

# Random nodes that a verdict names.
_NAMED_RANDOM = 10


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """How a model is put to the test.

    Args:
        measure: Level A (one thread, no Grappler, equal to the byte); else level B, as served.
        wanted: Which calls are made.
        labels: Name of an input file's array with the right classes.
        scores: Output that the labels belong to; None for the only one that fits.
    """

    measure: Measure
    wanted: Wanted
    labels: str | None
    scores: str | None


def validate(original: Original, model: Model, trial: Trial, scratch: Path) -> dict[str, Json]:
    """Compares a model with its original on every signature that the model has.

    Args:
        original: The original.
        model: The result, frozen.
        trial: Inputs and level.
        scratch: A folder for asset files; the inputs of all calls are left in it as `INPUTS_FILE`.

    Returns:
        The verdict: ``format``, ``level``, ``equal`` (it passed), ``tolerance`` (null at the exact
        level), ``seed``, ``signatures`` (calls, refused calls, outputs with their metrics, accuracy),
        ``assumed`` (what inputs that were made up look like, where neither signature nor recipe say it),
        ``settings``; ``random_ops`` where an output of the original differs from itself; and
        ``divergence`` (see `locate`) where the result differs.

    Raises:
        StageFailed: The inputs do not fit, or the original cannot be restored, or answers no call at
            all.
        UsageError: An input was bound that the original does not have.
    """
    measure = trial.measure
    config = exact_config() if measure.exact else served_config()
    nbytes = sum(tensor.nbytes for tensor in model_tensors(model))
    mapped = where_mapped(scratch, nbytes, exact=measure.exact)
    side = original_side(original, model.bound, exact=measure.exact, mapped=mapped)
    calls, first, assumed = asked = ask(original, side, model.signatures, trial.wanted, config)
    (scratch / INPUTS_FILE).write_bytes(encode_requests(kept_requests(calls)))
    second = side.call(asked.requests, config, trial.wanted.seconds)
    del side
    after = result_side(model, scratch, exact=measure.exact, mapped=mapped)
    result = after.call(asked.requests, config, trial.wanted.seconds)
    answers = Answers(first, second, result)
    random = random_outputs(calls, answers, measure)

    def asks(who: Callable[[], Side]) -> Ask:
        """Asks a side, made when it is first needed, in a fresh session each time."""
        made = functools.cache(who)
        return lambda indices: made().call(
            [asked.requests[index] for index in indices], config, trial.wanted.seconds
        )

    if suspects := may_be_random(original.graph, original.signatures) - random:
        again = asks(
            lambda: original_side(original, model.bound, exact=measure.exact, mapped=mapped)
        )
        answers = answers._replace(random=random)
        random |= random_after_all(calls, answers, measure, suspects, again)
    if random:
        repeated = after.call(asked.requests, config, trial.wanted.seconds)
        answers = answers._replace(repeated=repeated, random=random)
        answers = asked_until_unlike(calls, answers, asks(lambda: after))
    signatures = {n: judge_signature(n, calls, answers, measure) for n in model.signatures}
    if trial.labels is not None:
        for name, found in signatures.items():
            found["accuracy"] = accuracies(name, calls, answers, trial.labels, trial.scores)
    equal = all(verdict["equal"] for verdict in signatures.values())
    return {
        "format": VERDICT_FORMAT,
        "level": "exact" if measure.exact else "served",
        "equal": equal,
        "tolerance": None if measure.exact else measure.tolerance._asdict(),
        "seed": trial.wanted.seed,
        "signatures": signatures,
        "assumed": assumed,
        "settings": {
            **settings(exact=measure.exact),
            "call_seconds": trial.wanted.seconds,
            "weights": "in the graph" if mapped is None else "mapped",
            **_pillow(trial),
        },
        **_random_ops(original, signatures),
        **(
            {}
            if equal
            else {"divergence": locate(original, model, calls, answers, measure, scratch)}
        ),
    }


def _pillow(trial: Trial) -> dict[str, Json]:
    return {} if trial.wanted.pictures is None else {"pillow": pillow_version()}


def _random_ops(original: Original, signatures: dict[str, dict[str, Json]]) -> dict[str, Json]:
    """The nodes that can make an output random, where one is."""
    if not any(o["random"] for found in signatures.values() for o in found["outputs"].values()):
        return {}
    found = [f"{use.path} ({use.op})" for use in uses_of(original.graph) if use.op in RANDOM]
    return {"random_ops": found[:_NAMED_RANDOM]}
