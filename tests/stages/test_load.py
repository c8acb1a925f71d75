"""The load stage: its figures, and that it starts a chain."""

from __future__ import annotations

import io

from freezeflow.engine.context import StepContext
from freezeflow.graph.write import graph_def_bytes
from freezeflow.stages import load
from freezeflow.stages.stage import StageInput
from freezeflow.values import DType, ModelSource
from tests.graphs import graph, node, placeholder


def test_figures_of_a_graph_file(tmp_path):
    made = graph(placeholder("x"), node("y", "Neg", "x", T=DType.FLOAT))
    (tmp_path / "graph.pb").write_bytes(graph_def_bytes(made))
    source = ModelSource(kind="frozen_graph", path=tmp_path / "graph.pb")
    context = StepContext(tmp_path, tmp_path, None, io.StringIO())
    outcome = load.STAGE.run(StageInput(model=None, source=source), load.Params(), context)
    assert outcome.model.source_kind == "frozen_graph"
    assert outcome.model.source_digest is not None
    assert {k: outcome.facts[k] for k in ("variables", "variable_bytes", "functions")} == {
        "variables": 0, "variable_bytes": 0, "functions": 0,
    }  # fmt: skip
    assert load.STAGE.role == "load"
