import pytest

from freezeflow.errors import ValidationFailed
from freezeflow.exports.registry import RUNTIMES, format_named
from freezeflow.stages import validate


def test_another_runtime_answers_as_the_original_does(ran):
    verdict = ran.facts("validated")["runtime_verdict"]
    assert verdict["runtime"].startswith("onnxruntime ")
    assert verdict["calls"] == 2
    assert verdict["precision"] == "float32"
    assert {"onnxruntime", "tf2onnx", "tensorflow"} <= set(ran.plan_step("validated").tools)


def test_a_difference_fails_the_step(ran):
    error = ran.error("validated-strict")
    assert isinstance(error, ValidationFailed)
    assert "is not what the original gives" in error.message


def test_every_runtime_belongs_to_a_format():
    for name in RUNTIMES.values():
        assert hasattr(format_named(name).params(), "check")


@pytest.mark.parametrize(
    ("params", "name"), [({"edges": True}, "edges"), ({"inputs": {"x": "x.npy"}}, "inputs")]
)
def test_what_it_does_not_go_with(params, name):
    found = validate.STAGE.problems(validate.Params(runtime="openvino", **params))
    assert [key for key, _ in found] == [name]
