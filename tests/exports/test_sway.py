"""Models that make much of rounding: what their own answers show is allowed, and no fault beyond it."""

import re

import numpy as np
import pytest
import tensorflow as tf

from freezeflow.errors import ValidationFailed
from freezeflow.exports import onnx
from freezeflow.exports.check import Trial, _bad, _judged
from freezeflow.proof.calls import Wanted
from freezeflow.runtimes.runtime import FLOAT16, FLOAT32, Names, Subject
from freezeflow.values import Signature
from tests.exports.running import Branches

SUBJECT = Subject(file=None, names=Names({}, {}), signature_name="s", signature=Signature({}, {}))


class Steep(tf.Module):
    """Sums of a thousand squares, of which a cosine sees the fourth place behind the point."""

    @tf.function(input_signature=[tf.TensorSpec([8, 1000], tf.float32, name="x")])
    def serve(self, x):
        return {"y": tf.cos(10.0 * tf.reduce_sum(tf.square(x), axis=1))}


def judged(difference, moved, precision=FLOAT32):
    original = {"y": np.linspace(-1, 1, 64, dtype=np.float32)}
    found = {"y": (original["y"] + difference).astype(np.float32)}
    trial = Trial(Wanted(), None, None, {})
    subject = Subject(**{**vars(SUBJECT), "precision": precision})
    answers = [[original], [original], [found]]
    sways = [{"y": np.broadcast_to(moved, (64,))}]
    return _bad(_judged(subject, onnx.RUNTIME, trial, answers, ["call"], sways))


@pytest.mark.parametrize(
    ("difference", "moved", "passes"),
    [
        (1e-3, 0.0, False),
        (1e-3, 5e-4, False),
        (1e-3, 1.1e-3, True),
        # No more than half precision has, whatever the original does.
        (3e-3, 10.0, False),
    ],
)
def test_as_much_as_the_original_moves_is_allowed(difference, moved, passes):
    assert (not judged(difference, moved)) is passes


def test_a_steep_element_excuses_no_other_one():
    steep = np.zeros(64)
    steep[0] = 1.0
    assert not judged(1e-3 * steep, steep)
    assert judged(1e-3 * np.ones(64), steep)
    # A little more than an element was seen to move is what other roundings make of it.
    assert not judged(4e-5 * np.ones(64), steep + 1e-5)
    assert judged(4e-4 * np.ones(64), steep + 1e-5)


def test_a_coarser_precision_is_not_narrowed():
    assert not judged(FLOAT16.atol * 0.9, 0.0, FLOAT16)


@pytest.mark.slow
def test_a_steep_model_and_what_the_hint_says(tmp_path):
    module = Steep()
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=module.serve)

    def ran(name, **check):
        (tmp_path / name).mkdir()
        params = {"to": "m.onnx", "format": "onnx", **({"check": check} if check else {})}
        return Branches(tmp_path / name, {"o": params}, model=tmp_path / "model", jobs=1)

    error = ran("wished", atol=0.0, rtol=0.0).error("o")
    assert isinstance(error, ValidationFailed)
    enough = re.search(r"`atol: ([\d.e-]+)` would let it pass", error.hint)
    assert enough, error.hint
    assert "sway" not in ran("enough", atol=float(enough[1]), rtol=0.0).facts("o")["check"]
