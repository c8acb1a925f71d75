"""What we write opens as a plain GraphDef: in TensorFlow's own messages, and in netron's reader."""

import contextlib
import importlib.util
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import tensorflow as tf
from google.protobuf import text_format

from freezeflow.engine.cached import cached_action
from freezeflow.store.store import Store
from tests.exports.running import Branches

SCRIPT = Path(__file__).with_name("netron_reads.mjs")
STEPS = ("load", "freeze", "strip", "fold")


class Looping(tf.Module):
    """Functions in functions, a weight in a loop, and one that is large enough to lie elsewhere."""

    def __init__(self):
        super().__init__()
        self.weight = tf.Variable(tf.reshape(tf.range(10000.0), [100, 100]) / 1e4)

    @tf.function(input_signature=[tf.TensorSpec([None, 100], tf.float32, name="x")])
    def serve(self, x):
        step = tf.function(lambda value: tf.nn.relu(value @ self.weight))
        ends = tf.while_loop(lambda i, v: i < 3, lambda i, v: (i + 1, step(v)), (0, x))
        return {"y": tf.cond(tf.reduce_sum(x) > 0, lambda: ends[1], lambda: -ends[1])}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Name to a graph file that we wrote: exports, and the cached skeleton of every step."""
    folder = tmp_path_factory.mktemp("viewers")
    model = Looping()
    tf.saved_model.save(model, str(folder / "model"), signatures=model.serve)
    exports = {
        "binary": {"to": "m.pb"},
        "text": {"to": "m.pbtxt"},
        "outside": {"to": "outside.pb", "weights": "external"},
    }
    ran = Branches(folder, exports, model=folder / "model", jobs=1, before=STEPS[1:])
    found = {name: ran.published(name)[0] for name in exports}
    with contextlib.closing(Store.open(folder / "cache")) as store:
        for step in STEPS:
            graph = cached_action(ran.plan, step, store).outputs.graph
            # Viewers go by the ending.
            found[step] = folder / f"{step}.pb"
            shutil.copy(store.blobs.path(graph), found[step])
    return found


def parsed(path):
    if path.suffix == ".pbtxt":
        return text_format.Parse(path.read_text(), tf.compat.v1.GraphDef())
    return tf.compat.v1.GraphDef.FromString(path.read_bytes())


def ops(graph):
    bodies = [graph.node, *(function.node_def for function in graph.library.function)]
    return {node.op for body in bodies for node in body}


def test_each_is_a_message_of_tensorflow_and_nothing_else(files):
    for name, path in files.items():
        graph = parsed(path)
        assert "MatMul" in ops(graph), name
        size = graph.ByteSize()
        graph.DiscardUnknownFields()
        assert graph.ByteSize() == size, name


def test_a_cached_graph_has_weights_by_digest_and_everything_else(files):
    skeleton, whole = parsed(files["fold"]), parsed(files["binary"])
    assert [(node.name, node.op) for node in skeleton.node] == [
        (node.name, node.op) for node in whole.node
    ]
    assert files["fold"].stat().st_size < 10000 < 40000 < files["binary"].stat().st_size


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not here")
def test_netron_reads_each(files):
    netron = importlib.util.find_spec("netron")
    if netron is None:
        pytest.skip("netron is not installed")
    command = ["node", SCRIPT, *netron.submodule_search_locations, *files.values()]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
    for (name, path), told in zip(files.items(), json.loads(done.stdout), strict=True):
        assert told["format"].startswith("TensorFlow Graph"), name
        assert "MatMul" in told["ops"], name
        # Constants and such are drawn as arguments of what they belong to.
        assert set(told["ops"]) <= ops(parsed(path)) | {"Placeholder"}, name
