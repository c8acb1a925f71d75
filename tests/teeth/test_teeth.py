"""Validation has teeth: faults are caught, the node that is at fault is named, nothing else is."""

import functools
import json
import re

import numpy as np
import pytest

from freezeflow.errors import ValidationFailed
from freezeflow.graph.verify import verify
from freezeflow.stages.stage import StageInput
from freezeflow.stages.validate import STAGE, Params
from freezeflow.tf.subgraph import replay_subgraph
from tests.constructs import harness
from tests.teeth.faults import FAULTS, nodes_named
from tests.teeth.models import MODELS, Dense, save
from tests.tf.built import FakeContext

QUICK = (
    "flipped_weight_bit",
    "one_ulp_more_everywhere",
    "swapped_inputs",
    "a_dropped_bias",
    "a_cast_too_many",
    "another_op",
)


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    """Model class to its source and its frozen model, made once."""

    @functools.cache
    def make(model_class):
        folder = tmp_path_factory.mktemp(model_class.__name__)
        source = harness.saved_model(save(model_class, 1, folder / "saved"))
        (folder / "scratch").mkdir()
        return source, harness.freeze_model(source, folder / "scratch")

    return make


def validate(source, model, folder, **params):
    """The verdict on a model; with evidence in the folder where it differs."""
    folder.mkdir()
    context = FakeContext(folder)
    try:
        given = StageInput(model=model, source=source)
        return STAGE.run(given, Params(**params), context).facts["verdict"]
    except ValidationFailed:
        return json.loads((folder / "evidence" / "verdict.json").read_text())


def test_there_are_enough_kinds_of_fault():
    assert len(FAULTS) >= 20
    assert len(MODELS) == 5


@pytest.mark.parametrize("kind", QUICK)
def test_a_fault_is_caught_and_its_node_named(frozen, tmp_path, kind):
    source, model = frozen(Dense)
    caught = 0
    for number, faulty in enumerate(FAULTS[kind](model, np.random.default_rng(1))):
        folder = tmp_path / str(number)
        verdict = validate(source, faulty.model, folder, samples=3)
        if verdict["equal"]:
            continue  # (a - b) squared is (b - a) squared
        caught += 1
        found = verdict["divergence"]
        assert nodes_named(found) & faulty.blamed, found
        # What was saved shows the difference by itself.
        assert found["subgraph"]
        again = replay_subgraph(folder / "evidence" / "subgraph")
        assert again["equal"] is False
        assert again["node"] == found["node"]
    assert caught


def test_calls_run_without_grappler_too(frozen, tmp_path):
    """Grappler would turn the division by a root in a function into a product with other bytes."""
    source, model = frozen(Dense)
    assert validate(source, model, tmp_path / "v", samples=8)["equal"] is True


def blamed_by(verdict):
    """The nodes that a verdict names: where values part, or where the result refuses a call."""
    if verdict["divergence"] is not None:
        return nodes_named(verdict["divergence"])
    refusals = [text for found in verdict["signatures"].values() for text in found["disagreements"]]
    return {name for text in refusals for name in re.findall(r"\(node ([^)]*)\)", text)}


@pytest.mark.slow
@pytest.mark.parametrize("model_class", MODELS, ids=lambda model: model.__name__)
def test_every_fault_outside_tolerance_is_caught(frozen, tmp_path, model_class):
    source, model = frozen(model_class)
    caught, named = 0, []
    for kind, make in FAULTS.items():
        for number, faulty in enumerate(make(model, np.random.default_rng(1))):
            assert verify(faulty.model) == (), kind
            folder = tmp_path / f"{kind}-{number}"
            verdict = validate(source, faulty.model, folder, samples=6)
            if verdict["equal"]:
                # What few calls do not show, many may; if they do not, it is within tolerance.
                more = tmp_path / f"{kind}-{number}-more"
                verdict = validate(source, faulty.model, more, samples=64, seed=9)
            if verdict["equal"]:
                continue
            caught += 1
            found = verdict["divergence"]
            is_named = bool(blamed_by(verdict) & faulty.blamed)
            named.append((is_named, kind, found))
    wrong = [entry for entry in named if not entry[0]]
    assert caught >= 20
    assert len(wrong) <= 0.05 * caught, wrong


@pytest.mark.slow
@pytest.mark.parametrize("model_class", MODELS, ids=lambda model: model.__name__)
def test_no_false_alarm_in_forty_runs(frozen, tmp_path, model_class):
    source, model = frozen(model_class)
    for seed in range(40):
        verdict = validate(
            source, model, tmp_path / str(seed), samples=1, seed=seed, edges=not seed
        )
        assert verdict["equal"], verdict
