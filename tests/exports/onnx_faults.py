"""ONNX files with one fault each, and whether the check of the export finds it with its default tolerance.

``python -m tests.exports.onnx_faults FOLDER`` builds the models in FOLDER, and prints a JSON list of
``{"model", "fault", "found", "sway", "message"}``: ``fault`` is empty for the file as it is converted;
``sway`` says that it passed only because the original's own answers move.
"""

import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"

import numpy as np
import onnx
import tensorflow as tf
from onnx import helper, numpy_helper

from freezeflow.engine.context import StepContext
from freezeflow.engine.orders import Limits
from freezeflow.errors import ValidationFailed
from freezeflow.exports import onnx as format_onnx
from freezeflow.exports.converted import Converted
from freezeflow.runtimes.runtime import FLOAT32
from freezeflow.stages import export, freeze, load, strip
from freezeflow.stages.stage import StageInput
from freezeflow.values import ModelSource

# ---------------------------------------------------------------- models


def _keras(layers):
    def build(folder):
        import keras

        keras.utils.set_random_seed(11)
        model = layers(keras.layers, keras)
        made = np.random.default_rng(11)
        # Biases and statistics of untrained networks are zeros and ones, which hides what is done to them.
        fresh = [
            w + np.abs(made.normal(0.0, 0.3, w.shape)).astype(w.dtype) for w in model.get_weights()
        ]
        model.set_weights(fresh)
        model.export(str(folder), verbose=False)

    return build


def _images(layers, keras):
    x = layers.Input((8, 8, 3), name="x")
    y = layers.BatchNormalization()(x)
    y = layers.Conv2D(4, 3, activation="relu")(y)
    y = layers.BatchNormalization()(layers.MaxPool2D()(y))
    y = layers.GlobalAveragePooling2D()(y)
    return keras.Model(x, {"a": layers.Dense(3)(y), "b": layers.Dense(3, activation="softmax")(y)})


def _dense(layers, keras):
    return keras.Sequential(
        [layers.Input((4,), name="x"), layers.Dense(4, activation="tanh"), layers.Dense(4)]
    )


def _attention(layers, keras):
    x = layers.Input((6, 8), name="x")
    y = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 4)(x, x))
    return keras.Model(x, layers.Dense(8)(layers.LayerNormalization()(y)))


def _recurrent(layers, keras):
    return keras.Sequential([layers.Input((5, 4), name="x"), layers.LSTM(4), layers.Dense(4)])


def _plain(serve, spec):
    def build(folder):
        module = tf.Module()
        module.serve = tf.function(serve, input_signature=[tf.TensorSpec(spec, name="x")])
        tf.saved_model.save(module, str(folder), signatures=module.serve)

    return build


def _weights(*shape):
    return np.random.default_rng(3).normal(0.5, 0.5, shape).astype(np.float32)


def _steep(x):
    """A cosine of large sums, that sees their last places."""
    y = tf.matmul(x, _weights(16, 16)) + _weights(16)
    return {"y": tf.cos(20.0 * tf.reduce_sum(tf.square(y[:, 1:]), axis=1))}


def _next_to_nothing(x):
    """A norm over numbers that hardly differ."""
    y = tf.matmul(1.0 + 1e-4 * x, _weights(16, 16) * 0.01 + np.eye(16, dtype=np.float32))
    mean, variance = tf.nn.moments(y, [1], keepdims=True)
    return {"y": (y - mean) * tf.math.rsqrt(variance + 1e-3) * 4.0 + _weights(16)}


def _beside_each_other(x):
    """One output whose first element moves much, and whose others do not."""
    y = tf.matmul(x, _weights(16, 16)) + _weights(16)
    steep = tf.cos(20.0 * tf.reduce_sum(tf.square(y), axis=1, keepdims=True))
    return {"y": tf.concat([steep, tf.matmul(y[:, 2:], _weights(14, 14)) * 1e-3 + 1e-3], axis=1)}


def _two_outputs(x):
    y = tf.matmul(x, _weights(16, 16)) + _weights(16)
    return {"steep": tf.sin(30.0 * tf.reduce_sum(tf.square(y), 1)), "flat": tf.reduce_mean(y, 1)}


def _norm(x):
    norm = tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=_weights(3),
        offset=_weights(3),
        mean=_weights(3),
        variance=np.abs(_weights(3)) * 1e-2,
        epsilon=1e-3,
        is_training=False,
    )
    return {"y": norm.y[:, 1:], "mean": tf.reduce_mean(norm.y, [1, 2])}


MODELS = {
    "norm": _plain(_norm, [4, 5, 5, 3]),
    "images": _keras(_images),
    "dense": _keras(_dense),
    "attention": _keras(_attention),
    "recurrent": _keras(_recurrent),
    "steep": _plain(_steep, [8, 16]),
    "next to nothing": _plain(_next_to_nothing, [8, 16]),
    "beside each other": _plain(_beside_each_other, [8, 16]),
    "two outputs": _plain(_two_outputs, [8, 16]),
}

# ---------------------------------------------------------------- faults


def _copy(proto):
    return type(proto).FromString(proto.SerializeToString())


def _set(proto, name, array):
    """The model with other contents of an initializer."""
    made = _copy(proto)
    for tensor in made.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))
    return made


def _arrays(proto):
    return {each.name: numpy_helper.to_array(each) for each in proto.graph.initializer}


def swapped_outputs(proto):
    if len(proto.graph.output) < 2:
        return
    made = _copy(proto)
    one, other = (each.name for each in made.graph.output[:2])
    swap = {one: other, other: one}
    for node in made.graph.node:
        for field in (node.input, node.output):
            field[:] = [swap.get(name, name) for name in field]
    yield made


def _weights_of(proto, *, least, most):
    """Fractions of so many dimensions, by name."""
    return {
        name: array
        for name, array in _arrays(proto).items()
        if array.dtype == np.float32 and least <= array.ndim <= most
    }


def dropped_bias(proto):
    arrays = _weights_of(proto, least=1, most=1)
    for node in proto.graph.node:
        for name in node.input:
            if node.op_type in ("Add", "Conv", "Gemm") and name in arrays and arrays[name].any():
                yield _set(proto, name, np.zeros_like(arrays[name]))


def transposed_kernel(proto):
    for name, array in _weights_of(proto, least=2, most=4).items():
        if array.shape[-1] == array.shape[-2] > 1:
            yield _set(proto, name, np.swapaxes(array, -1, -2))


def norm_in_training_mode(proto):
    for place, node in enumerate(proto.graph.node):
        if node.op_type == "BatchNormalization":
            made = _copy(proto)
            changed = made.graph.node[place]
            changed.output.extend(["running_mean", "running_variance"])
            changed.attribute.append(helper.make_attribute("training_mode", 1))
            yield made


def off_by_one(proto):
    arrays = _arrays(proto)
    for node in proto.graph.node:
        if node.op_type in ("Slice", "Gather") and node.input[1] in arrays:
            array = arrays[node.input[1]]
            wrong = array.reshape(-1).copy()
            wrong[-1] = wrong[-1] + 1 if wrong[-1] < 1 else wrong[-1] - 1
            yield _set(proto, node.input[1], wrong.reshape(array.shape))


def wrong_epsilon(proto):
    for place, node in enumerate(proto.graph.node):
        for number, attribute in enumerate(node.attribute):
            if attribute.name == "epsilon" and abs(attribute.f - 1e-3) < 1e-8:
                made = _copy(proto)
                made.graph.node[place].attribute[number].f = 1e-5
                yield made
    for name, array in _arrays(proto).items():
        if array.dtype == np.float32 and array.size == 1 and abs(array.item() - 1e-3) < 1e-8:
            yield _set(proto, name, np.full_like(array, 1e-5))


def one_weight(proto):
    """One weight in the largest tensor is a hundredth larger."""
    floats = _weights_of(proto, least=1, most=4)
    name = max(floats, key=lambda each: (floats[each].size, each))
    wrong = floats[name].copy()
    wrong.reshape(-1)[np.argmax(np.abs(wrong))] *= 1.01
    yield _set(proto, name, wrong)


FAULTS = (
    swapped_outputs,
    dropped_bias,
    transposed_kernel,
    norm_in_training_mode,
    off_by_one,
    wrong_epsilon,
    one_weight,
)

# ---------------------------------------------------------------- exports


@contextlib.contextmanager
def converting(convert):
    """The format has this in place of its converter."""
    honest = format_onnx._CONVERTER.convert
    object.__setattr__(format_onnx._CONVERTER, "convert", convert)
    yield
    object.__setattr__(format_onnx._CONVERTER, "convert", honest)


def exported(source, convert):
    """What the export says: its verdict's outputs, or the message of the failed check."""
    with tempfile.TemporaryDirectory() as scratch, converting(convert):
        context = StepContext(Path.cwd(), Path(scratch), None, sys.stderr, Limits())
        model = None
        for stage in (load.STAGE, freeze.STAGE, strip.STAGE):
            model = stage.run(StageInput(model=model, source=source), stage.params(), context).model
        params = export.params_of("onnx")(to=f"{scratch}/m.onnx", format="onnx")
        try:
            given = StageInput(model=model, source=source)
            facts = export.STAGE.run(given, params, context).facts
        except ValidationFailed as error:
            return None, error.message
        return facts["check"]["outputs"], ""


def judged(name, folder):
    """Every fault of a model, and the file without any first."""
    source = ModelSource(kind="saved_model", path=folder)
    honest = format_onnx._CONVERTER.convert
    kept = []

    def keeping(request, made):
        done = honest(request, made)
        kept.append(onnx.load(made.folder / done.main))
        return done

    yield _row(name, "", exported(source, keeping))
    for fault in FAULTS:
        for proto in fault(kept[0]):

            def damaged(request, made, proto=proto):
                (made.folder / request.to.name).write_bytes(proto.SerializeToString())
                return Converted(main=request.to.name, names=made.keys, precision=FLOAT32, facts={})

            yield _row(name, fault.__name__, exported(source, damaged))


def _row(model, fault, found):
    outputs, message = found
    sways = outputs is not None and any("sway" in each for each in outputs.values())
    return {
        "model": model,
        "fault": fault,
        "found": outputs is None,
        "sway": sways,
        "message": message,
    }


def built(folder):
    """Folders with the models, built in a process of its own: this one may not run an op."""
    if os.fork() == 0:
        code = 1
        with contextlib.suppress(Exception):
            for name, build in MODELS.items():
                build(folder / name)
            code = 0
        os._exit(code)
    _, status = os.wait()
    assert status == 0
    return {name: folder / name for name in MODELS}


if __name__ == "__main__":
    rows = [row for each in built(Path(sys.argv[1])).items() for row in judged(*each)]
    sys.stdout.write(json.dumps(rows, indent=1) + "\n")
