"""Random models with what other generators lack: nested control flow of both kinds, recurrent
layers, tables, strings, ragged tensors, variables that are shared, calls.

A seed gives one model. All statements take and give float tensors ``[batch, 3]``, so that any of
them can follow and contain any other.
"""

from __future__ import annotations

import random

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1
F32 = tf.float32


def feeds(seed):
    """Two calls' inputs: one with a batch of two, one of three."""
    rng = np.random.default_rng(seed)
    return [{"x": rng.normal(size=(n, 3)).astype(np.float32)} for n in (2, 3)]


class Generator:
    """Makes random statements.

    Args:
        seed: What decides.
        variables: Shape to variables of that shape; they are shared freely.
        tables: Tables from int64 to float32 and from string to int64.
        writable: A variable that may be written, as nobody reads it; None for none.
        calls_take_variables: Whether a function may be given a variable as an argument.
    """

    def __init__(self, seed, variables, tables, writable=None, calls_take_variables=True):
        self.rng = random.Random(seed)
        self.variables = variables
        self.tables = tables
        self.writable = writable
        self.calls_take_variables = calls_take_variables
        self.functions = []

    def variable(self, *shape):
        return self.rng.choice(self.variables[shape])

    def block(self, x, depth, count=None):
        """Some statements one after another; a later one may also take an earlier one's result."""
        pool = [x]
        for _ in range(count or self.rng.randint(1, 2)):
            take = self.rng.choice(pool[-2:])
            pool.append(self.statement(take, depth))
        return sum(pool[1:], pool[0]) if self.rng.random() < 0.3 else pool[-1]

    def statement(self, x, depth):
        nested = (self.cond, self.loop, self.switch, self.call, self.map_rows, self.call)
        plain = (
            self.dense, self.scale, self.embed, self.number_table, self.word_table, self.ragged,
            self.array, self.strings, self.count, self.check, self.custom_gradient, self.recurrent,
        )  # fmt: skip
        kinds = nested if depth and self.rng.random() < 0.55 else plain
        return tf.tanh(self.rng.choice(kinds)(x, depth - 1))

    # ------------------------------------------------------------ nested

    def predicate(self, x):
        limit = self.rng.choice([-100.0, -0.5, 0.0, 0.5, 100.0])
        return tf.reduce_sum(x) > limit + tf.reduce_sum(self.variable(3)) * 0.01

    def cond(self, x, depth):
        def branch():
            return self.block(x, depth)

        return tf.cond(self.predicate(x), branch, branch)

    def switch(self, x, depth):
        index = tf.cast(tf.abs(tf.reduce_sum(x)) * 3.0, tf.int32) % 4
        branches = [lambda: self.block(x, depth) for _ in range(self.rng.randint(2, 4))]
        return tf.switch_case(index, branches)

    def loop(self, x, depth):
        rounds = self.rng.randint(0, 3)

        def body(i, y):
            return i + 1, tf.ensure_shape(self.block(y + tf.cast(i, F32), depth), [None, 3])

        def more(i, y):
            return tf.logical_and(i < rounds, tf.reduce_sum(y) < 1e3 + self.variable())

        shapes = [tf.TensorShape([]), tf.TensorShape([None, 3])]
        return tf.while_loop(more, body, [tf.constant(0), x], shape_invariants=shapes)[1]

    def map_rows(self, x, depth):
        def row(values):
            return tf.reshape(self.block(values[tf.newaxis], min(depth, 1), 1), [3])

        return tf.map_fn(row, x)

    def call(self, x, depth):
        if self.functions and self.rng.random() < 0.5:
            function = self.rng.choice(self.functions)
        else:
            function = self.new_function(depth)
        weight = self.variable(3)
        return function(x, weight if self.calls_take_variables else tf.identity(weight))

    def new_function(self, depth):
        how = self.rng.choice([{}, {}, {"experimental_attributes": {"_noinline": True}}])

        @tf.function(**how)
        def function(y, w):
            return self.block(tf.ensure_shape(y, [None, 3]), depth) * w

        self.functions.append(function)
        return function

    # ------------------------------------------------------------ plain

    def dense(self, x, depth):
        return x @ self.variable(3, 3) + self.variable(3)

    def scale(self, x, depth):
        return x * self.variable(3) + self.variable()

    def ids(self, x):
        return tf.cast(tf.abs(x) * 5.0, tf.int64) % 7

    def embed(self, x, depth):
        return tf.gather(self.variable(7, 3), self.ids(x[:, 0]))

    def number_table(self, x, depth):
        return x + self.tables[0].lookup(self.ids(x))

    def word_table(self, x, depth):
        words = tf.strings.join(["w", tf.as_string(self.ids(x))])
        return x * tf.cast(self.tables[1].lookup(words), F32)

    def strings(self, x, depth):
        text = tf.strings.reduce_join(tf.as_string(self.ids(x)), axis=1, separator=" ")
        lengths = tf.strings.length(tf.strings.regex_replace(text, "[0-3]", "ab"))
        return x + tf.cast(lengths, F32)[:, tf.newaxis]

    def ragged(self, x, depth):
        lengths = self.ids(x[:, 0]) % 3
        rows = tf.RaggedTensor.from_row_lengths(
            tf.repeat(self.variable(3)[:1], tf.reduce_sum(lengths)), lengths
        )
        return x + tf.reduce_sum(rows, axis=1)[:, tf.newaxis]

    def array(self, x, depth):
        array = tf.TensorArray(F32, size=2, element_shape=[None, 3])
        array = array.write(0, x).write(1, x * self.variable(3))
        return tf.reduce_sum(array.stack(), 0)

    def count(self, x, depth):
        if self.writable is None:
            return -x
        with tf.control_dependencies([self.writable.assign_add(1.0)]):
            return tf.identity(x) * self.variable(3)

    def check(self, x, depth):
        with tf.control_dependencies([tf.debugging.assert_less(tf.reduce_max(x), 1e6)]):
            return tf.identity(x) - self.variable(3)

    def custom_gradient(self, x, depth):
        @tf.custom_gradient
        def clipped(y):
            return tf.identity(y), lambda dy: tf.clip_by_value(dy, -1.0, 1.0)

        return clipped(x * self.variable(3))

    def recurrent(self, x, depth):
        """A GRU-like cell over the three columns."""
        kernel, bias = self.variable(3, 3), self.variable(3)

        def cell(state, value):
            gate = tf.sigmoid(state @ kernel + value[:, tf.newaxis])
            return gate * state + (1.0 - gate) * tf.tanh(state * bias)

        states = tf.scan(cell, tf.transpose(x), tf.zeros_like(x))
        return states[-1]


SHAPES = {(): 2, (3,): 3, (3, 3): 2, (7, 3): 2}


def _values(seed):
    rng = np.random.default_rng(seed)
    return {s: [rng.normal(size=s).astype(np.float32) for _ in range(n)] for s, n in SHAPES.items()}


def _tables():
    numbers = tf.lookup.KeyValueTensorInitializer(
        tf.constant([0, 2, 3], tf.int64), tf.constant([0.5, 1.5, -2.0])
    )
    words = tf.lookup.KeyValueTensorInitializer(
        tf.constant(["w0", "w1", "w5"]), tf.constant([1, 2, 3], tf.int64)
    )
    return [
        tf.lookup.StaticHashTable(numbers, 0.25),
        tf.lookup.StaticHashTable(words, tf.constant(-1, tf.int64)),
    ]


class Generated(tf.Module):
    """The TF2 model of a seed."""

    def __init__(self, seed):
        super().__init__()
        self.weights = {str(s): [tf.Variable(v) for v in vs] for s, vs in _values(seed).items()}
        self.steps = tf.Variable(0.0, trainable=False)
        self.tables = _tables()
        self.seed = seed

    @tf.function(input_signature=[tf.TensorSpec([None, 3], F32, name="x")])
    def serve(self, x):
        variables = {shape: self.weights[str(shape)] for shape in SHAPES}
        made = Generator(self.seed, variables, self.tables, self.steps)
        y = made.block(x, depth=2, count=3)
        return {"y": y, "ids": made.ids(y), "text": tf.as_string(made.ids(y))}


def save_tf2(seed, path):
    model = Generated(seed)
    tf.saved_model.save(model, str(path), signatures=model.serve)


def save_tf1(seed, path):
    """A TF1 SavedModel; even seeds have reference variables, odd ones resources."""
    resource = bool(seed % 2)
    with tf.Graph().as_default():
        v1.disable_control_flow_v2()
        try:
            x = v1.placeholder(F32, [None, 3], name="x")
            variables = {
                shape: [
                    v1.get_variable(f"v{sum(shape)}_{i}", initializer=v, use_resource=resource)
                    for i, v in enumerate(values)
                ]
                for shape, values in _values(seed).items()
            }
            made = Generator(seed, variables, _tables(), calls_take_variables=resource)
            y = tf.identity(made.block(x, depth=2, count=3))
        finally:
            v1.enable_control_flow_v2()
        with v1.Session() as session:
            session.run([v1.global_variables_initializer(), v1.tables_initializer()])
            v1.saved_model.simple_save(
                session, str(path), {"x": x}, {"y": y}, legacy_init_op=v1.tables_initializer()
            )
