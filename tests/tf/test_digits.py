"""The demo's model from its files to the verdict, stage by stage, in this process."""

from pathlib import Path

from freezeflow.stages import fold, freeze, load, strip, validate
from freezeflow.stages.stage import StageInput
from freezeflow.values import ModelSource
from tests.tf.built import FakeContext

PIPELINES = Path(__file__).resolve().parents[2] / "pipelines"


def test_the_digits_stay_right(tmp_path):
    source = ModelSource(kind="saved_model", path=PIPELINES / "digits" / "model")
    context = FakeContext(tmp_path, base=PIPELINES)
    model = None
    facts = {}
    for stage, params in (
        (load.STAGE, {}),
        (freeze.STAGE, {}),
        (strip.STAGE, {}),
        (fold.STAGE, {}),
        (validate.STAGE, {"inputs": "digits/held_out.npz", "labels": "labels"}),
    ):
        given = StageInput(model=model, source=source)
        outcome = stage.run(given, stage.params(**params), context)
        model = outcome.model
        facts[stage.name] = outcome.facts
    found = facts["validate"]["verdict"]["signatures"]["serving_default"]
    assert found["equal"] is True
    assert found["accuracy"]["original"] == found["accuracy"]["result"] > 0.9
    assert facts["fold"]["nodes_after"] < facts["fold"]["nodes_before"] / 2
    assert facts["fold"]["bytes_after"] < facts["fold"]["bytes_before"]
    # Each of the three batch norms is one product and one sum of constants now.
    assert not any(node.op == "Rsqrt" for node in model.graph.nodes.values())


def test_the_committed_model_is_small_and_names_no_place():
    files = [path for path in (PIPELINES / "digits").rglob("*") if path.is_file()]
    model_bytes = sum(path.stat().st_size for path in files if "model" in path.parts)
    assert model_bytes < 300_000
    for path in files:
        if path.suffix != ".py":
            data = path.read_bytes()
            assert b"site-packages" not in data
            assert b"/home/" not in data
