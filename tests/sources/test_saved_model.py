"""SavedModels: which meta graph and signature, in which file, and refusals that help."""

from __future__ import annotations

import dataclasses

import pytest
from google.protobuf import text_format

from freezeflow.errors import ModelRefused
from freezeflow.messages import message_class
from freezeflow.sources.signatures import read_signature
from freezeflow.values import DType, ModelSource, TensorSpec
from tests.sources.damage import copy_of, frozen_bytes

CONTENT = "saved_model.pb"


@pytest.fixture
def copied(good, tmp_path):
    source, root = good("tf2_module")
    return copy_of(source, root, tmp_path / "copy")


def changed(source, change):
    """The source with its message changed."""
    file = source.path / CONTENT
    message = message_class("SavedModel").FromString(file.read_bytes())
    change(message)
    file.write_bytes(message.SerializeToString())
    return source


def refusal(source, tmp_path):
    with pytest.raises(ModelRefused) as refused:
        frozen_bytes(source, tmp_path)
    assert refused.value.where and refused.value.hint
    return refused.value


def test_the_text_form_is_the_same_model(copied, good, tmp_path):
    message = message_class("SavedModel").FromString((copied.path / CONTENT).read_bytes())
    (copied.path / "saved_model.pbtxt").write_text(text_format.MessageToString(message))
    (copied.path / CONTENT).unlink()
    assert frozen_bytes(copied, tmp_path) == frozen_bytes(good("tf2_module")[0], tmp_path)


def test_a_chunked_model_is_told_by_name(copied, tmp_path):
    (copied.path / CONTENT).rename(copied.path / "saved_model.cpb")
    assert "chunks (.cpb)" in refusal(copied, tmp_path).message


def test_an_empty_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    source = ModelSource(kind="saved_model", path=tmp_path / "empty")
    assert "no SavedModel here" in refusal(source, tmp_path).message


def test_the_only_tag_set_is_taken(copied, tmp_path):
    changed(copied, lambda m: m.meta_graphs[0].meta_info_def.ClearField("tags"))
    assert frozen_bytes(copied, tmp_path)


def test_tags_that_are_not_there(copied, tmp_path):
    said = refusal(dataclasses.replace(copied, tags=("train", "gpu")), tmp_path)
    assert "gpu,train" in said.message and "serve" in said.hint


def test_a_signature_that_is_not_there(copied, tmp_path):
    said = refusal(dataclasses.replace(copied, signatures=("serve",)), tmp_path)
    assert "'serve'" in said.message and "serving_default" in said.hint


def test_several_signatures_without_a_default(copied, tmp_path):
    def rename(message):
        signatures = message.meta_graphs[0].signature_def
        for name in ("one", "two"):
            signatures[name].CopyFrom(signatures["serving_default"])
        del signatures["serving_default"]

    assert "one, two" in refusal(changed(copied, rename), tmp_path).message


def test_no_signature(copied, tmp_path):
    def lose(message):
        del message.meta_graphs[0].signature_def["serving_default"]

    assert "no signatures" in refusal(changed(copied, lose), tmp_path).message


def test_a_file_without_a_meta_graph(copied, tmp_path):
    changed(copied, lambda m: m.ClearField("meta_graphs"))
    (copied.path / CONTENT).write_bytes(b"\x08\x01")
    assert "file is empty" in refusal(copied, tmp_path).hint


# ---------------------------------------------------------------- signatures


def test_a_sparse_input_has_three_ends():
    message = message_class("SignatureDef")()
    info = message.inputs["s"]
    info.dtype = int(DType.FLOAT)
    info.tensor_shape.dim.add(size=-1)
    info.tensor_shape.dim.add(size=5)
    info.coo_sparse.indices_tensor_name = "i:0"
    info.coo_sparse.values_tensor_name = "v:2"
    info.coo_sparse.dense_shape_tensor_name = "d"
    assert dict(read_signature(message).inputs) == {
        "s.0": TensorSpec("i", DType.INT64, (None, 2)),
        "s.1": TensorSpec("v:2", DType.FLOAT, (None,)),
        "s.2": TensorSpec("d", DType.INT64, (2,)),
    }


def test_a_composite_output_has_an_end_for_each_part():
    message = message_class("SignatureDef")()
    parts = message.outputs["r"].composite_tensor.components
    parts.add(name="values:0", dtype=int(DType.STRING)).tensor_shape.unknown_rank = True
    parts.add(name="splits:0", dtype=int(DType.INT64)).tensor_shape.dim.add(size=-1)
    assert dict(read_signature(message).outputs) == {
        "r.0": TensorSpec("values", DType.STRING, None),
        "r.1": TensorSpec("splits", DType.INT64, (None,)),
    }


def test_two_ends_of_one_name():
    message = message_class("SignatureDef")()
    components = message.outputs["r"].composite_tensor.components
    components.add(name="values:0", dtype=int(DType.STRING))
    message.outputs["r.0"].name, message.outputs["r.0"].dtype = "y:0", int(DType.FLOAT)
    with pytest.raises(ModelRefused, match="composite one with a component of that name"):
        read_signature(message)


def test_a_reference_is_fetched_as_its_value():
    message = message_class("SignatureDef")()
    message.outputs["y"].name, message.outputs["y"].dtype = "y:0", 101
    assert read_signature(message).outputs["y"].dtype is DType.FLOAT


@pytest.mark.parametrize(("name", "dtype"), [("y:x", 1), ("y", 99)])
def test_an_end_that_is_none(name, dtype):
    message = message_class("SignatureDef")()
    message.outputs["y"].name, message.outputs["y"].dtype = name, dtype
    with pytest.raises(ModelRefused, match="'y' of a signature"):
        read_signature(message)
