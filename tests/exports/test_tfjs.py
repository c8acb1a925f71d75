import json

import numpy as np
import pytest

from freezeflow.errors import ModelRefused
from freezeflow.exports import tfjs
from freezeflow.graph.profile import look
from freezeflow.values import DType
from tests.graphs import const, graph, model, node, placeholder, spec


def test_the_verdict_and_the_sizes(ran):
    full = ran.facts("tfjs")
    for branch, share in (("tfjs-float16", 0.8), ("tfjs-uint16", 0.8), ("tfjs-uint8", 0.6)):
        facts = ran.facts(branch)
        assert facts["bytes"] < share * full["bytes"]
        assert facts["check"]["runtime"].startswith("tfjs 4.")
    assert full["check"]["outputs"]["probabilities"]["max_abs"] < 1e-5


def test_the_folder(ran):
    folder = ran.folder / "js" / "unchecked" / "m"
    names = {path.name for path in folder.iterdir()}
    assert names == {"model.json", "group1-shard1of1.bin", "freezeflow.manifest.json"}
    written = json.loads((folder / "model.json").read_text())
    (group,) = written["weightsManifest"]
    sizes = {"float32": 4, "int32": 4, "bool": 1}
    total = sum(
        sizes[weight["dtype"]] * int(np.prod(weight["shape"], dtype=int))
        for weight in group["weights"]
    )
    assert total == (folder / "group1-shard1of1.bin").stat().st_size
    ends = written["signature"]
    assert set(ends["inputs"]) | set(ends["outputs"]) == {"image", "probabilities"} or ends
    topology = {each["name"]: each for each in written["modelTopology"]["node"]}
    for end in (*ends["inputs"].values(), *ends["outputs"].values()):
        assert end["name"].removesuffix(":0") in topology
    convolutions = [each for each in topology.values() if each["op"] == "Conv2D"]
    assert all("dilations" in each["attr"] for each in convolutions)


def made(*nodes, y="x"):
    whole = graph(placeholder("x", shape=(2,)), *nodes, node("y", "Identity", y, T=DType.FLOAT))
    return model(whole, {"x": spec("x", shape=(2,))}, {"y": spec("y", shape=(2,))})


def test_sizes_of_0_are_written(tmp_path):
    whole = graph(placeholder("x", shape=(0, 3)), node("y", "Identity", "x", T=DType.FLOAT))
    ends = {"x": spec("x", shape=(0, 3))}, {"y": spec("y", shape=(0, 3))}
    tfjs._write_model(model(whole, *ends), tmp_path, "none")
    topology = json.loads((tmp_path / "model.json").read_text())["modelTopology"]
    (x,) = (each for each in topology["node"] if each["name"] == "x")
    assert x["attr"]["shape"]["shape"]["dim"] == [{"size": "0"}, {"size": "3"}]


def test_weights_are_cut_into_shards_and_narrowed(tmp_path, monkeypatch):
    monkeypatch.setattr(tfjs, "_SHARD_BYTES", 10)
    ends = const("ends", [2**63 - 1, -3], DType.INT64)
    words = const("words", [b"ab", b"", b"c"], DType.STRING)
    facts = tfjs._write_model(made(ends, words), tmp_path, "none")
    assert facts == {"weights": 2, "shards": 3}
    data = b"".join((tmp_path / f"group1-shard{n}of3.bin").read_bytes() for n in (1, 2, 3))
    assert np.frombuffer(data[:8], np.int32).tolist() == [2**31 - 1, -3]
    assert data[8:] == b"\2\0\0\0ab\0\0\0\0\1\0\0\0c"
    (group,) = json.loads((tmp_path / "model.json").read_text())["weightsManifest"]
    assert [weight["dtype"] for weight in group["weights"]] == ["int32", "string"]


@pytest.mark.parametrize("kind", ["uint8", "uint16"])
def test_quantised_weights_keep_zero_and_their_range(kind):
    values = np.linspace(-1.0, 3.0, 101, dtype=np.float32)
    values[17] = 0.0
    entry, data = tfjs._quantised({"name": "w"}, values, kind)
    told = entry["quantization"]
    back = np.frombuffer(data, kind) * told["scale"] + told["min"]
    assert np.max(np.abs(back - values)) <= told["scale"] * 1.01
    assert abs(back[17]) < 1e-12


def test_integers_that_it_does_not_have(tmp_path):
    weight = const("w", [2**40], DType.INT64)
    with pytest.raises(ModelRefused, match="no integers of more than 32 bits") as caught:
        tfjs._write_model(made(weight), tmp_path, "none")
    assert caught.value.where == "w"


@pytest.mark.parametrize(
    ("odd", "text"),
    [
        (const("odd", [1.0], DType.DOUBLE), "no float64 constants"),
        (
            node("odd", "Cast", "x", SrcT=DType.FLOAT, DstT=DType.INT16),
            "not take Cast with DstT int16: odd",
        ),
        (
            node("odd", "GatherV2", "x", "x", "x", Tparams=DType.STRING),
            "not take GatherV2 with Tparams string: odd",
        ),
    ],
)
def test_types_that_it_does_not_have(odd, text):
    with pytest.raises(ModelRefused, match=text) as caught:
        look(made(odd, y="odd"), tfjs.profile())
    assert caught.value.where == "odd"


@pytest.mark.parametrize("op", ["AudioSpectrogram", "Case", "Switch"])
def test_ops_that_it_does_not_have(op):
    with pytest.raises(ModelRefused, match=rf"{op} \(odd\)"):
        look(made(node("odd", op, "x"), y="odd"), tfjs.profile())
