"""Loops of TF1 that do not hang together are refused; those that TensorFlow runs are not."""

import re

import pytest
import tensorflow as tf

from freezeflow.errors import ModelRefused
from freezeflow.graph import verify
from tests.tf.built import model_of, run

v1 = tf.compat.v1
raw = tf.raw_ops


class Loop:
    """``while x < 4: x += 1``, made by hand."""

    def __init__(self, x, *, frame="f", condition=True, entered=True):
        def enter(data, is_constant):
            return raw.Enter(data=data, frame_name=frame, is_constant=is_constant)

        self.one, self.limit = (enter(tf.constant(c), is_constant=True) for c in (1.0, 4.0))
        start = enter(x, is_constant=False)
        self.head = raw.Merge(inputs=[start, start]).output
        self.goes_on = tf.less(self.head, self.limit)
        if condition:
            self.goes_on = raw.LoopCond(input=self.goes_on)
        out, on = raw.Switch(data=self.head, pred=self.goes_on)
        step = tf.add(on, self.one if entered else tf.constant(1.0))
        self.head.op._update_input(1, raw.NextIteration(data=step))
        self.out = raw.Exit(data=out)


def in_a_loop(x):
    return Loop(x).out


def without_a_loop_cond(x):
    return Loop(x, condition=False).out


def twice(x):
    return Loop(Loop(x).out, frame="g").out


def out_of_no_loop(x):
    return raw.Exit(data=x)


def with_a_constant_from_outside(x):
    return Loop(x, entered=False).out


def without_a_name(x):
    return Loop(x, frame="").out


def with_two_conditions(x):
    loop = Loop(x)
    second = raw.LoopCond(input=loop.goes_on)
    return loop.out + raw.Exit(data=raw.Switch(data=loop.head, pred=second).output_false)


def of_two_loops(x):
    a, b = (raw.Enter(data=x, frame_name=name) for name in "ab")
    return raw.Exit(data=a + b)


def that_waits_for_a_loop(x):
    with tf.control_dependencies([raw.Enter(data=x, frame_name="f")]):
        return tf.identity(x)


def entered_from_two_places(x):
    loop = Loop(x)
    inner = raw.Enter(data=loop.one, frame_name="inner")
    outer = raw.Enter(data=x, frame_name="inner")
    return raw.Exit(data=outer) + raw.Exit(data=raw.Exit(data=inner)) + loop.out


def for_ever(x):
    start = raw.Enter(data=x, frame_name="f")
    head = raw.Merge(inputs=[start, start]).output
    head.op._update_input(1, raw.NextIteration(data=tf.negative(head)))
    return raw.Exit(data=head)


REFUSED = {
    out_of_no_loop: "leaves a loop, but is in none",
    with_a_constant_from_outside: "which is outside of loops",
    without_a_name: "enters a loop without a name",
    with_two_conditions: "is a second LoopCond of the loop 'f'",
    of_two_loops: "in the loop 'a', and 'Enter_1', which is in the loop 'b'",
    that_waits_for_a_loop: "takes .* and 'Enter', which is in the loop 'f'",
    entered_from_two_places: "enters the loop 'inner' from where it is",
    for_ever: "goes on for ever: no Switch lies between 'Merge' and it",
}


def built(build, folder):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [], name="x")
        y = tf.identity(build(x), name="y")
    return model_of(graph, {"x": x}, {"y": y}, folder)


@pytest.mark.parametrize("build", [in_a_loop, without_a_loop_cond, twice], ids=lambda b: b.__name__)
def test_loops_that_tensorflow_runs(build, tmp_path):
    model = built(build, tmp_path)
    assert not verify.verify(model)
    assert run(model, {"x": 0.5}) == {"y": 4.5}


@pytest.mark.parametrize("build", REFUSED, ids=lambda b: b.__name__)
def test_loops_that_it_does_not(build, tmp_path):
    model = built(build, tmp_path)
    (finding,) = verify.verify(model)
    assert finding.rule == "frames"
    assert re.search(REFUSED[build], finding.message)
    with pytest.raises(ModelRefused, match="the model is not valid"):
        verify.check(model, stage="load")
    if build is not for_ever:  # which no time limit ends
        with pytest.raises((tf.errors.InvalidArgumentError, tf.errors.InternalError)):
            run(model, {"x": 0.5})
