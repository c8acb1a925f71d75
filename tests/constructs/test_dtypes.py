"""Every dtype that TensorFlow has, from variables and constants of four shapes, by every route."""

from __future__ import annotations

import contextlib
import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2

import freezeflow
from freezeflow.exports.registry import format_named
from freezeflow.graph.canonical import canonical
from freezeflow.graph.graph import node_of
from freezeflow.stages.fold import STAGE as FOLD
from freezeflow.stages.fold import Params as FoldParams
from freezeflow.stages.stage import StageInput
from freezeflow.tf.sessions import exact_config
from freezeflow.values import DType, ModelSource
from tests.constructs import harness
from tests.exports.models import asked
from tests.tf.built import FakeContext

v1 = tf.compat.v1


def known_dtypes():
    """All that hold values; those that came after the installed TensorFlow are left out."""
    for dtype in set(DType) - {DType.INVALID, DType.RESOURCE, DType.VARIANT}:
        with contextlib.suppress(TypeError):
            yield tf.as_dtype(int(dtype))


DTYPES = sorted(known_dtypes(), key=lambda dtype: dtype.as_datatype_enum)
# What TensorFlow has no kernels for: to assign a variable at all, to assign a TF1 reference, and to
# write a V1 checkpoint.
NO_VARIABLE = {"qint16", "quint16", "float8_e4m3fnuz", "float8_e4m3b11fnuz", "float8_e5m2fnuz"}
_SMALL = {"float8_e5m2", "float8_e4m3fn", "int4", "uint4", "int2", "uint2", "float4_e2m1fn"}
NO_REFERENCE = NO_VARIABLE | _SMALL
NOT_IN_V1 = _SMALL | {"bfloat16", "uint32", "uint64"}

SHAPES = {"small": (2, 2), "large": (40, 50), "scalar": (), "empty": (0, 3)}
SMALL_BITS = {"bool": 1, "int4": 15, "uint4": 15, "int2": 3, "uint2": 3, "float4_e2m1fn": 15}
X = np.float32(1.0)


def values(dtype, shape):
    """Any bits that a tensor of the dtype may have; among them NaN of many kinds."""
    count = int(np.prod(shape))
    if dtype == tf.string:
        texts = [b"\x00\xff\n" * (i % 70) for i in range(count)]
        return np.array(texts, object).reshape(shape)
    kind = np.dtype(dtype.as_numpy_dtype)
    bits = np.random.default_rng(3).integers(0, 256, (count, kind.itemsize), np.uint8)
    bits &= SMALL_BITS.get(dtype.name, 255)
    if dtype.name in ("int4", "int2"):  # the upper bits of the byte repeat the sign
        sign = SMALL_BITS[dtype.name] // 2 + 1
        bits = (bits ^ sign) - np.uint8(sign)
    return bits.reshape(-1).view(kind).reshape(shape)


def constant(dtype, shape):
    """A Const node; TensorFlow's Python helpers do not know all dtypes, its runtime does."""
    value = values(dtype, shape)
    if dtype == tf.string:
        return tf.constant(value)
    proto = tf.make_tensor_proto(np.zeros(0, np.int8))
    proto.dtype, proto.tensor_content = dtype.as_datatype_enum, value.tobytes()
    proto.tensor_shape.CopyFrom(tf.TensorShape(shape).as_proto())
    given = {
        "value": attr_value_pb2.AttrValue(tensor=proto),
        "dtype": attr_value_pb2.AttrValue(type=dtype.as_datatype_enum),
    }
    return v1.get_default_graph().create_op("Const", [], [dtype], attrs=given).outputs[0]


class EveryDtype(tf.Module):
    def __init__(self):
        super().__init__()
        self.held = {
            f"{d.name}_{name}": tf.Variable(tf.constant(values(d, shape), d))
            for d in DTYPES
            if d.name not in NO_VARIABLE
            for name, shape in SHAPES.items()
        }

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32, name="x")])
    def serve(self, x):
        found = {f"v_{name}": tf.identity(held) for name, held in self.held.items()}
        found |= {
            f"c_{d.name}_{name}": tf.identity(constant(d, shape))
            for d in DTYPES
            for name, shape in SHAPES.items()
        }
        return {**found, "x_": x}


def run_file(path, model, feeds):
    """What a written graph gives, by TensorFlow."""
    graph_def = freezeflow.load_graph(path)
    signature = model.signatures["serving_default"]
    with tf.Graph().as_default():
        tf.import_graph_def(graph_def, name="")
        with v1.Session(config=exact_config()) as session:
            fetches = {key: f"{node_of(s.tensor)}:0" for key, s in signature.outputs.items()}
            tensors = {f"{signature.inputs[k].tensor}:0": value for k, value in feeds.items()}
            return session.run(fetches, tensors)


def test_tf2_saved_model_by_every_route(tmp_path):
    path, feeds = tmp_path / "model", {"x": X}
    model = EveryDtype()
    tf.saved_model.save(model, str(path), signatures=model.serve)
    want = harness.run_original_v1(path, "serving_default", feeds)
    frozen = harness.freeze_model(harness.saved_model(path), tmp_path)
    assert not [n for n in frozen.graph.nodes.values() if n.op == "VarHandleOp"]
    harness.assert_same(want, harness.run_frozen(frozen, "serving_default", feeds))

    (tmp_path / "kept").mkdir()
    given = StageInput(model=frozen, source=None)
    folded = FOLD.run(given, FoldParams(), FakeContext(tmp_path / "kept")).model
    harness.assert_same(want, harness.run_frozen(folded, "serving_default", feeds))

    graph_format, folder_format = format_named("frozen_graph"), format_named("saved_model")
    made = canonical(folded)
    for name, more in (("in.pb", {}), ("in.pbtxt", {}), ("out.pb", {"weights": "external"})):
        params = dataclasses.replace(graph_format.params(), **more)
        graph_format.write(asked(made, tmp_path / name, params=params))
        harness.assert_same(want, run_file(tmp_path / name, made, feeds))
    folder_format.write(asked(made, tmp_path / "again", params=folder_format.params()))
    again = harness.run_original_v1(tmp_path / "again", "serving_default", feeds)
    harness.assert_same(want, again)


def written_by_saver(folder, version, resource, dtypes):
    """A TF1 checkpoint with its meta graph; returns its variables' outputs and their values."""
    with tf.Graph().as_default():
        outputs = {}
        for d in dtypes:
            for name, shape in SHAPES.items():
                label = f"{d.name}_{name}"
                held = v1.get_variable(label, initializer=constant(d, shape), use_resource=resource)
                outputs[f"o_{label}"] = tf.identity(held, name=f"o_{label}")
        with v1.Session(config=exact_config()) as session:
            session.run(v1.global_variables_initializer())
            v1.train.Saver(write_version=version).save(session, str(folder / "model.ckpt"))
            return session.run(outputs)


@pytest.mark.parametrize("resource", [False, True], ids=["ref", "resource"])
@pytest.mark.parametrize("version", [v1.train.SaverDef.V1, v1.train.SaverDef.V2], ids=["V1", "V2"])
def test_tf1_checkpoint(version, resource, tmp_path):
    left_out = NO_VARIABLE if resource else NO_REFERENCE
    if version == v1.train.SaverDef.V1:
        left_out = left_out | NOT_IN_V1
    dtypes = [d for d in DTYPES if d.name not in left_out]
    want = written_by_saver(tmp_path, version, resource, dtypes)
    prefix = tmp_path / "model.ckpt"
    source = ModelSource(kind="checkpoint", path=prefix, outputs=tuple(want))
    frozen = harness.freeze_model(source, tmp_path)
    harness.assert_same(want, harness.run_frozen(frozen, "serving_default", {}))
