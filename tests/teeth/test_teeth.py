"""Validation has teeth: faults are caught, the node that is at fault is named, nothing else is."""

import functools

import numpy as np
import pytest

from freezeflow.tf.subgraph import replay_subgraph
from tests.teeth.bites import bites, false_alarms, frozen_model, validate
from tests.teeth.faults import FAULTS, nodes_named
from tests.teeth.models import MODELS, Dense, Frames

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
        return frozen_model(model_class, tmp_path_factory.mktemp(model_class.__name__))

    return make


def test_there_are_enough_models_and_each_kind_of_fault_can_be_put_into_one(frozen):
    assert len(MODELS) >= 5
    assert len(FAULTS) >= 20
    models = [frozen(model_class)[1] for model_class in MODELS]
    for kind, make in FAULTS.items():
        made = (next(iter(make(model, np.random.default_rng(1))), None) for model in models)
        assert any(made), kind


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


@pytest.mark.parametrize(
    "kind", ["flipped_weight_bit", "two_weights_exchanged", "a_counter_that_stands_still"]
)
def test_a_fault_in_a_loop_of_frames_is_caught_and_its_node_named(frozen, tmp_path, kind):
    source, model = frozen(Frames)
    for number, faulty in enumerate(FAULTS[kind](model, np.random.default_rng(1))):
        folder = tmp_path / str(number)
        verdict = validate(source, faulty.model, folder, samples=2, call_seconds=2.0)
        assert not verdict["equal"]
        assert nodes_named(verdict["divergence"]) & faulty.blamed, verdict["divergence"]


def test_calls_run_without_grappler_too(frozen, tmp_path):
    """Grappler would turn the division by a root in a function into a product with other bytes."""
    source, model = frozen(Dense)
    assert validate(source, model, tmp_path / "v", samples=8)["equal"] is True


@pytest.mark.slow
@pytest.mark.parametrize("model_class", MODELS, ids=lambda model: model.__name__)
def test_every_fault_outside_tolerance_is_caught(frozen, tmp_path, model_class):
    caught = [bite for bite in bites(*frozen(model_class), tmp_path) if bite.caught]
    wrong = [(bite.kind, bite.verdict["divergence"]) for bite in caught if not bite.named]
    assert len(caught) >= 20
    assert len(wrong) <= 0.05 * len(caught), wrong


@pytest.mark.slow
@pytest.mark.parametrize("model_class", MODELS, ids=lambda model: model.__name__)
def test_no_false_alarm(frozen, tmp_path, model_class):
    assert list(false_alarms(*frozen(model_class), tmp_path)) == []
