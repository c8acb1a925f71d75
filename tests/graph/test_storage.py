"""Models written down for the store, and read back."""

from __future__ import annotations

import dataclasses
import json
import os

import pytest
from hypothesis import HealthCheck, given, settings

from freezeflow.graph.model import Asset
from freezeflow.graph.storage import decode_model, encode_model, tensor_digests
from freezeflow.values import Digest, DType, Location, TensorRef
from tests.graph.random_graphs import graphs
from tests.graphs import const, graph, large_const, model, node, placeholder, spec

F = DType.FLOAT


def full_model(folder):
    weight = large_const("w", folder / "weights", os.urandom(8000), (2000,))
    location = Location(str(folder / "words"), 0, 5, 1, 5, 2)
    return model(
        graph(
            placeholder("x"),
            node("v", "VarHandleOp", dtype=F),
            node("u", "VarHandleOp", dtype=F),
            node("r", "ReadVariableOp", "v", dtype=F),
            const("file", b"words.txt", DType.STRING),
            weight,
        ),
        {"x": spec("x", F, (None, 3))},
        {"y": spec("r", F, None)},
        init=("r",),
        variables={"v": weight._replace(name="v"), "u": const("u", [1.0, 2.0])},
        assets=(Asset(name="words.txt", tensor="file", content=TensorRef(
            Digest.of(b"words"), DType.UINT8, (5,), location)),),
        source_kind="saved_model",
        source_digest=Digest.of(b"source"),
    )  # fmt: skip


def locations_of(tensors):
    return {tensor.digest: tensor.location for tensor in tensors}


def test_everything_comes_back(tmp_path):
    made = full_model(tmp_path)
    data, record, tensors = encode_model(made)
    assert decode_model(data, record, locations_of(tensors)) == made
    assert set(tensor_digests(record)) == {tensor.digest for tensor in tensors}
    assert len(tensors) == 2, "a content that is used twice is kept once"


@given(graphs())
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_any_graph_comes_back(made):
    reached = model(made, {"x": spec("x")}, {"y": spec("x")})
    data, record, tensors = encode_model(reached)
    again = decode_model(data, record, locations_of(tensors))
    assert again.graph.nodes == made.nodes
    assert again.signatures == reached.signatures
    assert encode_model(again)[1] == record


def test_where_tensors_lie_does_not_show(tmp_path):
    (tmp_path / "other").mkdir()
    one = full_model(tmp_path)
    moved = {
        t.digest: t.location._replace(path="/elsewhere", offset=7) for t in encode_model(one)[2]
    }
    two = decode_model(*encode_model(one)[:2], moved)
    assert encode_model(two)[:2] == encode_model(one)[:2]


def test_a_tensor_without_a_place(tmp_path):
    data, record, _ = encode_model(full_model(tmp_path))
    with pytest.raises(KeyError):
        decode_model(data, record, {})


def test_another_format_is_told(tmp_path):
    data, record, tensors = encode_model(full_model(tmp_path))
    other = json.dumps({**json.loads(record), "format": "freezeflow.model/99"}).encode()
    with pytest.raises(ValueError, match=r"freezeflow\.model/99"):
        decode_model(data, other, locations_of(tensors))


def test_definitions_of_unknown_ops_come_back(tmp_path):
    from freezeflow.graph.ops import ArgDef, OpDef

    definition = OpDef("Mystery", (), (ArgDef("out", F, "", "", "", False),), {}, {}, True)
    made = dataclasses.replace(graph(node("m", "Mystery")), op_defs={"Mystery": definition})
    data, record, _ = encode_model(model(made, {}, {"y": spec("m")}))
    assert decode_model(data, record, {}).graph.op_defs == {"Mystery": definition}
