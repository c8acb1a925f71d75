"""TensorFlow Serving's request log messages, as far as requests need them.

They are declared here, in the pool of TensorFlow's messages, so that no serving package is needed.
Source of the formats: upstream ``tensorflow_serving/apis/{prediction_log,predict,classification,
regression,session_service,inference,input,model}.proto`` and
``tensorflow/core/protobuf/named_tensor.proto``.
"""

from __future__ import annotations

import functools
from typing import Any

from google.protobuf import descriptor_pb2, message_factory

from freezeflow.messages import message_class

_PACKAGE = "tensorflow.serving"
_FILE = "freezeflow/serving.proto"
_TENSOR = ".tensorflow.TensorProto"

# Message to its fields: name, number, type (a message of this file, or as written), and whether it
# is repeated. Examples stay bytes: they are fed as they are.
_Field = tuple[str, int, str, bool]
_MESSAGES: dict[str, tuple[_Field, ...]] = {
    "ModelSpec": (("name", 1, "string", False), ("signature_name", 3, "string", False)),
    "ExampleList": (("examples", 1, "bytes", True),),
    "ExampleListWithContext": (("examples", 1, "bytes", True), ("context", 2, "bytes", False)),
    "Input": (
        ("example_list", 1, "ExampleList", False),
        ("example_list_with_context", 2, "ExampleListWithContext", False),
    ),
    "NamedTensor": (("name", 1, "string", False), ("tensor", 2, _TENSOR, False)),
    "InferenceTask": (("model_spec", 1, "ModelSpec", False),),
    "PredictRequest": (
        ("model_spec", 1, "ModelSpec", False),
        ("inputs", 2, "InputsEntry", True),
    ),
    "ExamplesRequest": (("model_spec", 1, "ModelSpec", False), ("input", 2, "Input", False)),
    "SessionRunRequest": (("model_spec", 1, "ModelSpec", False), ("feed", 2, "NamedTensor", True)),
    "MultiInferenceRequest": (
        ("tasks", 1, "InferenceTask", True),
        ("input", 2, "Input", False),
    ),
    "PredictLog": (("request", 1, "PredictRequest", False),),
    "PredictStreamedLog": (("request", 1, "PredictRequest", True),),
    "ExamplesLog": (("request", 1, "ExamplesRequest", False),),
    "SessionRunLog": (("request", 1, "SessionRunRequest", False),),
    "MultiInferenceLog": (("request", 1, "MultiInferenceRequest", False),),
    "PredictionLog": (
        ("classify_log", 2, "ExamplesLog", False),
        ("regress_log", 3, "ExamplesLog", False),
        ("multi_inference_log", 4, "MultiInferenceLog", False),
        ("session_run_log", 5, "SessionRunLog", False),
        ("predict_log", 6, "PredictLog", False),
        ("predict_streamed_log", 7, "PredictStreamedLog", False),
    ),
}


@functools.cache
def prediction_log() -> type[Any]:
    """The class of ``tensorflow.serving.PredictionLog``."""
    tensor = message_class("TensorProto").DESCRIPTOR
    pool = tensor.file.pool
    pool.AddSerializedFile(_declared(tensor.file.name).SerializeToString())
    descriptor = pool.FindMessageTypeByName(f"{_PACKAGE}.PredictionLog")
    found: type[Any] = message_factory.GetMessageClass(descriptor)
    return found


def _declared(tensor_file: str) -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name=_FILE, package=_PACKAGE, syntax="proto3", dependency=[tensor_file]
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field in fields:
            _add_field(message, name, *field)
        if name == "PredictRequest":
            entry = message.nested_type.add(name="InputsEntry")
            entry.options.map_entry = True
            _add_field(entry, name, "key", 1, "string", False)
            _add_field(entry, name, "value", 2, _TENSOR, False)
    return file


def _add_field(message: Any, owner: str, name: str, number: int, kind: str, repeated: bool) -> None:
    types = descriptor_pb2.FieldDescriptorProto
    field = message.field.add(
        name=name,
        number=number,
        label=types.LABEL_REPEATED if repeated else types.LABEL_OPTIONAL,
    )
    if kind in ("string", "bytes"):
        field.type = types.TYPE_STRING if kind == "string" else types.TYPE_BYTES
        return
    field.type = types.TYPE_MESSAGE
    scope = f".{_PACKAGE}.{owner}" if kind == "InputsEntry" else f".{_PACKAGE}"
    field.type_name = kind if kind.startswith(".") else f"{scope}.{kind}"
