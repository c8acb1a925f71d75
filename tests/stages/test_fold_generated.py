"""Random graphs that are full of constants and of ops that do nothing, folded in every way, to the byte."""

import os
import random

import numpy as np
import pytest
import tensorflow as tf

from freezeflow.graph.strip import strip
from freezeflow.graph.verify import verify
from freezeflow.stages.fold import STAGE, Params
from freezeflow.stages.stage import StageInput
from tests.stages.test_fold_exact import IDLE, NOT_IDLE, SPECIAL
from tests.tf.built import FakeContext, assert_same, model_of, run

v1 = tf.compat.v1
MANY = range(3000, 3000 + int(os.environ.get("FREEZEFLOW_TEST_SEEDS", "30")))

BINARY = [tf.add, tf.subtract, tf.multiply, tf.divide, tf.maximum, tf.raw_ops.Add]
UNARY = [tf.abs, tf.nn.relu, tf.nn.sigmoid, tf.negative, tf.square, tf.nn.relu6]
BLIND = [tf.exp, tf.nn.softmax, tf.nn.softplus, tf.nn.sigmoid]


class Constants:
    """Makes random statements; all take and give float tensors [rows, 3]."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.made = []

    def number(self):
        values = [0.0, -0.0, 1.0, 1.0, -1.0, 2.0, 0.5, 1e-38, 3e38, self.rng.gauss(0, 1)]
        return self.rng.choice([*values, float(self.rng.choice(SPECIAL))])

    def array(self):
        """A constant that is broadcast to [rows, 3], the same one again from time to time."""
        if self.made and self.rng.random() < 0.3:
            return self.rng.choice(self.made)
        shape = self.rng.choice([(), (1,), (3,), (1, 3), (1, 1)])
        if self.rng.random() < 0.5:
            data = np.full(shape, self.number(), np.float32)
        else:
            data = np.array([self.number() for _ in range(int(np.prod(shape)))], np.float32)
        self.made.append(np.reshape(data, shape).astype(np.float32))
        return self.made[-1]

    def constant(self, depth):
        """A part of the graph that is the same in every call."""
        value = tf.constant(self.array())
        for _ in range(self.rng.randint(0, 3)):
            kind = self.rng.choice(["unary", "binary", "shape", "strings", "large", "branch"])
            if kind == "unary":
                value = self.rng.choice(UNARY)(value)
            elif kind == "binary":
                value = self.binary(value, self.array())
            elif kind == "shape":
                value = value + tf.cast(tf.size(tf.zeros([4, self.rng.randint(0, 9)])), tf.float32)
            elif kind == "strings":
                words = tf.strings.join([["a", ""], tf.strings.as_string([1.5, -0.0])], "-")
                value = value * tf.cast(tf.strings.length(words)[0], tf.float32)
            elif kind == "large":
                grid = tf.fill([self.rng.choice([3, 300]), 300], 0.5)
                value = value + tf.reduce_max(tf.cumsum(grid, 0) if depth else grid)
            else:
                other = self.array()
                value = tf.cond(
                    tf.reduce_sum(value) > 0,
                    lambda v=value, o=other: v + o,
                    lambda v=value, o=other: v * o,
                )
            value = tf.reshape(value[..., :1] if value.shape.rank else value, [-1])
            value = value[:1]
        return value

    def binary(self, one, other):
        op = self.rng.choice(BINARY)
        if op is tf.raw_ops.Add:
            return op(x=one, y=other)
        return op(one, other) if self.rng.random() < 0.6 else op(other, one)

    def step(self, x, depth):
        kinds = [*STEPS, "binary", "idle", "binary"] + (["cond", "while"] if depth else [])
        kind = self.rng.choice(kinds)
        return STEPS[kind](self, x) if kind in STEPS else self.call(kind, x, depth)

    def bias(self, x):
        return tf.nn.bias_add(x, np.array([self.number() for _ in range(3)], np.float32))

    def layer(self, x):
        """A layer before training: who comes behind it decides whether its bias goes."""
        product = self.matmul(x) if self.rng.random() < 0.7 else self.number() * x
        zero = self.rng.choice([0.0, 0.0, -0.0])
        x = tf.nn.bias_add(product, np.full(3, zero, np.float32))
        return self.rng.choice([*UNARY, *BLIND, tf.identity, tf.tanh])(x)

    def matmul(self, x):
        return tf.matmul(x, np.diag([self.number() for _ in range(3)]).astype(np.float32))

    def reshaped(self, x):
        rows = tf.shape(x)[0]
        target = tf.stack([rows * 1 + 0, tf.size(tf.zeros([3])), 1])
        return tf.squeeze(tf.reshape(x, target), [2])

    def waiting(self, x):
        with tf.control_dependencies([tf.debugging.assert_rank(x, 2), tf.no_op()]):
            return tf.identity(x)

    def switched(self, x):
        taken = tf.constant(self.rng.random() < 0.5)
        return tf.raw_ops.Merge(inputs=list(tf.raw_ops.Switch(data=x, pred=taken)))[0]

    def call(self, kind, x, depth):
        if kind == "cond":
            decides = tf.reduce_sum(self.constant(0)) > 0
            if self.rng.random() < 0.3:
                decides = tf.reduce_sum(x) > 0
            other = self.constant(0)
            return tf.cond(
                decides, lambda: self.steps(x + other, depth - 1), lambda: self.steps(x, depth - 1)
            )
        times = self.rng.randint(0, 2)
        carried = self.constant(0)

        def body(i, y, c):
            return i + 1, tf.ensure_shape(self.steps(y + c, depth - 1), [None, 3]), c

        shapes = [tf.TensorShape([]), tf.TensorShape([None, 3]), carried.shape]
        return tf.while_loop(lambda i, *_: i < times, body, [0, x, carried], shapes)[1]

    def steps(self, x, depth):
        for _ in range(self.rng.randint(1, 6)):
            x = self.step(x, depth)
            x.set_shape([None, 3])
        return x


DOUBTFUL = ("plus_zero", "times_one", "divided_by_one", "there_and_back")
STEPS = {
    "binary": lambda made, x: made.binary(x, made.constant(0)),
    "unary": lambda made, x: made.rng.choice(UNARY)(x),
    "idle": lambda made, x: made.rng.choice(list(IDLE.values()))(x),
    "not idle": lambda made, x: NOT_IDLE[made.rng.choice(DOUBTFUL)](x),
    "bias": Constants.bias,
    "layer": Constants.layer,
    "blind": lambda made, x: made.rng.choice(BLIND)(x),
    "matmul": Constants.matmul,
    "shape": Constants.reshaped,
    "twice": lambda made, x: tf.tanh(x) + tf.tanh(tf.identity(x)),
    "waiting": Constants.waiting,
    "switched": Constants.switched,
}


def model_for(seed, tmp_path):
    made = Constants(seed)
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        one = made.steps(x, 2)
        outputs = {
            "one": tf.identity(one, name="one"),
            "two": tf.identity(made.steps(one if made.rng.random() < 0.5 else x, 1), name="two"),
            "three": tf.identity(made.constant(1), name="three"),
        }
    return model_of(graph, {"x": x}, outputs, tmp_path)


WAYS = [{}, {"max_growth": 1_000_000}, {"max_bytes": 4096}]


def check(seed, tmp_path):
    model = model_for(seed, tmp_path)
    bare = strip(model, drop_identities=True).model
    results = [bare]
    for way in WAYS:
        context = FakeContext(tmp_path)
        given = StageInput(model=bare if "max_bytes" in way else model, source=None)
        outcome = STAGE.run(given, Params(**way), context)
        assert not verify(outcome.model)
        if not way:
            assert outcome.facts["bytes_after"] <= outcome.facts["bytes_before"]
        results.append(outcome.model)
    rng = np.random.default_rng(seed)
    calls = [
        rng.permutation(np.resize(SPECIAL, 12)),
        rng.standard_normal(6),
        rng.integers(-2, 3, 3),
    ]
    for call in calls:
        feeds = {"x": call.astype(np.float32).reshape(-1, 3)}
        expected = run(model, feeds)
        for result in results:
            assert_same(expected, run(result, feeds))


@pytest.mark.parametrize("seed", range(8))
def test_graphs_full_of_constants(seed, tmp_path):
    check(seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", MANY)
def test_many_graphs_full_of_constants(seed, tmp_path):
    check(seed, tmp_path)
