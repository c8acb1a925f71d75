import json

import numpy as np
import onnx
import onnxruntime
import pytest

from freezeflow.errors import StageFailed, UsageError
from tests.exports.running import DIGITS


def predicted(path):
    """Share of the held-out digits that the file takes for what they are."""
    data = np.load(DIGITS / "held_out.npz")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,), (output, *_) = session.get_inputs(), session.get_outputs()
    count = given.shape[0] if isinstance(given.shape[0], int) else len(data["labels"])
    scores = session.run([output.name], {given.name: data[given.name][:count]})[0]
    return np.mean(np.argmax(scores, -1) == data["labels"][:count])


def test_it_says_what_the_original_says(ran):
    facts = ran.facts("onnx")
    assert facts["opset"] == 17
    check = facts["check"]
    assert check["runtime"] == f"onnxruntime {onnxruntime.__version__}"
    assert check["calls"] == 3
    assert all(0 <= output["max_abs"] < 1e-4 for output in check["outputs"].values())
    assert predicted(ran.folder / "onnx" / "m.onnx") > 0.9


def test_names_and_manifest(ran):
    model = onnx.load(ran.folder / "onnx" / "m.onnx")
    manifest = json.loads((ran.folder / "onnx" / "m.onnx.manifest.json").read_text())
    assert [given.name for given in model.graph.input] == list(manifest["export"]["inputs"])
    assert {output.name for output in model.graph.output} == set(manifest["export"]["outputs"])
    assert set(manifest["files"]) == {"m.onnx"}
    assert manifest["export"]["tools"]["onnx"] == onnx.__version__


def test_weights_beside_the_model(ran, tmp_path):
    assert ran.facts("onnx-external")["opset"] == 13
    folder = ran.folder / "external"
    names = {path.name for path in folder.iterdir()}
    assert names == {"m.onnx", "m.onnx.data", "m.onnx.manifest.json"}
    assert (folder / "m.onnx.data").stat().st_size > (folder / "m.onnx").stat().st_size / 4
    assert predicted(folder / "m.onnx") > 0.7
    assert {file.path.name for file in ran.steps["onnx-external"].files} == names
    (given,) = onnx.load(folder / "m.onnx").graph.input
    assert given.type.tensor_type.shape.dim[0].dim_value == 5
    (tmp_path / "m.onnx").write_bytes((folder / "m.onnx").read_bytes())
    with pytest.raises(Exception, match=r"m\.onnx\.data"):  # which class, depends on its version
        predicted(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("onnx-signature", UsageError, "no signature 'gone'"),
        ("onnx-shapes", UsageError, "no input 'gone'"),
        ("onnx-random", StageFailed, "has an input named 'gone'"),
    ],
)
def test_what_does_not_fit_the_model(ran, name, kind, text):
    error = ran.error(name)
    assert isinstance(error, kind)
    assert text in error.message
