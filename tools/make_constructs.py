#!/usr/bin/env python3
"""Writes docs/constructs.md: what four freezers do with one model for each construct.

    python tools/make_constructs.py        # takes some minutes; needs the `test` extra

The models are those of tests/constructs. Each freezer's graph is imported alone into a fresh session, its
initializers are run where the freezer names any, and its answers are compared with the SavedModel's own.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import pathlib
import sys
import tempfile
from importlib.metadata import version

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from freezeflow.graph.write import graph_def_bytes  # noqa: E402
from tests.constructs import harness, test_tf1, test_tf2, tf1_models, tf2_models  # noqa: E402

v1 = tf.compat.v1
SIGNATURE = "serving_default"


def tensor_name(tensor):
    return tensor if ":" in tensor else f"{tensor}:0"


def by_tf2(path, scratch):
    loaded = tf.saved_model.load(str(path))  # its variables live as long as it does
    call = loaded.signatures[SIGNATURE]
    frozen = convert_variables_to_constants_v2(call, lower_control_flow=False)
    keys = sorted(call.structured_outputs)
    outputs = {key: t.name for key, t in zip(keys, frozen.outputs, strict=True)}
    inputs = {t.name.partition(":")[0]: t.name for t in frozen.inputs}
    return frozen.graph.as_graph_def(), inputs, outputs, ()


def by_tf1(path, scratch):
    with tf.Graph().as_default() as graph, v1.Session() as session:
        meta_graph = v1.saved_model.loader.load(session, ["serve"], str(path))
        ends = meta_graph.signature_def[SIGNATURE]
        inputs = {key: info.name for key, info in ends.inputs.items()}
        outputs = {key: info.name for key, info in ends.outputs.items()}
        names = [name.partition(":")[0] for name in outputs.values()]
        graph_def = v1.graph_util.convert_variables_to_constants(
            session, graph.as_graph_def(), names
        )
    return graph_def, inputs, outputs, ()


def by_tf2onnx(path, scratch):
    from tf2onnx import tf_loader

    graph_def, inputs, outputs, renamed = tf_loader.from_saved_model(
        str(path), None, None, tag=["serve"], signatures=[SIGNATURE], return_tensors_to_rename=True
    )
    keys = {tensor: renamed.get(tensor, tensor.partition(":")[0]) for tensor in (*inputs, *outputs)}
    return graph_def, {keys[t]: t for t in inputs}, {keys[t]: t for t in outputs}, ()


def by_freezeflow(path, scratch):
    model = harness.freeze_model(harness.saved_model(path, signatures=(SIGNATURE,)), scratch)
    ends = model.signatures[SIGNATURE]
    return (
        v1.GraphDef.FromString(graph_def_bytes(model.graph)),
        {key: tensor_name(spec.tensor) for key, spec in ends.inputs.items()},
        {key: tensor_name(spec.tensor) for key, spec in ends.outputs.items()},
        model.init,
    )


FREEZERS = {
    "TF2 converter": by_tf2,
    "TF1 converter": by_tf1,
    "tf2onnx loader": by_tf2onnx,
    "freezeflow": by_freezeflow,
}


def run(graph_def, inputs, outputs, init, feeds):
    with tf.Graph().as_default() as graph, v1.Session(config=harness.exact_config()) as session:
        tf.import_graph_def(graph_def, name="")
        for name in init:
            session.run(graph.get_operation_by_name(name))
        fed = {inputs[key]: value for key, value in feeds.items() if key in inputs}
        return session.run(outputs, fed)


def is_right(want, have):
    if set(want) != set(have):
        return False
    for key, value in want.items():
        a, b = np.asarray(value), np.asarray(have[key])
        if a.shape != b.shape or a.dtype != b.dtype:
            return False
        same = a.tolist() == b.tolist() if a.dtype == object else a.tobytes() == b.tobytes()
        if not same and not (
            a.dtype.kind in "fc" and np.allclose(a, b, rtol=1e-5, atol=1e-6, equal_nan=True)
        ):
            return False
    return True


def outcome(freezer, path, scratch, feeds, want):
    """What comes of a model; whatever a freezer raises is an answer here."""
    try:
        frozen = freezer(path, scratch)
    except Exception as error:  # noqa: BLE001
        return f"fails: {type(error).__name__}"
    try:
        have = run(*frozen, feeds)
    except Exception:  # noqa: BLE001
        return "**written, cannot run**"
    return "right" if is_right(want, have) else "**written, wrong**"


def cases(folder):
    """Name, path, feeds, and the original's answers of each model."""
    for make in tf2_models.MODELS:
        path = folder / make.__name__
        try:
            (model, function), feeds = make()
            test_tf2.save(model, function, path)
            want = harness.run_original(path, SIGNATURE, feeds)
        except (AttributeError, TypeError):
            continue  # composite ends, which the other freezers do not name
        yield f"TF2: {words(make)}", path, feeds, want
    for make in tf1_models.MODELS:
        for resource in (False, True):
            kind = "resource" if resource else "ref"
            path = folder / f"{make.__name__}_{kind}"
            test_tf1.saved(make, resource, path)
            with tf.Graph().as_default():
                inputs, _ = make(resource)
            feeds = tf1_models.feeds_for(inputs)
            want = harness.run_original_v1(path, SIGNATURE, feeds)
            yield f"TF1, {kind}: {words(make)}", path, feeds, want


def words(make):
    return make.__name__.replace("_", " ")


def main():
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    rows, right = [], dict.fromkeys(FREEZERS, 0)
    with tempfile.TemporaryDirectory() as folder:
        for name, path, feeds, want in cases(pathlib.Path(folder)):
            found = [outcome(f, path, folder, feeds, want) for f in FREEZERS.values()]
            for freezer, result in zip(FREEZERS, found, strict=True):
                right[freezer] += result == "right"
            rows.append(f"| {name} | {' | '.join(found)} |")
            print(rows[-1], flush=True)
    head = f"| construct | {' | '.join(FREEZERS)} |\n|{'---|' * (len(FREEZERS) + 1)}"
    totals = f"| right, of {len(rows)} | {' | '.join(map(str, right.values()))} |"
    text = f"""# Construct by construct

What comes of one small model for each construct: with `convert_variables_to_constants_v2` (the TF2
converter, control flow kept functional), `convert_variables_to_constants` (the TF1 converter, in a session
of the loaded SavedModel), the loader of tf2onnx, and freezeflow. *Right* is: the graph, imported alone,
answers as the SavedModel does. Made by `python tools/make_constructs.py` with TensorFlow
{tf.__version__} and tf2onnx {version("tf2onnx")}; the models are those of `tests/constructs`, where
freezeflow's answers are compared to the byte.

{head}
{chr(10).join([*rows, totals])}
"""
    (ROOT / "docs/constructs.md").write_text(text)


if __name__ == "__main__":
    main()
