import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from freezeflow.exports.tflite import Params, problems
from tests.exports.running import DIGITS


def predicted(path):
    """Share of the held-out digits that the file takes for what they are; inputs' and outputs' dtypes."""
    data = np.load(DIGITS / "held_out.npz")
    runner = Interpreter(model_path=str(path)).get_signature_runner("serving_default")
    (key, given), (name, gives) = (
        *runner.get_input_details().items(),
        *runner.get_output_details().items(),
    )
    images = data[key]
    if given["dtype"] is np.int8:
        scale, zero = given["quantization"]
        images = np.clip(np.round(images / scale + zero), -128, 127).astype(np.int8)
    scores = runner(**{key: images})[name]
    right = np.mean(np.argmax(scores, -1) == data["labels"])
    return right, np.dtype(given["dtype"]), np.dtype(gives["dtype"])


@pytest.mark.parametrize(
    ("branch", "file", "dtype"),
    [
        ("tflite", "m", np.float32),
        ("tflite-float16", "h", np.float32),
        ("tflite-dynamic", "d", np.float32),
        ("tflite-int8", "i", np.float32),
        ("tflite-integer", "e", np.int8),
    ],
)
def test_the_digits_are_read_whatever_the_precision(ran, branch, file, dtype):
    ran.facts(branch)
    assert predicted(ran.folder / "tflite" / f"{file}.tflite") == (
        pytest.approx(0.95, abs=0.06),
        np.dtype(dtype),
        np.dtype(dtype),
    )


def test_the_smaller_the_numbers_the_smaller_the_file(ran):
    full, half, dynamic, integers = (
        (ran.folder / "tflite" / f"{name}.tflite").stat().st_size for name in "mhdi"
    )
    assert half < 0.7 * full
    assert dynamic < 0.5 * full
    assert integers < 0.5 * full
    assert ran.facts("tflite-int8")["representative_samples"] == len(
        np.load(DIGITS / "held_out.npz")["labels"]
    )
    assert ran.facts("tflite-integer")["representative_samples"] == 20


@pytest.mark.parametrize(
    ("params", "name", "text"),
    [
        ({"precision": "int8"}, "precision", "needs `representative`"),
        ({"representative": "x.npz"}, "representative", "only int8 looks at it"),
        ({"integer_ends": True}, "integer_ends", "only int8 has them"),
    ],
)
def test_what_does_not_go_together(params, name, text):
    ((found, message),) = problems(Params(**params))
    assert found == name
    assert text in message
