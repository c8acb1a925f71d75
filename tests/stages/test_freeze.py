"""The freeze stage: its figures, its parameters' defaults, and what its result is called."""

from __future__ import annotations

import pytest

from freezeflow.errors import ModelRefused
from freezeflow.graph import attrs
from freezeflow.graph.verify import verify
from freezeflow.stages import freeze
from freezeflow.stages.stage import StageInput
from freezeflow.values import DType, ModelSource
from tests.graphs import const, graph, model, node, placeholder, spec

F = DType.FLOAT
SOURCE = ModelSource(kind="saved_model", path="model")


class Context:
    def warn(self, line):
        pass

    def log(self, line):
        pass


def loaded(*more, output="r"):
    return model(
        graph(
            placeholder("serving_x"),
            node("v", "VarHandleOp", dtype=F, shape=attrs.of_shape(())),
            const("one", 1.0),
            node("write", "AssignAddVariableOp", "v", "one", dtype=F),
            node("r", "ReadVariableOp", "v", dtype=F),
            node("seen", "ReadVariableOp", "v", "^write", dtype=F),
        ),
        {"x": spec("serving_x")},
        {"y": spec(output)},
        variables={"v": const("v", 2.0)},
    )


def run(made, **params):
    return freeze.STAGE.run(
        StageInput(model=made, source=SOURCE), freeze.Params(**params), Context()
    )


def test_figures():
    outcome = run(loaded())
    assert verify(outcome.model) == ()
    assert outcome.facts["variables_frozen"] == 1
    assert outcome.facts["init"] == []


def test_ends_have_the_signatures_names():
    (signature,) = run(loaded()).model.signatures.values()
    assert (signature.inputs["x"].tensor, signature.outputs["y"].tensor) == ("x", "y")


def test_ends_keep_the_graphs_names_by_wish():
    (signature,) = run(loaded(), names="graph").model.signatures.values()
    assert (signature.inputs["x"].tensor, signature.outputs["y"].tensor) == ("serving_x", "r")


def test_a_write_that_is_seen_is_refused():
    with pytest.raises(ModelRefused, match="written by AssignAddVariableOp"):
        run(loaded(output="seen"))
