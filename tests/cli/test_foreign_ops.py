"""Ops of another library, remote calls, the data service: well-formed, refused where they would run."""

import json
import subprocess
from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_library

from tests.cli.conftest import COMMAND

v1 = tf.compat.v1

pytestmark = pytest.mark.slow

RECIPE = """\
version: 1
name: {name}
model: {{{source}}}
stages:
  - load
  - freeze
  - strip
  - fold
  - {{id: graph, export: "build/{name}.pb", needs: fold}}
  - {{id: saved, export: {{format: saved_model, to: "build/{name}"}}, needs: fold}}
  - {{id: checked, export: {{format: frozen_graph, to: "build/c.pb", check: true}}, needs: fold}}
  - {{id: grappler, grappler: [constfold], needs: fold}}
  - {{id: validate, validate: {{samples: 1}}, needs: fold}}
  - {{id: allowed, validate: {{samples: 1, allow_ops: {{{allowed}}}}}, needs: fold}}
  - {{id: tflite, export: {{format: tflite, to: "build/{name}.tflite"}}, needs: fold}}
  - {{id: onnx, export: {{format: onnx, to: "build/{name}.onnx"}}, needs: fold}}
  - {{id: openvino, export: {{format: openvino, to: "build/{name}.xml"}}, needs: fold}}
  - {{id: stablehlo, export: {{format: stablehlo, to: "build/{name}.mlirbc", batch: 2}}, needs: fold}}
"""

OPS = {
    "custom": ["MyTanh"],
    "service": ["DataServiceDatasetV4", "DummyIterationCounter", "UncompressElement"],
    "remote": ["RpcCall", "RpcClient", "RpcGetValue"],
}

# What a validation says that may run them.
ALLOWED = {
    "custom": f"TensorFlow {tf.__version__} does not have the ops of the model",
    "service": "was ended after 60 seconds",
    "remote": "the original refuses every input that was tried",
}


def save(compute, path):
    module = tf.Module()
    spec = tf.TensorSpec([None], tf.float32, name="x")
    module.call = tf.function(compute, input_signature=[spec])
    tf.saved_model.save(module, str(path), signatures=module.call)
    return f"saved_model: {path.name}"


def custom(folder, defined=True):
    """A model with an op of a library that is not here; a SavedModel brings its definition along."""
    source = save(lambda x: {"y": tf.tanh(x) * 2.0}, folder / "model")
    file = folder / "model" / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    (meta_graph,) = saved.meta_graphs
    for function in meta_graph.graph_def.library.function:
        for node in function.node_def:
            if node.op == "Tanh":
                node.op = "MyTanh"
                node.attr["strength"].f = 0.5
    if defined:
        definition = meta_graph.meta_info_def.stripped_op_list.op.add(name="MyTanh")
        definition.input_arg.add(name="x", type_attr="T")
        definition.output_arg.add(name="y", type_attr="T")
        definition.attr.add(name="T", type="type")
        definition.attr.add(name="strength", type="float")
    file.write_bytes(saved.SerializeToString())
    return source


def service(folder):
    def compute(x):
        numbers = tf.data.experimental.service.from_dataset_id(
            *("parallel_epochs", "grpc://localhost:1", tf.constant("7")),
            element_spec=tf.TensorSpec([], tf.float32),
        )
        return {"y": x + numbers.reduce(0.0, tf.add)}

    return save(compute, folder / "model")


def remote(folder):
    make = op_def_library.apply_op
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None], name="x")
        wait = tf.constant(10, tf.int64)
        address = tf.constant("localhost:1")
        named = {"shared_name": "", "list_registered_methods": False}
        client, _ = make("RpcClient", server_address=address, timeout_in_ms=wait, **named)
        answer, _ = make(
            "RpcCall", client=client, method_name=tf.constant("f"), args=[x], timeout_in_ms=wait
        )
        (y,) = make("RpcGetValue", status_or=answer, Tout=[tf.float32])
        tf.identity(y, name="y")
    (folder / "model.pb").write_bytes(graph.as_graph_def().SerializeToString())
    return "frozen_graph: model.pb, inputs: [x], outputs: [y]"


def ended(make, folder, allowed=()):
    """The steps of a run by their ids, and what it said on standard error."""
    (folder / "pyproject.toml").touch()
    source = make(folder)
    text = RECIPE.format(
        name="m", source=source, allowed=", ".join(f"{op}: it is ours" for op in allowed)
    )
    (folder / "m.yaml").write_text(text)
    words = ["run", "m.yaml", "--keep-going", "--json", "--step-timeout", "60s"]
    done = subprocess.run(
        [COMMAND, *words], cwd=folder, capture_output=True, text=True, timeout=280, check=False
    )
    (plan,) = json.loads(done.stdout)["plans"]
    return {step["id"]: step for step in plan["steps"]}, done.stderr


@pytest.mark.parametrize("make", [custom, service, remote], ids=lambda make: make.__name__)
def test_they_are_frozen_and_refused_where_they_would_run(make, tmp_path):
    ops = OPS[make.__name__]
    steps, told = ended(make, tmp_path, ops)
    assert "This is a bug" not in told and "Traceback" not in told
    failed = {name: step["error"] for name, step in steps.items() if step.get("error")}
    assert failed.keys() == steps.keys() - {"load", "freeze", "strip", "fold", "graph", "saved"}
    for name in ("checked", "grappler", "validate"):
        message = failed[name]["message"]
        assert message.endswith("not known to be harmless: " + ", ".join(ops)), name
    assert failed["allowed"]["message"].startswith(ALLOWED[make.__name__])
    for name in ("tflite", "onnx", "openvino", "stablehlo"):
        assert f"does not take {ops[0]} (" in failed[name]["message"], name
    built = {path.name for path in (tmp_path / "build").iterdir()}
    assert built == {"m", "m.pb", "m.manifest.json"}
    graph = v1.GraphDef.FromString(Path(tmp_path, "build", "m.pb").read_bytes())
    assert ops[0] in {node.op for node in graph.node}


def test_an_op_that_nobody_defines_is_refused_at_once(tmp_path):
    steps, told = ended(lambda folder: custom(folder, defined=False), tmp_path)
    assert "neither TensorFlow nor the model defines it" in steps["load"]["error"]["message"]
    assert "This is a bug" not in told
    assert not (tmp_path / "build").exists()
