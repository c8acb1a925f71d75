import typing
from pathlib import Path

import pytest

from freezeflow.errors import StageFailed
from freezeflow.graph.strip import PASSING_OPS, SINK_OPS
from freezeflow.stages.stage import StageInput
from freezeflow.stages.strip import STAGE, DebuggingOp
from freezeflow.values import ModelSource
from tests.graph.test_strip import with_debugging

SOURCE = ModelSource(kind="saved_model", path=Path("model"))


def run(model, **params):
    return STAGE.run(StageInput(model=model, source=SOURCE), STAGE.params(**params), None)


def test_facts_count_what_went():
    outcome = run(with_debugging(), remove=("Assert", "CheckNumerics"), identities=True)
    assert outcome.facts == {
        "nodes_before": 21,
        "nodes_after": 12,
        "functions_before": 2,
        "functions_after": 1,
        "removed": {"Assert": 2, "CheckNumerics": 2},
        "identities_removed": 0,
    }
    assert outcome.files == ()


def test_by_default_only_what_nobody_needs_goes():
    facts = run(with_debugging()).facts
    assert facts["removed"] == {}
    assert facts["nodes_after"] == 18


def test_without_a_model_it_says_so():
    with pytest.raises(StageFailed, match="no model"):
        run(None)


def test_the_recipe_offers_exactly_what_can_be_removed():
    assert set(typing.get_args(DebuggingOp)) == PASSING_OPS.keys() | SINK_OPS
