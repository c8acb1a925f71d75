"""Calls of a model in the format of TensorFlow Serving's warm-up: a TFRecord file of PredictionLogs.

A SavedModel may bring such a file, and it is also how the inputs of a proof are kept: every dtype
has its place in it, and TensorFlow Serving takes it.
Source of the record format: upstream ``core/lib/io/record_writer.h``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import crc32c
import numpy as np
from google.protobuf.message import DecodeError

from freezeflow.checkpoint.coding import masked
from freezeflow.errors import StageFailed
from freezeflow.graph.tensor_values import elements
from freezeflow.messages import message_class
from freezeflow.proof.dtypes import Array, numpy_dtype, strings
from freezeflow.proof.serving import prediction_log
from freezeflow.values import DType

WARMUP_NAME = "tf_serving_warmup_requests"
SUFFIX = ".tfrecord"
_DEFAULT_SIGNATURE = "serving_default"

# What an input of serialised examples is called where a request does not name it.
EXAMPLES = ""


class Request(NamedTuple):
    """One call.

    Args:
        signature: The signature's name; None where the inputs are tensors of the graph.
        inputs: Key to value; the key `EXAMPLES` stands for the only input of a signature that takes
            serialised examples.
        origin: Where the call came from, in words.
    """

    signature: str | None
    inputs: Mapping[str, Array]
    origin: str


# ---------------------------------------------------------------- reading


def read_requests(path: Path) -> list[Request]:
    """The calls of a file.

    Raises:
        StageFailed: It is damaged, or something else.
    """
    found: list[Request] = []
    for number, data in enumerate(_records(path)):
        where = f"{path}, record {number}"
        try:
            log = prediction_log().FromString(data)
        except DecodeError:
            raise StageFailed("is no PredictionLog message", where=where) from None
        if log.ByteSize() and not log.ListFields():
            raise StageFailed("is no PredictionLog that could be read", where=where)
        found += _requests(log, where, f"{path.name} {number}")
    return found


def _records(path: Path) -> Iterator[bytes]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StageFailed(f"cannot be read: {error.strerror}", where=str(path)) from None
    position = 0
    while position < len(data):
        length = _checked(data, position, 8, path)
        (size,) = struct.unpack("<Q", length)
        position += 12
        yield _checked(data, position, size, path)
        position += size + 4


def _checked(data: bytes, position: int, size: int, path: Path) -> bytes:
    piece = data[position : position + size]
    check = data[position + size : position + size + 4]
    if len(check) < 4 or struct.unpack("<I", check)[0] != masked(crc32c.crc32c(piece)):
        raise StageFailed(
            f"is cut or damaged at byte {position}: no TFRecord file",
            where=str(path),
            hint="Write it with tf.io.TFRecordWriter, without compression.",
        )
    return piece


def _requests(log: Any, where: str, origin: str) -> Iterator[Request]:
    kind = next((field.name for field, _ in log.ListFields()), None)
    if kind == "predict_log":
        yield _predict(log.predict_log.request, where, origin)
    elif kind == "predict_streamed_log":
        for request in log.predict_streamed_log.request:
            yield _predict(request, where, origin)
    elif kind in ("classify_log", "regress_log"):
        request = getattr(log, kind).request
        yield Request(_signature(request), {EXAMPLES: _examples(request.input)}, origin)
    elif kind == "multi_inference_log":
        request = log.multi_inference_log.request
        for task in request.tasks:
            yield Request(_signature(task), {EXAMPLES: _examples(request.input)}, origin)
    elif kind == "session_run_log":
        feeds = log.session_run_log.request.feed
        yield Request(None, {f.name: _array(f.tensor, f.name, where) for f in feeds}, origin)


def _predict(request: Any, where: str, origin: str) -> Request:
    inputs = {key: _array(request.inputs[key], key, where) for key in sorted(request.inputs)}
    return Request(_signature(request), inputs, request.model_spec.name or origin)


def _signature(request: Any) -> str:
    return request.model_spec.signature_name or _DEFAULT_SIGNATURE


def _examples(given: Any) -> Array:
    """Serialised examples; a common context is merged by writing it in front of each."""
    shared = given.example_list_with_context
    words = [*given.example_list.examples, *(shared.context + e for e in shared.examples)]
    return strings(words, (len(words),))


def _array(tensor: Any, key: str, where: str) -> Array:
    try:
        dtype = DType(tensor.dtype)
        shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
        kind = numpy_dtype(dtype)
        if tensor.tensor_content and dtype.item_bytes:
            return np.frombuffer(tensor.tensor_content, kind).reshape(shape)
        values = elements(tensor)
    except (ValueError, StageFailed) as error:
        raise StageFailed(f"input {key!r} cannot be read: {error}", where=where) from None
    if dtype is DType.STRING:
        return strings(values, shape)
    if dtype.name.startswith(("FLOAT8", "FLOAT4")):
        return np.array(values, np.uint8).view(kind).reshape(shape)
    return np.array(values, kind[0] if kind.names else kind).astype(kind).reshape(shape)


# ---------------------------------------------------------------- writing


def encode_requests(requests: Iterable[Request]) -> bytes:
    """A file of calls; equal calls give equal bytes."""
    return b"".join(_framed(_encoded(request)) for request in requests)


def _framed(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    checks = (struct.pack("<I", masked(crc32c.crc32c(piece))) for piece in (length, data))
    return length + next(checks) + data + next(checks)


def _encoded(request: Request) -> bytes:
    log = prediction_log()()
    predict = log.predict_log.request
    predict.model_spec.name = request.origin
    predict.model_spec.signature_name = request.signature or ""
    for key, array in request.inputs.items():
        predict.inputs[key].CopyFrom(_tensor(array))
    data: bytes = log.SerializeToString(deterministic=True)
    return data


def _tensor(array: Array) -> Any:
    tensor = message_class("TensorProto")(dtype=int(_dtype(array)))
    tensor.tensor_shape.SetInParent()
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    if array.dtype.kind in "OSU":
        tensor.string_val.extend(
            item if isinstance(item, bytes) else str(item).encode() for item in array.ravel()
        )
    else:
        tensor.tensor_content = array.tobytes()
    return tensor


def _dtype(array: Array) -> DType:
    if array.dtype.kind in "OSU":
        return DType.STRING
    return DType.from_tf_name(array.dtype.names[0] if array.dtype.names else array.dtype.name)
