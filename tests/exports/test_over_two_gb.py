"""Weights that no single file can hold: what is written instead loads and runs where it should."""

import shutil
import struct

import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf

import freezeflow
from freezeflow.errors import ModelRefused
from freezeflow.exports import frozen_graph, saved_model
from freezeflow.graph.canonical import canonical
from freezeflow.graph.constants import const as made_const
from freezeflow.machine import available_bytes
from freezeflow.values import Digest, DType, TensorRef
from tests.checkpoint.written import location_of
from tests.exports.models import asked
from tests.exports.running import Branches
from tests.exports.test_in_tensorflow import load_tf2
from tests.exports.test_weights import run_mapped
from tests.graphs import const, graph, node, placeholder, spec
from tests.graphs import model as model_of_nodes

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def nothing_is_kept(tmp_path):
    """These files are too large to be looked at later."""
    yield
    shutil.rmtree(tmp_path)


THIRTEEN = (13, 50_000_000)  # 13 variables of 200 MB
ONE = (1, 575_000_000)  # one of 2.3 GB


def huge(folder, count, elements):
    """y = x + the last elements of some vectors, which are zeros but for those; their files are sparse."""
    folder.mkdir()
    last = const("last", elements - 1, DType.INT32)
    nodes, terms = [placeholder("x"), last, const("axis", 0, DType.INT32)], ["x"]
    for number in range(count):
        path = folder / f"w{number}"
        with open(path, "wb") as file:
            file.truncate(4 * elements)
            file.seek(4 * (elements - 1))
            file.write(struct.pack("<f", number + 1.0))
        place = location_of(path, 0, 4 * elements)
        tensor = TensorRef(Digest.of(b"%d" % number), DType.FLOAT, (elements,), place)
        nodes += [
            made_const(f"w{number}", DType.FLOAT, (elements,), tensor),
            node(f"g{number}", "GatherV2", f"w{number}", "last", "axis",
                 Tparams=DType.FLOAT, Tindices=DType.INT32, Taxis=DType.INT32, batch_dims=0),
        ]  # fmt: skip
        terms.append(f"g{number}")
    nodes.append(node("y", "AddN", *terms, N=count + 1, T=DType.FLOAT))
    return canonical(model_of_nodes(graph(*nodes), {"x": spec("x")}, {"y": spec("y")}))


@pytest.mark.parametrize("shape", [THIRTEEN, ONE], ids=["thirteen", "one"])
def test_mapped_from_files(shape, tmp_path):
    model = huge(tmp_path / "in", *shape)
    with pytest.raises(ModelRefused, match=r"at most 2\.00 GiB"):
        frozen_graph.write(asked(model, tmp_path / "no.pb", params=frozen_graph.Params()))
    params = frozen_graph.Params(weights="external")
    frozen_graph.write(asked(model, tmp_path / "m.pb", params=params))
    assert (tmp_path / "m.pb").stat().st_size < 20_000
    graph_def = freezeflow.load_graph(tmp_path / "m.pb")
    found = run_mapped(graph_def, "y:0", {"x:0": 0.5})
    assert found == 0.5 + sum(range(1, shape[0] + 1))


def test_restored_from_a_checkpoint(tmp_path):
    model = huge(tmp_path / "in", *ONE)
    saved_model.write(asked(model, tmp_path / "m", params=saved_model.Params()))
    assert (tmp_path / "m" / "saved_model.pb").stat().st_size < 20_000
    found = load_tf2(tmp_path / "m", {"x": np.float32(0.5)})
    assert found["y"] == 1.5
    names = tf.train.list_variables(str(tmp_path / "m" / "variables" / "variables"))
    assert names == [("w0", [ONE[1]])]


def test_checked_by_every_loader(tmp_path):
    """By the exports themselves, and once more the very files."""
    saved_model.write(
        asked(huge(tmp_path / "in", *ONE), tmp_path / "m", params=saved_model.Params())
    )
    exports = {
        "folder": {"to": "folder", "format": "saved_model", "check": True},
        "graph": {"to": "graph/m.pb", "weights": "external", "check": True},
    }
    found = {"tf2_loader": "folder", "tf1_loader": "folder", "tensorflow": "graph"}
    checks = {name: (export, {"runtime": name, "samples": 2}) for name, export in found.items()}
    ran = Branches(tmp_path, exports, model=tmp_path / "m", jobs=1, checks=checks)
    verdicts = [*ran.facts("folder")["checks"], *ran.facts("graph")["checks"]]
    verdicts += [ran.facts(name)["runtime_verdicts"][0] for name in found]
    assert [verdict["runtime"].split()[0] for verdict in verdicts] == [*found] * 2
    assert {verdict["outputs"]["y"]["max_abs"] for verdict in verdicts} == {0.0}


def test_onnx_beside_a_file_with_the_weights(tmp_path):
    model = huge(tmp_path / "in", *THIRTEEN)
    saved_model.write(asked(model, tmp_path / "m", params=saved_model.Params()))
    exports = {"onnx": {"to": "out/m.onnx", "format": "onnx", "check": False}}
    ran = Branches(tmp_path, exports, model=tmp_path / "m", jobs=1)
    facts = ran.facts("onnx")
    assert facts["external_data"]
    path = tmp_path / "out" / "m.onnx"
    assert path.stat().st_size < 10_000
    assert path.with_name("m.onnx.data").stat().st_size >= 13 * 200_000_000
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.array(0.5, np.float32)})[0] == 0.5 + sum(range(1, 14))


@pytest.mark.skipif(available_bytes() < 12e9, reason="less than 12 GB of memory are free")
@pytest.mark.parametrize("level", ["exact", "served"])
def test_proven(level, tmp_path):
    model = huge(tmp_path / "in", *ONE)
    saved_model.write(asked(model, tmp_path / "m", params=saved_model.Params()))
    shutil.rmtree(tmp_path / "in")
    checks = {"proof": ("strip", {"level": level})}
    ran = Branches(tmp_path, {}, model=tmp_path / "m", jobs=1, checks=checks)
    facts = ran.facts("proof")
    assert facts["verdict"]["settings"]["weights"] == "mapped"
    assert facts["verdict"]["level"] == level
    assert facts["tensor_bytes"] > 2**31
    # The original beside the result, and TensorFlow.
    assert facts["own_peak_bytes"] < 2.2 * facts["tensor_bytes"] + 0.7e9
