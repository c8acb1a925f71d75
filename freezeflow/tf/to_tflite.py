"""From a frozen graph, in a SavedModel, to a TFLite file, by TensorFlow's own converter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import tensorflow as tf

from freezeflow.errors import StageFailed
from freezeflow.graph.model import Model
from freezeflow.proof.calls import Wanted, make_calls
from freezeflow.tf.converting import converter
from freezeflow.values import Json, Signature

_HINT = (
    "`batch: N` and `shapes` fix what is open; `fold` leaves fewer ops. The whole report is in the log of"
    " the step."
)


class Quantization(NamedTuple):
    """How numbers are kept.

    Args:
        kind: As in recipes.
        representative: A file with typical inputs, for ``int8``.
        samples: How many of them are looked at.
        integer_ends: Inputs and outputs are integers, too.
    """

    kind: Literal["float32", "float16", "dynamic_range", "int8"]
    representative: Path | None
    samples: int
    integer_ends: bool


def to_tflite(model: Model, folder: Path, quantization: Quantization, to: Path) -> Json:
    """Writes the file.

    Args:
        model: A frozen model with one signature.
        folder: The same as a SavedModel.
        quantization: How numbers are kept.
        to: The file.

    Raises:
        ModelRefused: TFLite or its converter does not take the model.
        StageFailed: The representative inputs cannot be read, or do not fit.
    """
    ((name, signature),) = model.signatures.items()
    with converter("TensorFlow's converter for TFLite", model, _HINT):
        lite = tf.lite.TFLiteConverter.from_saved_model(str(folder), signature_keys=[name])
        samples = _configure(lite, name, signature, quantization)
        data = lite.convert()
    to.write_bytes(data)
    return {"representative_samples": samples} if samples else {}


def _configure(lite: Any, name: str, signature: Signature, wished: Quantization) -> int:
    """Sets what the converter is to do; gives the number of representative inputs."""
    builtins = tf.lite.OpsSet.TFLITE_BUILTINS
    lite.target_spec.supported_ops = [builtins]
    if wished.kind == "float32":
        return 0
    lite.optimizations = [tf.lite.Optimize.DEFAULT]
    if wished.kind == "float16":
        lite.target_spec.supported_types = [tf.float16]
    if wished.kind != "int8":
        return 0
    given = list(_representative(name, signature, wished))
    lite.representative_dataset = lambda: iter(given)
    lite.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    if wished.integer_ends:
        lite.inference_input_type = lite.inference_output_type = tf.int8
    return len(given)


def _representative(
    name: str, signature: Signature, wished: Quantization
) -> Iterator[dict[str, Any]]:
    """Typical inputs, one example at a time where the batch is open."""
    calls = make_calls({name: signature}, Wanted(files=wished.representative, samples=0))
    count = 0
    for call in calls:
        for inputs in _examples(call.inputs, signature):
            if count == wished.samples:
                return
            count += 1
            yield inputs
    if not count:
        raise StageFailed("holds no example", where=str(wished.representative))


def _examples(inputs: Any, signature: Signature) -> Iterator[dict[str, Any]]:
    shapes = [spec.shape for spec in signature.inputs.values()]
    sizes = {len(value) for value in inputs.values() if np.ndim(value)}
    if len(sizes) != 1 or not all(shape and shape[0] is None for shape in shapes):
        yield dict(inputs)
        return
    for index in range(*sizes):
        yield {key: value[index : index + 1] for key, value in inputs.items()}
