import dataclasses
import json
import os
import stat

import numpy as np
import pytest

from freezeflow.errors import FreezeflowError, ModelRefused, StageFailed
from freezeflow.exports import saved_model
from freezeflow.graph.canonical import canonical
from freezeflow.graph.ops import standard_op
from freezeflow.messages import message_class
from freezeflow.proof.requests import Request, encode_requests
from freezeflow.store import kernel
from tests.exports.models import asked, dense, lookup, with_asset
from tests.exports.test_frozen_graph import enlarged
from tests.graphs import const, node


def write(model, to):
    params = saved_model.Params()
    return saved_model.write(asked(canonical(model), to, params=params)).files


def meta_graph(folder):
    found = message_class("SavedModel").FromString((folder / "saved_model.pb").read_bytes())
    assert found.saved_model_schema_version == 1
    (only,) = found.meta_graphs
    return only


def test_folder(tmp_path):
    out = tmp_path / "out"
    files = write(dense(tmp_path / "in"), out)
    assert [file.path.name for file in files] == ["saved_model.pb", "freezeflow.manifest.json"]
    assert sorted(path.name for path in out.iterdir()) == sorted(f.path.name for f in files)
    manifest = json.loads((out / "freezeflow.manifest.json").read_text())
    assert manifest["files"] == {
        "saved_model.pb": {"sha256": files[0].written.sha256, "bytes": files[0].written.nbytes}
    }
    found = meta_graph(out)
    assert list(found.meta_info_def.tags) == ["serve"]
    signature = found.signature_def["serving_default"]
    assert signature.method_name == "tensorflow/serving/predict"
    assert signature.inputs["x"].name == "x:0"
    assert [dim.size for dim in signature.inputs["x"].tensor_shape.dim] == [-1, 4]
    assert list(found.signature_def) == ["serving_default"]
    (weights,) = (n for n in found.graph_def.node if n.name == "w")
    assert len(weights.attr["value"].tensor.tensor_content) == 1600


def test_several_initializers_run_in_their_order(tmp_path):
    write(lookup(), tmp_path / "out")
    found = meta_graph(tmp_path / "out")
    by_name = {n.name: n for n in found.graph_def.node}
    assert list(found.collection_def["saved_model_main_op"].node_list.value) == ["run_initializers"]
    (info,) = found.signature_def["__saved_model_init_op"].outputs.values()
    assert info.name == "run_initializers"
    assert list(by_name["run_initializers"].input) == ["^fill", "^fill_other"]
    assert list(by_name["fill_other"].input) == ["other", "keys", "values", "^fill"]


def test_one_initializer_runs_itself(tmp_path):
    made = lookup()
    one = saved_model.with_one_initializer(made)
    assert one.init == ("run_initializers",)
    assert saved_model.with_one_initializer(one) is one


def test_the_initializers_node_takes_a_free_name():
    made = lookup()
    made.graph.nodes["run_initializers"] = node("run_initializers", "NoOp")
    assert saved_model.with_one_initializer(made).init == ("run_initializers_",)


def test_an_initializer_that_already_waits_makes_no_cycle():
    made = lookup()
    fill = made.graph.nodes["fill"]
    made.graph.nodes["fill"] = fill._replace(inputs=(*fill.inputs, "^fill_other"))
    nodes = saved_model.with_one_initializer(made).graph.nodes
    assert "^fill" not in nodes["fill_other"].inputs


def test_assets(tmp_path):
    files = write(with_asset(tmp_path), tmp_path / "out")
    assert (tmp_path / "out" / "assets" / "vocabulary.txt").read_bytes() == b"a\nb\n\n\n"
    (entry,) = meta_graph(tmp_path / "out").asset_file_def
    assert (entry.filename, entry.tensor_info.name) == ("vocabulary.txt", "file:0")
    assert "assets/vocabulary.txt" in json.loads(files[-1].path.read_text())["files"]


def test_definitions_of_custom_ops_go_with_the_graph(tmp_path):
    made = dense(tmp_path / "in")
    made.graph.op_defs["Mine"] = standard_op("Relu")._replace(name="Mine")
    made.graph.nodes["relu"] = made.graph.nodes["relu"]._replace(op="Mine")
    write(made, tmp_path / "out")
    ops = meta_graph(tmp_path / "out").meta_info_def.stripped_op_list.op
    assert [op.name for op in ops] == ["Mine"]


def test_the_same_bytes_everywhere(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(with_asset(tmp_path / name), tmp_path / name / "out")
    for file in ("saved_model.pb", "freezeflow.manifest.json"):
        one, two = ((tmp_path / name / "out" / file).read_bytes() for name in ("one", "two"))
        assert one == two
        assert str(tmp_path).encode() not in one


def test_modes_do_not_depend_on_the_umask(tmp_path):
    old = os.umask(0o077)
    try:
        write(with_asset(tmp_path), tmp_path / "out")
    finally:
        os.umask(old)
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode)
        for path in (tmp_path / "out", *(tmp_path / "out").rglob("*"))
    }
    assert modes == {
        "out": 0o755,
        "assets": 0o755,
        "vocabulary.txt": 0o644,
        "saved_model.pb": 0o644,
        "freezeflow.manifest.json": 0o644,
    }


def test_an_older_saved_model_is_replaced_whole(tmp_path):
    out = tmp_path / "out"
    write(with_asset(tmp_path), out)
    write(dense(tmp_path / "in"), out)
    assert sorted(p.name for p in out.iterdir()) == ["freezeflow.manifest.json", "saved_model.pb"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out", "vocabulary"]


def test_anything_else_is_left_alone(tmp_path):
    out = tmp_path / "precious"
    out.mkdir()
    write(dense(tmp_path / "in"), out)  # an empty folder is nothing to lose
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("...")
    with pytest.raises(StageFailed, match="something else is there"):
        write(dense(tmp_path / "in"), other)
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(StageFailed, match="something else is there"):
        write(dense(tmp_path / "in"), file)
    assert [p.name for p in other.iterdir()] == ["thesis.tex"]


def test_a_failure_leaves_the_older_model(tmp_path, monkeypatch):
    out = tmp_path / "out"
    write(with_asset(tmp_path), out)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    rename = os.rename

    def fails(source, target):
        if os.fspath(target) == os.fspath(out) and os.path.basename(source) != "old":
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(kernel, "exchange", lambda one, other: False)
    monkeypatch.setattr(os, "rename", fails)
    with pytest.raises(FreezeflowError, match="No space left"):
        write(dense(tmp_path / "in"), out)
    monkeypatch.undo()
    (tmp_path / "in" / "weights").write_bytes(b"changed")
    stale = dense(tmp_path / "in2")
    (tmp_path / "in2" / "weights").write_bytes(b"changed")
    with pytest.raises(FreezeflowError):
        write(stale, out)
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "in2", "out", "vocabulary"]


def test_refusals_come_before_the_first_byte(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ModelRefused, match="variable that is missing"):
        write(dense(tmp_path / "in", variables={"v": const("v", 1.0)}), out)
    with pytest.raises(ModelRefused, match="at most"):
        # What waits for another node stays in the graph.
        model = enlarged(dense(tmp_path / "in"), 2**31)
        weights = model.graph.nodes["w"]
        model.graph.nodes["w"] = weights._replace(inputs=("^x",))
        write(model, out)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_the_layout_of_tensorflow_serving(tmp_path):
    params = saved_model.Params(serving=3)
    request = asked(canonical(dense(tmp_path / "in")), tmp_path / "out", params=params)
    files = saved_model.write(request).files
    assert files[0].path == tmp_path / "out" / "3" / "saved_model.pb"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["3"]
    # The next version beside it.
    saved_model.write(dataclasses.replace(request, params=saved_model.Params(serving=4)))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["3", "4"]


class Warned:
    def __init__(self):
        self.warnings = []

    def warn(self, line):
        self.warnings.append(line)


def with_warmup(folder, signature):
    """An export of a model whose source has a warm-up request for a signature."""
    warmup = folder / "requests"
    request = Request(signature, {"x": np.zeros((1, 2), np.float32)}, "")
    warmup.write_bytes(encode_requests([request]))
    more = {"params": saved_model.Params(), "context": Warned(), "warmup": warmup}
    return asked(canonical(dense(folder / "in")), folder / "out", **more)


def test_warm_up_requests_are_kept(tmp_path):
    request = with_warmup(tmp_path, "serving_default")
    files = {file.path for file in saved_model.write(request).files}
    kept = tmp_path / "out" / "assets.extra" / "tf_serving_warmup_requests"
    assert kept in files
    assert kept.read_bytes() == request.warmup.read_bytes()
    assert request.context.warnings == []


def test_warm_up_requests_that_a_server_could_not_answer_are_left_out(tmp_path):
    request = with_warmup(tmp_path, "other")
    saved_model.write(request)
    assert not (tmp_path / "out" / "assets.extra").exists()
    (warning,) = request.context.warnings
    assert "one asks other for x" in warning
