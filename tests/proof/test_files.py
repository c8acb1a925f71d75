"""Inputs from files of every kind, and what is said of those that do not fit."""

import base64
import json

import numpy as np
import pytest

from freezeflow.errors import StageFailed
from freezeflow.proof.files import fitting, read_inputs, read_keyed
from freezeflow.proof.requests import Request, encode_requests
from freezeflow.values import DType, TensorSpec
from tests.proof.ends import one

XS = one(x=(DType.FLOAT, (None, 2)), s=(DType.STRING, (None,)))
X = one(x=(DType.FLOAT, (None, 2)))


def wrote(path, data):
    path.write_text(json.dumps(data))
    return path


def test_the_forms_of_json(tmp_path):
    secret = {"b64": base64.b64encode(b"\0\xff").decode()}
    column = {"inputs": {"x": [[1, 2]], "s": [secret]}}
    rows = {"instances": [{"x": [1, 2], "s": secret}], "signature_name": "serving_default"}
    for data in (column, rows):
        (found,) = read_inputs(wrote(tmp_path / "a.json", data), XS)
        assert found.signature == "serving_default"
        assert found.inputs["x"].dtype == np.float32
        assert found.inputs["x"].tolist() == [[1, 2]]
        assert found.inputs["s"].tolist() == [b"\0\xff"]
    several = read_inputs(wrote(tmp_path / "b.json", [{"instances": [[1, 2]]}] * 3), X)
    assert [call.inputs["x"].shape for call in several] == [(1, 2)] * 3
    assert [call.origin for call in several] == ["b.json 0", "b.json 1", "b.json 2"]
    (bare,) = read_inputs(wrote(tmp_path / "c.json", {"inputs": [[1, float("nan")]]}), X)
    assert np.isnan(bare.inputs["x"][0, 1])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([1], "`instances` or `inputs`"),
        ({"inputs": {}, "instances": []}, "`instances` or `inputs`"),
        ({"inputs": {"z": [1]}}, "no input 'z'"),
        ({"inputs": {"x": [[1, 2], [3]]}}, "no float32 tensor"),
        ({"inputs": {"x": "a"}}, "no float32 tensor"),
        ({"inputs": {"s": [["a"], ["b", "c"]]}}, "different lengths"),
        ({"inputs": {"s": [{"b64": "?"}]}}, "no string tensor"),
        ({"inputs": {"s": 3}}, "no string"),
        ({"inputs": [1]}, "inputs have names: s, x"),
        ({"instances": [{"x": 1}, {"s": 1}]}, "same inputs"),
        ({"instances": 3}, "is a list"),
        ({"inputs": {}, "signature_name": "other"}, "no signature 'other'"),
    ],
)
def test_json_that_does_not_fit(tmp_path, data, message):
    with pytest.raises(StageFailed, match=message) as caught:
        read_inputs(wrote(tmp_path / "a.json", data), XS)
    assert "a.json" in str(caught.value)


def test_a_folder_of_arrays_is_one_call_and_of_calls_many(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((1, 2), np.float32))
    np.save(tmp_path / "s.npy", np.array([b"a"]))
    (call,) = read_inputs(tmp_path, XS)
    assert set(call.inputs) == {"x", "s"}
    np.savez(tmp_path / "b.npz", x=np.ones((3, 2), np.float32))
    wrote(tmp_path / "a.json", {"inputs": {"x": [[1, 2]]}})
    requests = [Request("serving_default", {"x": np.zeros((2, 2), np.float32)}, "z")]
    (tmp_path / "c.tfrecord").write_bytes(encode_requests(requests))
    (tmp_path / ".hidden").touch()
    assert [call.origin for call in read_inputs(tmp_path, XS)] == [
        tmp_path.name, "a.json 0", "b.npz", "z",
    ]  # fmt: skip


def test_arrays_key_by_key(tmp_path):
    for key, count in (("x", 2), ("s", 2)):
        (tmp_path / key).mkdir()
        for number in range(count):
            np.save(tmp_path / key / f"{number}.npy", np.full((1, 2), number))
    calls = read_keyed({"x": tmp_path / "x", "s": tmp_path / "s"})
    assert [call.inputs["x"][0, 0] for call in calls] == [0, 1]
    (one_call,) = read_keyed({"x": tmp_path / "x" / "0.npy"})
    assert set(one_call.inputs) == {"x"}
    with pytest.raises(StageFailed, match="x: 2, s: 1"):
        read_keyed({"x": tmp_path / "x", "s": tmp_path / "s" / "0.npy"})


def test_a_lone_array_goes_to_the_only_input(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((1, 2), np.float32))
    (call,) = read_inputs(tmp_path / "a.npy", X)
    assert set(call.inputs) == {"x"}
    with pytest.raises(StageFailed, match="not clear which input"):
        read_inputs(tmp_path / "a.npy", XS)


def test_files_of_no_known_kind(tmp_path):
    (tmp_path / "a.csv").touch()
    with pytest.raises(StageFailed, match="no kind of file"):
        read_inputs(tmp_path / "a.csv", X)
    (tmp_path / "a.csv").unlink()
    with pytest.raises(StageFailed, match="empty folder"):
        read_inputs(tmp_path, X)
    for name in ("a.npy", "a.npz", "a.json"):
        (tmp_path / name).write_bytes(b"\x80\x04cos\nsystem\n")
        with pytest.raises(StageFailed, match="cannot be read"):
            read_inputs(tmp_path / name, X)


def test_what_fits_a_signature():
    spec = TensorSpec("x:0", DType.STRING, (None,))
    assert fitting("s", np.array(["é", "b"]), spec, "").tolist() == ["é".encode(), b"b"]
    with pytest.raises(StageFailed, match="shape"):
        fitting("s", np.array([["a"]]), spec, "")
