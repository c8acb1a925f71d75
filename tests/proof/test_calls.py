"""Which calls a proof makes, and for which signatures."""

import numpy as np
import pytest

from freezeflow.errors import StageFailed
from freezeflow.proof.calls import Wanted, kept_requests, make_calls
from freezeflow.proof.requests import Request, encode_requests, read_requests
from freezeflow.proof.seeded import Wish
from freezeflow.values import DType
from tests.proof.ends import one, signature

X = one(x=(DType.FLOAT, (None, 2)))


def made(signatures=X, **wanted):
    return make_calls(signatures, Wanted(**wanted))


def kinds(calls):
    return [call.kind for call in calls]


def test_seeded_calls_where_nothing_is_given():
    calls = made()
    assert kinds(calls) == ["seeded"] * 4
    assert [call.inputs["x"].shape[0] for call in calls] == [2, 3, 1, 2]
    again = made()
    assert all((a.inputs["x"] == b.inputs["x"]).all() for a, b in zip(calls, again, strict=True))
    assert len(made(samples=7)) == 7
    assert (made(seed=1)[0].inputs["x"] != calls[0].inputs["x"]).any()


def test_a_file_takes_the_place_of_the_usual_ones(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((5, 2), np.float32), labels=np.arange(5))
    (call,) = made(files=tmp_path / "a.npz")
    assert call.kind == "file"
    assert call.beside["labels"].tolist() == [0, 1, 2, 3, 4]
    assert kinds(made(files=tmp_path / "a.npz", samples=2)) == ["file", "seeded", "seeded"]


def test_edges_come_on_top():
    calls = made(edges=True, samples=1)
    assert kinds(calls)[0] == "seeded"
    assert {call.origin for call in calls[1:]} >= {"NaN", "batch of 0", "denormals"}


def test_warmup_requests_by_signature_tensor_and_examples(tmp_path):
    signatures = {
        "classify": signature(examples=(DType.STRING, (None,))),
        "serving_default": signature(x=(DType.FLOAT, (None, 2))),
    }
    array = np.ones((1, 2), np.float32)
    examples = np.array([b"e"], object)
    file = tmp_path / "w"
    file.write_bytes(
        encode_requests(
            [
                Request("serving_default", {"x": array}, "one"),
                Request("classify", {"examples": examples}, "two"),
                Request("gone", {"x": array}, "three"),
            ]
        )
    )
    calls = made(signatures, warmup=file, samples=0)
    assert [(call.signature, call.kind, call.origin) for call in calls] == [
        ("classify", "warmup", "two"),
        ("serving_default", "warmup", "one"),
    ]


def test_kept_calls_are_made_again(tmp_path):
    calls = made(edges=True)
    file = tmp_path / "inputs.tfrecord"
    file.write_bytes(encode_requests(kept_requests(calls)))
    again = made(files=file)
    assert [call.origin for call in again] == [f"{c.kind}: {c.origin}" for c in calls]
    for before, after in zip(calls, again, strict=True):
        assert before.inputs["x"].tobytes() == after.inputs["x"].tobytes()
    assert {request.signature for request in read_requests(file)} == {"serving_default"}


def test_what_fits_no_signature(tmp_path):
    with pytest.raises(StageFailed, match="no signature has an input named 'z'"):
        made(wishes={"z": Wish()})
    np.savez(tmp_path / "a.npz", y=np.zeros(2))
    with pytest.raises(StageFailed, match="holds y, no signature's inputs") as caught:
        made(files=tmp_path / "a.npz")
    assert "serving_default: x" in caught.value.hint


def test_words_for_an_input_of_numbers_are_refused():
    with pytest.raises(StageFailed, match="input 'x' is float32, and the recipe has words for it"):
        made(wishes={"x": Wish(choices=("a",))})
