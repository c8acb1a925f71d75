import shutil

import pytest

from freezeflow.errors import RecipeError, StageFailed, ValidationFailed
from freezeflow.exports.again import published_subjects
from freezeflow.exports.registry import RUNTIMES, runtime_named
from freezeflow.spec.recipe import load_recipes

MODEL = "version: 1\nmodel: {saved_model: m}\nstages:\n  - load\n  - freeze\n"
BEHIND_ANOTHER = """\
  - export: {to: m.onnx, format: onnx}
  - export: m.pb
  - validate: {runtime: onnxruntime}
"""


def test_another_runtime_answers_as_the_original_does(ran):
    verdict = ran.facts("validated")["runtime_verdicts"][0]
    assert verdict["runtime"].startswith("onnxruntime ")
    assert verdict["calls"] == 2
    assert verdict["precision"] == "float32"
    assert {"onnxruntime", "tensorflow"} <= set(ran.plan_step("validated").tools)


def test_a_difference_fails_the_step(ran):
    error = ran.error("validated-strict")
    assert isinstance(error, ValidationFailed)
    assert "is not what the original gives" in error.message
    assert "(seeded: call " in error.message


def test_it_runs_the_very_file_of_the_export(ran):
    """Files of another precision and of another batch than an export has by default."""
    verdict = ran.facts("validated-openvino")["runtime_verdicts"][0]
    assert verdict["precision"] == "float16"
    assert verdict["outputs"]["probabilities"]["max_abs"] > 0
    assert ran.facts("validated-xla")["runtime_verdicts"][0]["kinds"] == {"seeded": 4}


def test_the_same_inputs_and_labels_as_any_validate(ran):
    verdict = ran.facts("validated-labels")["runtime_verdicts"][0]
    assert verdict["precision"] == "int8"
    assert set(verdict["kinds"]) == {"file"}
    edges = ran.facts("validated-edges")["runtime_verdicts"][0]
    assert edges["kinds"]["edge"] > 5
    found = verdict["accuracy"]
    assert found["labels"] == 64
    assert 0.9 < found["result"] <= 1.0
    assert abs(found["result"] - found["original"]) < 0.05


def test_a_file_that_was_changed_is_not_checked(ran, tmp_path):
    files = {file.path: file.sha256 for file in ran.steps["onnx"].files}
    moved = {}
    for path, digest in files.items():
        shutil.copy(path, tmp_path)
        moved[tmp_path / path.name] = digest
    assert published_subjects(moved, "onnx")[0].file == tmp_path / "m.onnx"
    with pytest.raises(StageFailed, match="no step that it needs has exported tflite"):
        published_subjects(moved, "tflite")
    (tmp_path / "m.onnx").write_bytes(b"other")
    with pytest.raises(StageFailed, match="is not what the export has written"):
        published_subjects(moved, "onnx")


def test_every_runtime_belongs_to_a_format():
    for name, form in RUNTIMES.items():
        chosen, runtime = runtime_named(name)
        assert (chosen.name, runtime.name) == (form, name)
        assert hasattr(chosen.params(), "check")


@pytest.mark.parametrize(
    ("stages", "line"),
    [
        ("  - validate: {runtime: onnxruntime}\n", 6),
        ("  - export: m.pb\n  - validate: {runtime: onnxruntime}\n", 7),
        (BEHIND_ANOTHER, 8),
    ],
)
def test_without_such_an_export_the_recipe_has_a_mistake(tmp_path, stages, line):
    (tmp_path / "freezeflow.toml").touch()
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "saved_model.pb").touch()
    path = tmp_path / "r.yaml"
    path.write_text(MODEL + stages)
    with pytest.raises(RecipeError) as caught:
        load_recipes(path)
    (problem,) = caught.value.problems
    assert problem.mark.line == line
    assert "runs what `export: {format: onnx}` writes" in problem.message
