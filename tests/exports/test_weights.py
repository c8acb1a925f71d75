"""Weights outside of the graph file: what is written loads, and gives the same bytes."""

import json

import numpy as np
import pytest
import tensorflow as tf

from freezeflow.checkpoint import open_checkpoint
from freezeflow.errors import ModelRefused
from freezeflow.exports import saved_model
from freezeflow.exports.saver import with_saver
from freezeflow.graph import attrs
from freezeflow.graph.canonical import canonical
from freezeflow.graph.constants import const as made_const
from freezeflow.graph.weights import as_variables
from freezeflow.values import DType
from tests.checkpoint.written import NUMBERS, numbers
from tests.exports.models import asked, dense, lookup
from tests.exports.test_in_tensorflow import load_tf1, load_tf2
from tests.graphs import const, graph, node, spec
from tests.graphs import model as model_of_nodes
from tests.tf.built import FakeContext

v1 = tf.compat.v1
LOADERS = pytest.mark.parametrize("load", [load_tf2, load_tf1])
X = np.ones((2, 4), np.float32)
EXPECTED = X @ (0.25 * np.arange(400, dtype=np.float32)).reshape(4, 100) / 2


def in_checkpoint(model, to):
    """The model as a SavedModel with its weights in the checkpoint."""
    params = saved_model.Params(weights="checkpoint")
    return saved_model.write(asked(canonical(model), to, params=params)).files


def one_of_each_dtype(folder):
    """A model that gives large constants of every dtype as they are."""
    context = FakeContext(folder)
    nodes, outputs = [], {}
    for dtype in NUMBERS:
        name = dtype.tf_name
        data = numbers(dtype, (4, 600), seed=int(dtype)).numpy().tobytes()
        tensor = context.put_tensor(memoryview(data), dtype, (4, 600))
        nodes += [
            made_const(f"c_{name}", dtype, (4, 600), tensor),
            node(name, "Identity", f"c_{name}", T=dtype),
        ]
        outputs[name] = spec(name, dtype, (4, 600))
    return model_of_nodes(graph(*nodes), {}, outputs)


@LOADERS
def test_variables_give_what_the_constants_gave(load, tmp_path):
    files = in_checkpoint(dense(tmp_path / "in"), tmp_path / "out")
    assert [str(f.path.relative_to(tmp_path / "out")) for f in files] == [
        "saved_model.pb",
        "variables/variables.index",
        "variables/variables.data-00000-of-00001",
        "freezeflow.manifest.json",
    ]
    assert set(json.loads(files[-1].path.read_text())["files"]) == {
        str(f.path.relative_to(tmp_path / "out")) for f in files[:-1]
    }
    assert (tmp_path / "out" / "saved_model.pb").stat().st_size < 2000
    assert open_checkpoint(tmp_path / "out" / "variables" / "variables").keys() == ("w",)
    np.testing.assert_array_equal(load(tmp_path / "out", {"x": X})["y"], EXPECTED)


def test_a_loaded_model_can_be_saved_again(tmp_path):
    in_checkpoint(dense(tmp_path / "in"), tmp_path / "out")
    with v1.Session(graph=tf.Graph()) as session:
        loaded = v1.saved_model.load(session, ["serve"], str(tmp_path / "out"))
        v1.train.Saver(saver_def=loaded.saver_def).save(session, str(tmp_path / "again"))
    before = tmp_path / "out" / "variables" / "variables.data-00000-of-00001"
    assert (tmp_path / "again.data-00000-of-00001").read_bytes() == before.read_bytes()


@LOADERS
def test_every_dtype(load, tmp_path):
    (tmp_path / "in").mkdir()
    model = one_of_each_dtype(tmp_path / "in")
    in_checkpoint(model, tmp_path / "out")
    found = load(tmp_path / "out", {})
    stored = open_checkpoint(tmp_path / "out" / "variables" / "variables").keys()
    for dtype in NUMBERS:
        expected = numbers(dtype, (4, 600), seed=int(dtype)).numpy()
        assert np.asarray(found[dtype.tf_name]).tobytes() == expected.tobytes(), dtype
    assert len(stored) >= 20
    assert "c_qint16" not in stored


@LOADERS
def test_tables_are_filled_after_the_weights(load, tmp_path):
    """The values of a table that is filled from a large constant."""
    model = lookup()
    (tmp_path / "in").mkdir()
    tensor = FakeContext(tmp_path / "in").put_tensor(
        memoryview(np.arange(300, dtype=np.int64).tobytes()), DType.INT64, (300,)
    )
    keys = [str(i).encode() for i in range(300)]
    model.graph.nodes["keys"] = const("keys", keys, DType.STRING)
    model.graph.nodes["values"] = made_const("values", DType.INT64, (300,), tensor)
    in_checkpoint(model, tmp_path / "out")
    words = np.array([b"b", b"299", b"7"])
    assert load(tmp_path / "out", {"word": words})["id"].tolist() == [-1, 299, 7]


def test_over_two_gib_the_weights_go_into_the_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(saved_model, "MAX_FILE_BYTES", 1500)
    model = canonical(dense(tmp_path / "in"))
    saved_model.write(asked(model, tmp_path / "out", params=saved_model.Params()))
    assert (tmp_path / "out" / "variables" / "variables.index").exists()
    np.testing.assert_array_equal(load_tf2(tmp_path / "out", {"x": X})["y"], EXPECTED)


def test_variables_that_were_kept_are_written(tmp_path):
    """A counter: a variable that the model itself changes."""
    handle = {"dtype": DType.FLOAT, "shape": attrs.of_shape(()), "shared_name": "c"}
    nodes = [
        node("count", "VarHandleOp", **handle),
        const("one", 1.0),
        node("add", "AssignAddVariableOp", "count", "one", dtype=DType.FLOAT),
        node("y", "ReadVariableOp", "count", "^add", dtype=DType.FLOAT),
    ]
    model = model_of_nodes(
        graph(*nodes), {}, {"y": spec("y")}, variables={"count": const("count", 41.0)}
    )
    saved_model.write(asked(model, tmp_path / "out", params=saved_model.Params()))
    assert load_tf1(tmp_path / "out", {})["y"] == 42


def test_what_stays_in_the_graph(tmp_path):
    model = dense(tmp_path / "in")
    weights = model.graph.nodes["w"]
    model.graph.nodes["w"] = weights._replace(inputs=("^x",))
    assert as_variables(model) == model
    assert with_saver(model).definition is None


def test_names_that_are_taken(tmp_path):
    model = dense(tmp_path / "in")
    model.graph.nodes["w/variable"] = node("w/variable", "NoOp")
    model.graph.nodes["save/prefix"] = node("save/prefix", "NoOp")
    moved = as_variables(model)
    assert list(moved.variables) == ["w/variable_"]
    assert with_saver(moved).definition.restore_op_name == "save_/restore"


def test_an_unknown_kind_of_variable_is_refused(tmp_path):
    model = dense(tmp_path / "in", variables={"y": const("y", 1.0)})
    with pytest.raises(ModelRefused, match="PartitionedCall cannot be saved"):
        with_saver(model)
