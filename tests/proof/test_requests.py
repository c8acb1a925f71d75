"""Requests in TensorFlow Serving's log format: what is written is read, damage is told."""

import struct

import crc32c
import numpy as np
import pytest
import tensorflow as tf

from freezeflow.checkpoint.coding import masked
from freezeflow.errors import StageFailed
from freezeflow.messages import message_class
from freezeflow.proof.compare import same_bytes
from freezeflow.proof.edges import edge_inputs
from freezeflow.proof.requests import EXAMPLES, Request, encode_requests, read_requests
from freezeflow.proof.serving import prediction_log
from freezeflow.values import DType
from tests.proof.ends import signature
from tests.proof.test_dtypes import FED


@pytest.fixture
def file(tmp_path):
    return tmp_path / "calls.tfrecord"


@pytest.mark.parametrize("dtype", FED, ids=lambda dtype: dtype.tf_name)
def test_every_dtype_comes_back_to_the_byte(file, dtype):
    ends = signature(x=(dtype, (None, 2)))
    requests = [
        Request("serve", inputs, name) for name, inputs in edge_inputs(ends, {}, seed=0, size=2)
    ]
    file.write_bytes(encode_requests(requests))
    found = read_requests(file)
    for before, after in zip(requests, found, strict=True):
        assert (before.signature, before.origin) == (after.signature, after.origin)
        assert same_bytes(before.inputs["x"], after.inputs["x"])
    assert encode_requests(found) == file.read_bytes()


def test_tensorflow_reads_what_is_written(file):
    """The records by its own reader, the tensors by its own messages."""
    array = np.float32([[1, 2], [3, 4]])
    file.write_bytes(encode_requests([Request("serve", {"x": array}, "a test")]))
    (record,) = list(tf.data.TFRecordDataset(str(file)))
    log = prediction_log().FromString(record.numpy())
    tensor = log.predict_log.request.inputs["x"].SerializeToString()
    parsed = tf.make_ndarray(tf.compat.v1.make_tensor_proto(0.0).FromString(tensor))
    assert same_bytes(parsed, array)


def write(file, *logs):
    with tf.io.TFRecordWriter(str(file)) as writer:
        for log in logs:
            writer.write(log.SerializeToString())


def tensor(value):
    """A TensorProto as TensorFlow makes it, values listed one by one."""
    made = tf.make_tensor_proto(value).SerializeToString()
    return message_class("TensorProto").FromString(made)


def test_every_kind_of_request(file):
    predict, classify, streamed, session, several = (prediction_log()() for _ in range(5))
    predict.predict_log.request.inputs["x"].CopyFrom(tensor([1.0, 2.0]))
    classify.classify_log.request.model_spec.signature_name = "classify"
    classify.classify_log.request.input.example_list.examples.extend([b"one", b"two"])
    for value in (1, 2):
        streamed.predict_streamed_log.request.add().inputs["n"].CopyFrom(tensor(value))
    feed = session.session_run_log.request.feed.add(name="in:0")
    feed.tensor.CopyFrom(tensor([b"a", b"b"]))
    several.multi_inference_log.request.tasks.add().model_spec.signature_name = "regress"
    shared = several.multi_inference_log.request.input.example_list_with_context
    shared.context = b"<context>"
    shared.examples.extend([b"<one>"])
    write(file, predict, classify, streamed, session, several)
    found = read_requests(file)
    assert [request.signature for request in found] == [
        "serving_default", "classify", "serving_default", "serving_default", None, "regress",
    ]  # fmt: skip
    assert found[0].inputs["x"].tolist() == [1.0, 2.0]
    assert found[1].inputs[EXAMPLES].tolist() == [b"one", b"two"]
    assert [found[index].inputs["n"].item() for index in (2, 3)] == [1, 2]
    assert found[4].inputs["in:0"].tolist() == [b"a", b"b"]
    assert found[5].inputs[EXAMPLES].tolist() == [b"<context><one>"]


@pytest.mark.parametrize("position", [0, 9, 20, -1])
def test_a_flipped_bit_is_told(file, position):
    data = bytearray(encode_requests([Request("serve", {"x": np.zeros(3)}, "")]))
    data[position] ^= 4
    file.write_bytes(data)
    with pytest.raises(StageFailed, match="cut or damaged"):
        read_requests(file)


@pytest.mark.parametrize("length", [5, 11, 30])
def test_a_cut_is_told(file, length):
    file.write_bytes(encode_requests([Request("serve", {"x": np.zeros(3)}, "")])[:length])
    with pytest.raises(StageFailed, match="cut or damaged"):
        read_requests(file)


def test_a_tensor_that_is_none_is_told(file):
    log = prediction_log()()
    log.predict_log.request.inputs["x"].dtype = int(DType.RESOURCE)
    write(file, log)
    with pytest.raises(StageFailed, match="'x' cannot be read") as caught:
        read_requests(file)
    assert "record 0" in caught.value.where
    log.predict_log.request.inputs["x"].dtype = int(DType.FLOAT)
    log.predict_log.request.inputs["x"].tensor_shape.dim.add(size=3)
    log.predict_log.request.inputs["x"].tensor_content = b"1234"
    write(file, log)
    with pytest.raises(StageFailed, match="'x' cannot be read"):
        read_requests(file)


def test_records_of_something_else_are_told(file):
    length = struct.pack("<Q", 3)
    check = [struct.pack("<I", masked(crc32c.crc32c(part))) for part in (length, b"\xff\xff\xff")]
    file.write_bytes(length + check[0] + b"\xff\xff\xff" + check[1])
    with pytest.raises(StageFailed, match="no PredictionLog"):
        read_requests(file)
