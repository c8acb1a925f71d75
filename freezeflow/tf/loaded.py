"""Answers of what TensorFlow loads: a graph file in a session, a SavedModel by either of its loaders."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError

from freezeflow.errors import ModelRefused, RuntimeRefused, StageFailed
from freezeflow.proof.judge import Answer, Refusal
from freezeflow.proof.saved_calls import load_calls, save_calls
from freezeflow.runtimes.runtime import Subject
from freezeflow.tf.mapped import load_graph
from freezeflow.tf.sessions import as_array, exact_config
from freezeflow.tf.sides import Arrays, Side, configure_calls
from freezeflow.tf.weights import filled, read_mapped
from freezeflow.values import Json, Signature, TensorSpec

v1 = tf.compat.v1

_TAGS = ["serve"]


def answer_graph(subject: Subject, calls: Path, answers: Path) -> Mapping[str, Json]:
    """Answers saved calls with a frozen graph, imported into a fresh session.

    Raises:
        RuntimeRefused: TensorFlow does not take the graph, or a call.
    """
    with _refusals():
        graph_def = load_graph(subject.file, subject.file, verify=False)
        weights = read_mapped(graph_def)
        configure_calls(graph_def)
        graph = tf.Graph()
        with graph.as_default():
            tf.graph_util.import_graph_def(graph_def, name="")
        prepare = (*filled(graph, weights), *subject.init)
        before: tuple[tuple[str, Arrays], ...] = tuple((name, {}) for name in prepare)
        side = Side(graph, {subject.signature_name: subject.signature}, before, {})
        given = _given(calls)
        requests = [(subject.signature_name, each) for each in given]
        _save(answers, side.call(requests, _config(), None))
    return {}


def answer_by_tf1_loader(subject: Subject, calls: Path, answers: Path) -> Mapping[str, Json]:
    """Answers saved calls with a SavedModel that ``tf.compat.v1.saved_model.load`` has loaded.

    Raises:
        RuntimeRefused: TensorFlow does not take the SavedModel, or a call.
    """
    name = subject.signature_name
    with _refusals(), tf.Graph().as_default() as graph, v1.Session(config=_config()) as session:
        told = v1.saved_model.load(session, _TAGS, str(subject.file.parent)).signature_def
        if name not in told:
            raise RuntimeRefused(f"the SavedModel has no signature {name!r}")
        signature = Signature(
            inputs=_found(subject.signature.inputs, told[name].inputs),
            outputs=_found(subject.signature.outputs, told[name].outputs),
        )
        side = Side(graph, {name: signature}, (), {})
        _save(answers, side.answers(session, [(name, each) for each in _given(calls)], None))
    return {}


def answer_by_tf2_loader(subject: Subject, calls: Path, answers: Path) -> Mapping[str, Json]:
    """Answers saved calls with a SavedModel that ``tf.saved_model.load`` has loaded.

    Raises:
        RuntimeRefused: TensorFlow does not take the SavedModel, or a call.
    """
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    name = subject.signature_name
    _check_distinct(subject.signature)
    with _refusals():
        loaded = tf.saved_model.load(str(subject.file.parent), tags=_TAGS)
        if name not in loaded.signatures:
            raise RuntimeRefused(f"the SavedModel has no signature {name!r}")
        run, specs = loaded.signatures[name], subject.signature.inputs
        found: list[Answer] = []
        for call in _given(calls):
            dtypes = {key: tf.as_dtype(int(spec.dtype)) for key, spec in specs.items()}
            results = run(**{key: tf.constant(call[key], dtypes[key]) for key in specs})
            found.append({key: as_array(value.numpy()) for key, value in results.items()})
        _save(answers, found)
    return {}


def _check_distinct(signature: Signature) -> None:
    """Refuses a signature that TensorFlow 2's loader does not take: its functions get each tensor once."""
    keys: dict[str, str] = {}
    for key, spec in signature.inputs.items():
        other = keys.setdefault(spec.tensor, key)
        if other != key:
            raise RuntimeRefused(
                f"TensorFlow 2 does not load a signature in which inputs {other!r} and {key!r} are one"
                " tensor",
                hint="It loads the source no better. TensorFlow 1's loader does: without a `check` the"
                " SavedModel is written as it is.",
            )


def _config() -> Any:
    """As the exact level runs; where a device that the graph asks for is not here, on the processor."""
    config = exact_config()
    config.allow_soft_placement = True
    return config


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Tells whatever TensorFlow raises as a refusal of the file."""
    try:
        yield
    except (ModelRefused, StageFailed) as error:
        where = f" ({error.where})" if error.where else ""
        raise RuntimeRefused(f"TensorFlow: {error.message}{where}") from error
    except (
        *(tf.errors.OpError, DecodeError),
        *(ValueError, TypeError, KeyError, OSError, RuntimeError),
    ) as error:
        told = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RuntimeRefused(f"TensorFlow: {told}") from error


def _found(specs: Mapping[str, TensorSpec], told: Mapping[str, Any]) -> dict[str, TensorSpec]:
    """The signature's ends with the tensors that the SavedModel names for them."""
    for key in specs:
        if key not in told:
            raise RuntimeRefused(f"the SavedModel's signature has no {key!r}")
    return {key: dataclasses.replace(spec, tensor=told[key].name) for key, spec in specs.items()}


def _given(calls: Path) -> list[Arrays]:
    return [call for call in load_calls(calls) if not isinstance(call, str)]


def _save(path: Path, answers: Sequence[Answer]) -> None:
    for answer in answers:
        if isinstance(answer, Refusal):
            raise RuntimeRefused(f"TensorFlow: {answer.message}")
    save_calls(path, [answer for answer in answers if not isinstance(answer, Refusal)])
