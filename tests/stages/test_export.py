import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from freezeflow.errors import StageFailed
from freezeflow.graph.read import GraphReader
from freezeflow.messages import message_class
from freezeflow.stages.export import STAGE
from freezeflow.stages.stage import StageInput
from freezeflow.values import ModelSource
from tests.exports.models import dense
from tests.graphs import node

SOURCE = ModelSource(kind="saved_model", path=Path("model"))


@dataclasses.dataclass
class Place:
    """As much of a stage's context as export uses."""

    base: Path
    recipe_digest: str | None = None


def made(params):
    return STAGE.params_for(params)(**params)


def run(model, place, **params):
    return STAGE.run(StageInput(model=model, source=SOURCE), made(params), place)


def test_the_canonical_form_is_written_and_the_model_handed_on(tmp_path):
    model = dense(tmp_path / "in")
    outcome = run(model, Place(tmp_path, "blake3:12"), to="build/m.pb")
    assert outcome.model is model
    assert [file.path for file in outcome.files] == [
        tmp_path / "build" / "m.pb",
        tmp_path / "build" / "m.manifest.json",
    ]
    message = message_class("GraphDef").FromString((tmp_path / "build" / "m.pb").read_bytes())
    graph = GraphReader(message).graph()
    assert list(graph.nodes) == ["w", "x", "dot", "relu", "y"]
    assert list(graph.functions) == ["halve"]
    assert graph.nodes["relu"].device == ""
    assert outcome.facts == {
        "format": "frozen_graph",
        "bytes": sum(file.nbytes for file in outcome.files),
        "nodes": 5,
        "functions": 1,
        "unknown_ops": {},
    }
    manifest = json.loads(outcome.files[1].path.read_text())
    assert manifest["recipe"] == {"digest": "blake3:12"}


def test_devices_and_defaults_on_request(tmp_path):
    run(dense(tmp_path / "in"), Place(tmp_path), to="m.pb", devices=True, drop_defaults=True)
    message = message_class("GraphDef").FromString((tmp_path / "m.pb").read_bytes())
    nodes = GraphReader(message).graph().nodes
    assert nodes["relu"].device == "/device:CPU:0"
    assert list(nodes["dot"].attrs) == ["T"]


def test_as_a_saved_model(tmp_path):
    outcome = run(dense(tmp_path / "in"), Place(tmp_path), to="out", format="saved_model")
    assert outcome.files[0].path == tmp_path / "out" / "saved_model.pb"


def test_an_invalid_graph_is_never_written(tmp_path):
    model = dense(tmp_path / "in")
    model.graph.nodes["dot"] = node(
        "dot", "MatMul", "x", "gone", T=model.graph.nodes["dot"].attrs["T"]
    )
    with pytest.raises(StageFailed, match="dot: takes 'gone', which is not there"):
        run(model, Place(tmp_path), to="m.pb")
    assert not (tmp_path / "m.pb").exists()
    with pytest.raises(StageFailed, match="no model"):
        run(None, Place(tmp_path), to="m.pb")


@pytest.mark.parametrize(
    ("params", "name", "text"),
    [
        ({"to": "m.bp"}, "to", "ends in .pb or .pbtxt, not as 'm.bp'"),
        ({"to": "m.pb", "format": "savedmodel"}, "format", "Did you mean 'saved_model'?"),
    ],
)
def test_what_does_not_fit_is_told_before_the_run(tmp_path, params, name, text):
    ((found, message),) = STAGE.problems(made(params))
    assert found == name
    assert text in message
    with pytest.raises(StageFailed, match=f"export.{name}"):
        run(dense(tmp_path / "in"), Place(tmp_path), **params)


def test_what_fits_passes():
    for params in ({"to": "m.pb"}, {"to": "m.pbtxt"}, {"to": "out", "format": "saved_model"}):
        assert STAGE.problems(made(params)) == []


def test_neither_tensorflow_nor_numpy_is_imported():
    program = (
        "import sys, freezeflow.stages.export as e, freezeflow.stages.strip;"
        "e.problems(e.Params(to='m.pb')); e.problems(e.Params(to='m', format='saved_model'));"
        "print([m for m in ('tensorflow', 'numpy', 'networkx', 'jsonschema') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert found.stdout.strip() == "[]"
