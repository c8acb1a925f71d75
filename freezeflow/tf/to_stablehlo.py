"""From a frozen graph, in a SavedModel, to a portable StableHLO artifact, and the way back: running it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from freezeflow.errors import ModelRefused, RuntimeRefused, StageFailed
from freezeflow.graph.model import Model
from freezeflow.graph.profile import refuse_ops
from freezeflow.proof.saved_calls import load_calls, save_calls
from freezeflow.runtimes.runtime import Subject
from freezeflow.tf.converting import converter
from freezeflow.tf.sides import failing_node, first_reason
from freezeflow.values import Json, TensorSpec

_HINT = "A later `stablehlo` version knows more ops. The whole report is in the log of the step."

_LEFT = "`fold` before the export, or a signature without them, may leave them out."

# MLIR bytecode: how it begins, the numbers of two sections, and the versions in which names got a mark
# that a version follows, a count before them, and a mark that the op is registered.
_MAGIC = b"ML\xefR"
_STRINGS, _DIALECTS = 0, 1
_VERSIONED, _COUNTED, _REGISTERED = 1, 4, 5

# The dialects of a portable artifact.
_PORTABLE = frozenset(["builtin", "func", "stablehlo"])

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
        _check_left(module, model)
        to.write_bytes(stablehlo.serialize_portable_artifact_str(module, version))
    # Should a model give back its inputs alone, the results are listed behind the arguments.
    return _listed(module, signature.inputs)[0], _listed(module, signature.outputs)[-1]


def _check_left(module: bytes, model: Model) -> None:
    """Refuses a module in which ops of TensorFlow's are left.

    Raises:
        ModelRefused: There are; the message names them, and the model's nodes that they are of.
    """
    found = op_names(module)
    refuse_ops(model, "StableHLO", found.get("tf", ()), _LEFT)
    left = [
        f"{dialect}.{op}"
        for dialect, ops in sorted(found.items())
        if dialect not in _PORTABLE
        for op in ops
    ]
    if left:
        raise ModelRefused(
            f"StableHLO does not take {', '.join(left)}, which its converter makes of the model",
            hint=_LEFT,
        )


def op_names(module: bytes) -> dict[str, list[str]]:
    """The names of a module's ops, by dialect.

    Source of the format: https://mlir.llvm.org/docs/BytecodeFormat/.

    Raises:
        StageFailed: It is no MLIR bytecode.
    """
    if not module.startswith(_MAGIC):
        raise StageFailed("TensorFlow's converter for StableHLO gives no MLIR bytecode")
    reader = _Bytes(module, len(_MAGIC))
    version = reader.number()
    reader.at = module.index(b"\0", reader.at) + 1  # the producer
    sections: dict[int, tuple[int, int]] = {}
    while reader.at < len(module):
        section = module[reader.at]
        reader.at += 1
        length = reader.number()
        if section & 0x80:  # aligned, with padding
            alignment = reader.number()
            reader.at += -reader.at % alignment
        sections[section & 0x7F] = reader.at, reader.at + length
        reader.at += length
    strings = _strings(module, *sections[_STRINGS])
    return _ops(module, *sections[_DIALECTS], strings, version)


class _Bytes:
    """Reads numbers one after the other."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at

    def number(self) -> int:
        """As many bytes as the first one has zeros at its low end, and one more."""
        first = self.data[self.at]
        count = (first & -first).bit_length() if first else 9
        whole = int.from_bytes(self.data[self.at : self.at + count], "little")
        self.at += count
        return whole >> (8 if count == 9 else count)


def _strings(module: bytes, start: int, end: int) -> list[str]:
    """The strings of a section, which lists their lengths from the last one on."""
    reader = _Bytes(module, start)
    count = reader.number()
    lengths = [reader.number() for _ in range(count)]
    found = []
    for size in lengths:
        found.append(module[end - size : end - 1].decode(errors="replace"))
        end -= size
    return found[::-1]


def _ops(
    module: bytes, start: int, end: int, strings: Sequence[str], version: int
) -> dict[str, list[str]]:
    """The section of dialects, which ends with the ops of each."""
    reader = _Bytes(module, start)
    dialects = []
    for _ in range(reader.number()):
        coded = reader.number()
        if version >= _VERSIONED:
            if coded & 1:  # a section with the dialect's version
                reader.at += 1
                length = reader.number()
                reader.at += length
            coded >>= 1
        dialects.append(strings[coded])
    if version >= _COUNTED:
        reader.number()
    found: dict[str, list[str]] = {}
    while reader.at < end:
        names = found.setdefault(dialects[reader.number()], [])
        for _ in range(reader.number()):
            coded = reader.number()
            names.append(strings[coded >> 1 if version >= _REGISTERED else coded])
    return found


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
        text = str(error)
        raise RuntimeRefused(f"XLA: {first_reason(text)}{failing_node(text)}") from error
    save_calls(answers, found)
    return {}
