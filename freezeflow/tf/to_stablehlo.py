"""From a frozen graph, in a SavedModel, to a portable StableHLO artifact, and the way back: running it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from freezeflow.errors import RuntimeRefused, StageFailed
from freezeflow.graph.model import Model
from freezeflow.proof.saved_calls import load_calls, save_calls
from freezeflow.runtimes.runtime import Subject
from freezeflow.tf.converting import converter
from freezeflow.values import Json, TensorSpec

_HINT = "A later `stablehlo` version knows more ops. The whole report is in the log of the step."

# How a module is called: the newest form that TensorFlow's op knows.
_CALL_VERSION = 9


def to_stablehlo(model: Model, folder: Path, version: str, to: Path) -> tuple[list[str], list[str]]:
    """Writes the artifact.

    The order of its arguments and results is the converter's, which goes through a map of the signature in
    the order of its hashes.

    Args:
        model: A frozen model with one signature, its inputs of known shape.
        folder: The same as a SavedModel.
        version: The version of StableHLO that has to be able to read it.
        to: The file.

    Returns:
        The keys in the order of arguments, and in the order of results.

    Raises:
        ModelRefused: StableHLO does not take the model.
        StageFailed: This TensorFlow cannot write StableHLO, or does not tell the order.
    """
    try:
        from tensorflow.compiler.mlir.stablehlo import stablehlo
        from tensorflow.compiler.mlir.tensorflow_to_stablehlo.python import (
            pywrap_tensorflow_to_stablehlo as converting,
        )
    except ModuleNotFoundError:
        message = f"TensorFlow {tf.__version__} has no converter for StableHLO"
        raise StageFailed(message, hint="TensorFlow 2.17 and later have it.") from None

    ((name, signature),) = model.signatures.items()
    with converter("TensorFlow's converter for StableHLO", model, _HINT):
        module = converting.savedmodel_to_stablehlo(
            input_path=str(folder), exported_model_signatures=[name], tag_names=["serve"]
        )
        to.write_bytes(stablehlo.serialize_portable_artifact_str(module, version))
    # Should a model give back its inputs alone, the results are listed behind the arguments.
    return _listed(module, signature.inputs)[0], _listed(module, signature.outputs)[-1]


def _listed(module: bytes, ends: Mapping[str, TensorSpec]) -> list[list[str]]:
    """Where a module lists these ends, each list as keys.

    The module is MLIR bytecode, whose strings end in zeros. Among them are, in ``tf.entry_function``, the
    names of the tensors that the converter made arguments and results of, with commas between.

    Raises:
        StageFailed: It lists them nowhere.
    """
    if not ends:
        return [[]]
    tensors = [f"{spec.tensor}:0" for spec in ends.values()]
    one = b"(?:%s)" % b"|".join(re.escape(tensor.encode()) for tensor in set(tensors))
    found = re.findall(rb"\0(%s(?:,%s){%d})(?=\0)" % (one, one, len(tensors) - 1), module)
    lists = [text.decode().split(",") for text in found]
    lists = [names for names in lists if sorted(names) == sorted(tensors)]
    if not lists:
        message = (
            f"TensorFlow {tf.__version__} does not tell the order of a StableHLO module's ends"
        )
        raise StageFailed(message)
    # Keys of one tensor are as good as one another.
    keys = {tensor: [k for k, s in ends.items() if f"{s.tensor}:0" == tensor] for tensor in tensors}
    return [
        [keys[name][names[:place].count(name)] for place, name in enumerate(names)]
        for names in lists
    ]


def answer(subject: Subject, calls: Path, answers: Path) -> Mapping[str, Json]:
    """Answers saved calls with an artifact, compiled by XLA."""
    from tensorflow.compiler.tf2xla.python import xla

    names, signature = subject.names, subject.signature
    module = subject.file.read_bytes()
    arguments, keys = names.in_order()
    types = [tf.as_dtype(int(signature.outputs[key].dtype)) for key in keys]
    shapes = [signature.outputs[key].shape for key in keys]

    def call_module(*given: Any) -> Any:
        return xla.call_module(
            list(given),
            version=_CALL_VERSION,
            module=module,
            Sout=[tf.TensorShape(shape) for shape in shapes],
            Tout=types,
            platforms=["CPU"],
        )

    run = tf.function(call_module)
    found = []
    try:
        for call in load_calls(calls):
            assert not isinstance(call, str)
            results = run(*[tf.constant(call[key]) for key in arguments])
            found.append({k: r.numpy() for k, r in zip(keys, results, strict=True)})
    except tf.errors.OpError as error:
        raise RuntimeRefused(f"XLA: {str(error).splitlines()[0]}") from error
    save_calls(answers, found)
    return {}
