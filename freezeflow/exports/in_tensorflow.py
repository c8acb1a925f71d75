"""TensorFlow as the runtime of its own formats, and their check on request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from freezeflow.exports.check import CheckedOnRequest, checked, trial_of
from freezeflow.exports.format import ExportRequest
from freezeflow.graph.model import Model
from freezeflow.runtimes.runtime import Names, Runtime, Subject
from freezeflow.store.background import settle
from freezeflow.values import Json, Signature


def _answer_graph(subject: Subject, calls: Path, answers: Path) -> Mapping[str, Json]:
    from freezeflow.tf.loaded import answer_graph

    return answer_graph(subject, calls, answers)


def _answer_by_tf1_loader(subject: Subject, calls: Path, answers: Path) -> Mapping[str, Json]:
    from freezeflow.tf.loaded import answer_by_tf1_loader

    return answer_by_tf1_loader(subject, calls, answers)


def _answer_by_tf2_loader(subject: Subject, calls: Path, answers: Path) -> Mapping[str, Json]:
    from freezeflow.tf.loaded import answer_by_tf2_loader

    return answer_by_tf2_loader(subject, calls, answers)


_TOOLS = ("tensorflow",)

GRAPH = Runtime(name="tensorflow", answer=_answer_graph, tools=_TOOLS, exact=True)
TF2_LOADER = Runtime(name="tf2_loader", answer=_answer_by_tf2_loader, tools=_TOOLS, exact=True)
TF1_LOADER = Runtime(name="tf1_loader", answer=_answer_by_tf1_loader, tools=_TOOLS, exact=True)


def check_facts(
    request: ExportRequest, model: Model, file: Path, runtimes: Sequence[Runtime]
) -> dict[str, Json]:
    """What a check on request adds to the export's facts: ``checks``, a verdict a runtime and signature.

    Args:
        request: The request.
        model: What was written.
        file: The main file, where it lies before it is published.
        runtimes: What loads it.

    Raises:
        ValidationFailed: One of them refuses it, or answers otherwise than the original.
    """
    params: CheckedOnRequest = request.params
    if params.check is False:
        return {}
    settle()
    subjects = [
        Subject(
            file=file,
            names=names(signature),
            signature_name=name,
            signature=signature,
            bound=model.bound,
            init=model.init,
        )
        for name, signature in model.signatures.items()
    ]
    trial = trial_of(params.check, request.context.base)
    return {"checks": checked(subjects, runtimes, trial, request.original, request.context)}


def names(signature: Signature) -> Names:
    """What inputs and outputs are called in a graph: as their tensors."""
    return Names(
        {key: spec.tensor for key, spec in signature.inputs.items()},
        {key: spec.tensor for key, spec in signature.outputs.items()},
    )
