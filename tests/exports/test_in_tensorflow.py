"""What is written loads into TensorFlow and gives the same bytes as the graph that it came from."""

import json

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from freezeflow.exports.registry import format_named
from freezeflow.graph import verify
from freezeflow.graph.canonical import canonical
from freezeflow.graph.strip import strip
from freezeflow.tf.sessions import exact_config
from tests.exports.models import asked, dense, lookup, with_asset
from tests.tf.built import assert_same, model_of, run

v1 = tf.compat.v1
RANDOM = np.random.default_rng(11)
X = RANDOM.standard_normal((3, 8)).astype(np.float32)


@tf.function
def twice(x):
    tf.debugging.assert_all_finite(x, "not finite")
    return x + tf.nn.relu(x)


def functional(x):
    """Calls, a loop, a branch, an assert, a print: as TensorFlow 2 traces them."""
    w = tf.constant(RANDOM.standard_normal((8, 64)).astype(np.float32), name="w")
    y = twice(tf.identity(tf.linalg.matmul(x, w)))
    with tf.control_dependencies([tf.debugging.assert_less(tf.reduce_max(y), 1e6)]):
        y = tf.identity(y)
    _, y = tf.while_loop(lambda i, _: i < 3, lambda i, v: (i + 1, twice(v) * 0.5), [0, y])
    y = tf.debugging.check_numerics(y, "y")
    return tf.cond(tf.reduce_sum(y) > 0, lambda: y * 2.0, lambda: y - 1.0)


def lowered(x):
    """The same with Switch, Merge, Enter and Exit."""
    v1.disable_control_flow_v2()
    try:
        return functional(x)
    finally:
        v1.enable_control_flow_v2()


def built(make, folder):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 8], name="x")
        y = tf.identity(make(x), name="y")
    return model_of(graph, {"x": x}, {"y": y}, folder)


@pytest.fixture(params=[functional, lowered])
def model(request, tmp_path):
    made = built(request.param, tmp_path)
    assert verify.verify(made) == ()
    return made


def export(model, name, to, recipe_digest=None):
    chosen = format_named(name)
    return chosen.write(asked(model, to, recipe_digest, params=chosen.params())).files


def run_graph_def(graph_def, manifest, feeds):
    signature = manifest["signatures"]["serving_default"]
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(graph_def, name="")
    with v1.Session(graph=graph, config=exact_config()) as session:
        for name in manifest["init"]:
            session.run(name)
        fetches = {key: end["tensor"] for key, end in signature["outputs"].items()}
        tensors = {signature["inputs"][key]["tensor"]: value for key, value in feeds.items()}
        return session.run(fetches, tensors)


def test_the_canonical_form_means_the_same(model):
    result = canonical(model)
    assert verify.verify(result) == ()
    assert canonical(result) == result
    assert_same(run(model, {"x": X}), run(result, {"x": X}))
    slim = canonical(model, drop_defaults=True)
    assert_same(run(model, {"x": X}), run(slim, {"x": X}))


@pytest.mark.parametrize(
    "options",
    [{}, {"drop_identities": True}, {"remove": ["Assert", "CheckNumerics", "PrintV2"]}],
    ids=["plain", "identities", "debugging"],
)
def test_the_stripped_model_means_the_same(model, options):
    result = strip(model, **options).model
    assert verify.verify(result) == ()
    assert_same(run(model, {"x": X}), run(result, {"x": X}))
    ops = {n.op for f in result.graph.functions.values() for n in f.nodes.values()}
    ops |= {n.op for n in result.graph.nodes.values()}
    if "remove" in options:
        assert not ops & {"Assert", "CheckNumerics"}
    else:
        assert {"Assert", "CheckNumerics"} <= ops


@pytest.mark.parametrize("suffix", ["pb", "pbtxt"])
def test_a_written_graph_means_the_same(model, suffix, tmp_path):
    graph, manifest = export(canonical(model), "frozen_graph", tmp_path / f"m.{suffix}")
    graph_def = v1.GraphDef()
    if suffix == "pb":
        graph_def.ParseFromString(graph.path.read_bytes())
    else:
        text_format.Parse(graph.path.read_text(), graph_def)
    found = run_graph_def(graph_def, json.loads(manifest.path.read_text()), {"x": X})
    assert_same(run(model, {"x": X}), found)


def load_tf2(folder, feeds):
    signature = tf.saved_model.load(str(folder)).signatures["serving_default"]
    found = signature(**{key: tf.constant(value) for key, value in feeds.items()})
    return {key: value.numpy() for key, value in found.items()}


def load_tf1(folder, feeds):
    with v1.Session(graph=tf.Graph(), config=exact_config()) as session:
        loaded = v1.saved_model.load(session, ["serve"], str(folder))
        signature = loaded.signature_def["serving_default"]
        fetches = {key: info.name for key, info in signature.outputs.items()}
        tensors = {signature.inputs[key].name: value for key, value in feeds.items()}
        return session.run(fetches, tensors)


@pytest.mark.parametrize("load", [load_tf2, load_tf1])
def test_a_saved_model_means_the_same(model, load, tmp_path):
    export(canonical(model), "saved_model", tmp_path / "out")
    found = load(tmp_path / "out", {"x": X})
    before = run(model, {"x": X})
    if load is load_tf1:
        assert_same(before, found)
    np.testing.assert_allclose(found["y"], before["y"], rtol=1e-5)


@pytest.mark.parametrize("load", [load_tf2, load_tf1])
@pytest.mark.parametrize("make", [lambda folder: lookup(), with_asset], ids=["tables", "asset"])
def test_tables_are_filled_when_a_saved_model_is_loaded(make, load, tmp_path):
    export(canonical(make(tmp_path)), "saved_model", tmp_path / "out")
    (tmp_path / "vocabulary").unlink(missing_ok=True)
    words = np.array([b"b", b"a", b"c"])
    found = load(tmp_path / "out", {"word": words})["id"].tolist()
    assert found == ([2, 1, -1] if make is not with_asset else [1, 0, -1])


def test_tables_of_a_frozen_graph_are_filled_by_the_nodes_in_the_manifest(tmp_path):
    graph, manifest = export(canonical(lookup()), "frozen_graph", tmp_path / "m.pb")
    graph_def = v1.GraphDef.FromString(graph.path.read_bytes())
    words = np.array([b"b", b"c"])
    found = run_graph_def(graph_def, json.loads(manifest.path.read_text()), {"word": words})
    assert found["id"].tolist() == [2, -1]


def test_weights_out_of_line_arrive(tmp_path):
    x = np.ones((2, 4), np.float32)
    expected = x @ (0.25 * np.arange(400, dtype=np.float32)).reshape(4, 100) / 2
    export(canonical(dense(tmp_path / "in")), "saved_model", tmp_path / "out")
    for load in (load_tf2, load_tf1):
        np.testing.assert_array_equal(load(tmp_path / "out", {"x": x})["y"], expected)
