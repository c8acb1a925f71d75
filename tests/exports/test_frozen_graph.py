import hashlib
import json
import os
import re
from pathlib import Path

import pytest

import freezeflow.exports.frozen_graph as frozen_graph
from freezeflow.errors import FreezeflowError, ModelRefused
from freezeflow.exports import limits
from freezeflow.exports.manifest import manifest_path
from freezeflow.graph.canonical import canonical
from freezeflow.graph.read import GraphReader
from freezeflow.graph.write import graph_def_bytes
from freezeflow.messages import message_class
from freezeflow.values import Location, TensorSpec
from freezeflow.version import VERSION
from tests.exports.models import F, asked, dense, with_asset
from tests.graphs import const


def request(model, to, recipe_digest="blake3:" + "1" * 64):
    return asked(canonical(model), to, recipe_digest, params=frozen_graph.Params())


def test_graph_and_manifest(tmp_path):
    out = tmp_path / "build" / "model.pb"
    graph, manifest = frozen_graph.write(request(dense(tmp_path / "in"), out)).files
    assert (graph.path, manifest.path) == (out, tmp_path / "build" / "model.manifest.json")
    data = out.read_bytes()
    assert graph.written.sha256 == hashlib.sha256(data).hexdigest()
    assert graph.written.nbytes == len(data)
    assert data == graph_def_bytes(canonical(dense(tmp_path / "in")).graph)
    assert json.loads(manifest.path.read_text()) == {
        "format": "freezeflow.manifest/1",
        "signatures": {
            "serving_default": {
                "inputs": {"x": {"tensor": "x:0", "dtype": "float32", "shape": [None, 4]}},
                "outputs": {"y": {"tensor": "y:0", "dtype": "float32", "shape": [None, 100]}},
            }
        },
        "init": [],
        "files": {"model.pb": {"sha256": graph.written.sha256, "bytes": len(data)}},
        "source": {"digest": "blake3:" + "0" * 64, "kind": "saved_model"},
        "recipe": {"digest": "blake3:" + "1" * 64},
        "freezeflow": VERSION,
    }


def test_the_version_is_the_packages():
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert re.search(r'^version = "(.*)"$', project, re.MULTILINE)[1] == VERSION


def test_no_path_of_this_machine_and_the_same_bytes_everywhere(tmp_path):
    contents = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        files = frozen_graph.write(request(dense(folder / "in"), folder / "model.pb")).files
        contents.append([file.path.read_bytes() for file in files])
    assert contents[0] == contents[1]
    assert str(tmp_path).encode() not in b"".join(contents[0])


def test_without_a_recipe(tmp_path):
    files = frozen_graph.write(
        request(dense(tmp_path), tmp_path / "m.pb", recipe_digest=None)
    ).files
    assert json.loads(files[1].path.read_text())["recipe"] is None


def test_as_text(tmp_path):
    from google.protobuf import text_format

    out = tmp_path / "m.pbtxt"
    graph, manifest = frozen_graph.write(request(dense(tmp_path / "in"), out)).files
    assert manifest.path.name == "m.pbtxt.manifest.json"
    message = text_format.Parse(out.read_text(), message_class("GraphDef")())
    assert GraphReader(message).graph().nodes.keys() == {"x", "w", "dot", "relu", "y"}
    binary = message_class("GraphDef").FromString(
        graph_def_bytes(canonical(dense(tmp_path / "in")).graph)
    )
    assert message == binary
    assert json.loads(manifest.path.read_text())["files"] == {
        "m.pbtxt": {"sha256": graph.written.sha256, "bytes": out.stat().st_size}
    }


def test_manifests_of_a_graph_and_its_text_have_room_side_by_side():
    assert manifest_path(Path("a/b.c.pb")) == Path("a/b.c.manifest.json")
    assert manifest_path(Path("a/b.c.pbtxt")) == Path("a/b.c.pbtxt.manifest.json")


def enlarged(model, nbytes):
    """The model with weights that say they are larger; nothing of them is there."""
    node = model.graph.nodes["w"]
    place = node.tensor.location
    tensor = node.tensor._replace(location=Location(place.path, 0, nbytes, *place[3:]))
    model.graph.nodes["w"] = node._replace(tensor=tensor)
    return model


def test_over_two_gib_is_refused_before_the_first_byte(tmp_path):
    out = tmp_path / "out" / "m.pb"
    model = enlarged(dense(tmp_path / "in"), limits.MAX_FILE_BYTES)
    with pytest.raises(ModelRefused, match=r"2\.00 GiB; at most 2\.00 GiB") as caught:
        frozen_graph.write(request(model, out))
    assert "w (2.00 GiB)" in caught.value.hint
    assert "export fewer signatures" in caught.value.hint
    assert not out.parent.exists()


def test_the_limit_is_exact(tmp_path):
    model = dense(tmp_path)
    size = len(graph_def_bytes(model.graph))
    limits.check_size(model, size, "m.pb", limit=size)
    with pytest.raises(ModelRefused):
        limits.check_size(model, size, "m.pb", limit=size - 1)


def test_large_graphs_are_not_written_as_text(tmp_path):
    model = enlarged(dense(tmp_path / "in"), frozen_graph.MAX_TEXT_BYTES)
    canonical_model = canonical(model)
    text = asked(canonical_model, tmp_path / "m.pbtxt", params=frozen_graph.Params())
    # The content is not there, so reading it first would fail in another way.
    with pytest.raises(ModelRefused, match=r"at most 64\.00 MiB"):
        frozen_graph.write(text)


def test_variables_and_assets_are_refused(tmp_path):
    model = dense(tmp_path / "in", variables={"v": const("v", 1.0)})
    with pytest.raises(ModelRefused, match="1 variables") as caught:
        frozen_graph.write(request(model, tmp_path / "m.pb"))
    assert caught.value.where == "v"
    with pytest.raises(ModelRefused, match=r"reads the file 'vocabulary\.txt'"):
        frozen_graph.write(request(with_asset(tmp_path), tmp_path / "m.pb"))
    assert not (tmp_path / "m.pb").exists()


def test_a_failure_leaves_what_was_there(tmp_path, monkeypatch):
    out = tmp_path / "out" / "m.pb"
    frozen_graph.write(request(dense(tmp_path / "in"), out))
    before = {path.name: path.read_bytes() for path in out.parent.iterdir()}
    other = dense(tmp_path / "in")
    other.graph.nodes["extra"] = const("extra", 1.0)
    replace = os.replace

    def fails(source, target):
        if str(target).endswith(".json"):
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(FreezeflowError, match="No space left"):
        frozen_graph.write(request(other, out))
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in out.parent.iterdir()} == before


def test_a_source_that_changed_is_noticed(tmp_path):
    model = dense(tmp_path / "in")
    (tmp_path / "in" / "weights").write_bytes(b"something else")
    with pytest.raises(FreezeflowError):
        frozen_graph.write(request(model, tmp_path / "m.pb"))
    assert not (tmp_path / "m.pb").exists()
    assert not (tmp_path / "m.manifest.json").exists()


def test_signatures_name_tensors_by_output_number(tmp_path):
    model = dense(tmp_path / "in")
    model.signatures["serving_default"].outputs["y"] = TensorSpec("y:1", F, None)
    _, manifest = frozen_graph.write(request(model, tmp_path / "m.pb")).files
    outputs = json.loads(manifest.path.read_text())["signatures"]["serving_default"]["outputs"]
    assert outputs == {"y": {"tensor": "y:1", "dtype": "float32", "shape": None}}
