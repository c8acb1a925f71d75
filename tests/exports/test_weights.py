"""Weights outside of the graph file: what is written loads, and gives the same bytes."""

import json
import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import freezeflow
from freezeflow.checkpoint import open_checkpoint
from freezeflow.errors import FreezeflowError, ModelRefused
from freezeflow.exports import frozen_graph, saved_model
from freezeflow.exports.saver import with_saver
from freezeflow.graph import attrs
from freezeflow.graph.canonical import canonical
from freezeflow.graph.constants import const as made_const
from freezeflow.graph.weights import as_variables
from freezeflow.store.files import Publication
from freezeflow.values import DType
from tests.checkpoint.written import NUMBERS, numbers
from tests.exports.models import asked, dense, lookup
from tests.exports.test_frozen_graph import enlarged
from tests.exports.test_in_tensorflow import load_tf1, load_tf2
from tests.graphs import const, graph, large_const, node, spec
from tests.graphs import model as model_of_nodes
from tests.tf.built import FakeContext

ROOT = Path(__file__).resolve().parents[2]
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


# ---------------------------------------------------------------- files beside the graph


def external(model, to, **params):
    params = frozen_graph.Params(weights="external", external_from=1000, **params)
    return frozen_graph.write(asked(canonical(model), to, params=params)).files


def run_mapped(graph_def, fetches, feeds):
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(graph_def, name="")
    with v1.Session(graph=graph) as session:
        return session.run(fetches, feeds)


@pytest.mark.parametrize("name", ["m.pb", "m.pbtxt"])
def test_mapped_weights_give_what_the_constants_gave(name, tmp_path):
    files = external(dense(tmp_path / "in"), tmp_path / "out" / name)
    graph, manifest, weights = (file.path for file in files)
    assert weights.parent.name == name.removesuffix(".pb") + ".weights"
    assert weights.read_bytes() == (tmp_path / "in" / "weights").read_bytes()
    assert set(json.loads(manifest.read_text())["files"]) == {
        name,
        f"{weights.parent.name}/{weights.name}",
    }
    for verify in (False, True):
        found = run_mapped(freezeflow.load_graph(graph, verify=verify), "y:0", {"x:0": X})
        np.testing.assert_array_equal(found, EXPECTED)


def test_three_lines_of_tensorflow_do_the_same(tmp_path):
    """As docs/large-models.md has them."""
    external(dense(tmp_path / "in"), tmp_path / "m.pb")
    page = (ROOT / "docs" / "large-models.md").read_text(encoding="utf-8")
    lines = re.search(r"```python\n(graph_def = .*?)```", page, re.DOTALL)[1]
    given = {"tf": tf, "folder": str(tmp_path), "file": str(tmp_path / "m.pb")}
    exec(lines, given)
    np.testing.assert_array_equal(run_mapped(given["graph_def"], "y:0", {"x:0": X}), EXPECTED)


def test_every_dtype_can_be_mapped(tmp_path):
    (tmp_path / "in").mkdir()
    external(one_of_each_dtype(tmp_path / "in"), tmp_path / "m.pb")
    graph_def = freezeflow.load_graph(tmp_path / "m.pb")
    assert sum(node.op == "ImmutableConst" for node in graph_def.node) == len(NUMBERS)
    found = run_mapped(graph_def, {dtype.tf_name: f"{dtype.tf_name}:0" for dtype in NUMBERS}, {})
    for dtype in NUMBERS:
        expected = numbers(dtype, (4, 600), seed=int(dtype)).numpy()
        assert np.asarray(found[dtype.tf_name]).tobytes() == expected.tobytes(), dtype


def test_weights_of_functions_are_mapped_too(tmp_path):
    model = dense(tmp_path / "in")
    halve = next(iter(model.graph.functions.values()))
    data = np.full(400, 2.0, np.float32).tobytes()
    large = large_const("two", tmp_path / "in" / "two", data, (4, 100))
    halve.nodes["two"] = large
    x = np.ones((4, 4), np.float32)
    external(model, tmp_path / "m.pb")
    assert len(list((tmp_path / "m.weights").iterdir())) == 2
    found = run_mapped(freezeflow.load_graph(tmp_path / "m.pb"), "y:0", {"x:0": x})
    np.testing.assert_array_equal(found[:2], EXPECTED)


def test_weights_of_the_graph_before_go(tmp_path):
    out = tmp_path / "m.pb"
    external(dense(tmp_path / "in"), out)
    (tmp_path / "m.weights" / "notes.txt").write_text("mine")
    external(one_of_each_dtype(tmp_path / "in"), out)
    left = {path.name for path in (tmp_path / "m.weights").iterdir()}
    assert len(left) == len(NUMBERS) + 1
    frozen_graph.write(asked(canonical(dense(tmp_path / "in2")), out, params=frozen_graph.Params()))
    assert [path.name for path in (tmp_path / "m.weights").iterdir()] == ["notes.txt"]


def test_two_exports_to_one_path_take_turns(tmp_path, monkeypatch):
    """Neither removes what the other is about to name."""
    out = tmp_path / "out" / "m.pb"
    manifest_bytes = frozen_graph.manifest_bytes
    written, go_on = threading.Event(), threading.Event()

    def waiting(*given):
        if not written.is_set():
            written.set()
            assert go_on.wait(30)
        return manifest_bytes(*given)

    monkeypatch.setattr(frozen_graph, "manifest_bytes", waiting)
    (tmp_path / "in2").mkdir()
    models = dense(tmp_path / "in"), one_of_each_dtype(tmp_path / "in2")
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(external, models[0], out)
        assert written.wait(30)
        second = pool.submit(external, models[1], out)
        # It has made nothing while the first one has not published what it has made.
        assert not wait([second], 0.3).done
        assert len(list(out.with_name("m.weights").iterdir())) == 1
        go_on.set()
        first.result(), second.result()
    assert {path.name for path in out.parent.iterdir()} == {"m.pb", "m.manifest.json", "m.weights"}
    freezeflow.load_graph(out, verify=True)


def test_many_exports_to_one_path(tmp_path):
    """Whoever comes last, its graph finds its weights, and no others lie there."""
    out = tmp_path / "m.pb"
    with ThreadPoolExecutor(4) as pool:
        for number in range(40):
            (tmp_path / f"in{number}").mkdir()
            inside = tmp_path / f"in{number}"
            if number % 3 == 2:
                request = asked(canonical(dense(inside)), out, params=frozen_graph.Params())
                pool.submit(frozen_graph.write, request)
            else:
                model = dense(inside) if number % 3 else one_of_each_dtype(inside)
                pool.submit(external, model, out)
    freezeflow.load_graph(out, verify=True)


def test_a_failure_leaves_graph_and_weights_as_they_were(tmp_path, monkeypatch):
    out = tmp_path / "out" / "m.pb"
    external(dense(tmp_path / "in"), out)
    before = {path: path.read_bytes() for path in out.parent.rglob("*") if path.is_file()}

    publish = Publication.publish

    def fails(self):
        if any(part.target.suffix == ".pb" for part in self._parts):
            raise FreezeflowError("no space")
        publish(self)

    monkeypatch.setattr(Publication, "publish", fails)
    with pytest.raises(FreezeflowError, match="no space"):
        external(one_of_each_dtype(tmp_path / "in"), out)
    assert {p: p.read_bytes() for p in out.parent.rglob("*") if p.is_file()} == before
    with pytest.raises(FreezeflowError, match="no space"):
        external(dense(tmp_path / "in2"), tmp_path / "new" / "m.pb")
    assert list(tmp_path.glob("new/*")) == []


def test_weights_that_are_not_there_or_others(tmp_path):
    out = tmp_path / "m.pb"
    weights = external(dense(tmp_path / "in"), out)[2].path
    data = weights.read_bytes()
    os.chmod(weights, 0o644)
    weights.write_bytes(bytes(len(data)))
    with pytest.raises(ModelRefused, match="not what the manifest says"):
        freezeflow.load_graph(out, verify=True)
    weights.write_bytes(data[:-1])
    with pytest.raises(ModelRefused, match=r"1599 bytes of 1600"):
        freezeflow.load_graph(out)
    weights.unlink()
    with pytest.raises(ModelRefused, match="the weights of 'w' cannot be read"):
        freezeflow.load_graph(out)
    with pytest.raises(ModelRefused, match="no GraphDef"):
        freezeflow.load_graph(tmp_path / "in" / "weights")
    with pytest.raises(ModelRefused, match="no manifest"):
        freezeflow.load_graph(tmp_path / "in" / "weights", verify=True)


def test_the_refusal_of_a_large_file_names_what_can_be_written(tmp_path):
    model = enlarged(dense(tmp_path / "in"), 2**31)
    with pytest.raises(ModelRefused) as caught:
        frozen_graph.write(asked(model, tmp_path / "out" / "m.pb", params=frozen_graph.Params()))
    for way in ("`weights: external`", "`format: saved_model`"):
        assert way in caught.value.hint
    assert not (tmp_path / "out").exists()
