"""Models into which faults are put: each as a SavedModel with variables, built by TensorFlow."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1


class _Seeded(tf.Module):
    """A module that makes its variables from a seed."""

    def __init__(self, seed):
        super().__init__()
        self._random = np.random.default_rng(seed)

    def weight(self, name, *shape, scale=0.5):
        start = self._random.standard_normal(shape).astype(np.float32) * np.float32(scale)
        return tf.Variable(start, name=name)

    def save(self, folder):
        """Leaves it as a SavedModel in a folder."""
        tf.saved_model.save(self, str(folder), signatures=self.call)


class Convolutions(_Seeded):
    """Convolution, batch norm, pooling, depthwise, dense, softmax; scores and their logarithms."""

    def __init__(self, seed):
        super().__init__(seed)
        self.kernel = self.weight("kernel", 3, 3, 3, 8)
        self.depthwise = self.weight("depthwise", 3, 3, 8, 1)
        self.gamma, self.beta = self.weight("gamma", 8), self.weight("beta", 8)
        self.mean = self.weight("mean", 8)
        self.variance = tf.Variable(np.abs(self._random.standard_normal(8)).astype(np.float32) + 1)
        self.dense = self.weight("dense", 32, 32)
        self.bias = self.weight("bias", 32)

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32, name="x")])
    def call(self, x):
        y = tf.nn.conv2d(x, self.kernel, 1, "SAME")
        y, *_ = v1.nn.fused_batch_norm(
            y, self.gamma, self.beta, self.mean, self.variance, is_training=False
        )
        y = tf.nn.relu(y)
        y = tf.nn.max_pool2d(y, 2, 2, "SAME")
        y = tf.nn.depthwise_conv2d(y, self.depthwise, [1, 2, 2, 1], "SAME")
        y = tf.reshape(y, [-1, 32])
        y = tf.nn.tanh(tf.nn.bias_add(y @ self.dense, self.bias))
        return {"scores": tf.nn.softmax(y), "logs": tf.nn.log_softmax(y)}


class Dense(_Seeded):
    """Two dense layers with a residual connection and a normalisation."""

    def __init__(self, seed):
        super().__init__(seed)
        self.first, self.second = self.weight("first", 16, 16), self.weight("second", 16, 16)
        self.first_bias, self.second_bias = self.weight("b1", 16), self.weight("b2", 16)

    @tf.function(input_signature=[tf.TensorSpec([None, 16], tf.float32, name="x")])
    def call(self, x):
        y = tf.nn.relu(x @ self.first + self.first_bias)
        y = x - tf.nn.sigmoid(tf.nn.bias_add(y @ self.second, self.second_bias))
        y = (y - tf.reduce_mean(y, -1, keepdims=True)) / tf.math.reduce_std(y, -1, keepdims=True)
        return {"y": y, "best": tf.math.top_k(y, 3).indices}


class Attention(_Seeded):
    """An embedding, one head of attention, a normalisation, and a projection."""

    def __init__(self, seed):
        super().__init__(seed)
        self.table = self.weight("table", 20, 16)
        self.query, self.key, self.value = (self.weight(n, 16, 16) for n in ("q", "k", "v"))
        self.out = self.weight("out", 16, 16)
        self.bias = self.weight("bias", 16)

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32, name="x")])
    def call(self, x):
        y = tf.gather(self.table, x)
        scores = tf.matmul(y @ self.query, y @ self.key, transpose_b=True) / 4.0
        mixed = tf.nn.softmax(scores) @ (y @ self.value)
        y = tf.nn.leaky_relu(mixed @ self.out + y, alpha=0.1)
        y = tf.concat([y - self.bias, y * 2.0], -1)
        return {"y": tf.reduce_max(y, 1), "mean": tf.reduce_mean(y, 1)}


class Loop(_Seeded):
    """A recurrent cell in a loop, and a branch that the input takes."""

    def __init__(self, seed):
        super().__init__(seed)
        self.cell, self.state = self.weight("cell", 8, 8), self.weight("state", 8, 8)
        self.bias = self.weight("bias", 8)
        self.out = self.weight("out", 8, 8)

    @tf.function(input_signature=[tf.TensorSpec([None, 4, 8], tf.float32, name="x")])
    def call(self, x):
        def step(number, state):
            now = tf.gather(x, number, axis=1)
            return number + 1, tf.tanh(now @ self.cell + state @ self.state + self.bias)

        _, y = tf.while_loop(lambda n, _: n < 4, step, [tf.constant(0), x[:, 0] * 0.5])
        y = tf.cond(tf.reduce_sum(x) > 0, lambda: y * 2.0, lambda: y - self.bias)
        y = tf.nn.relu(y @ self.out + self.bias)
        return {"y": y, "shifted": y - 1.0}


class Mixed(_Seeded):
    """Several inputs and outputs, shapes, reductions, comparisons, a shared weight."""

    def __init__(self, seed):
        super().__init__(seed)
        self.shared = self.weight("shared", 12, 12)
        self.scale = self.weight("scale", 12)
        self.bias = self.weight("bias", 12)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 3, 4], tf.float32, name="a"),
            tf.TensorSpec([None, 12], tf.float32, name="b"),
        ]
    )
    def call(self, a, b):
        left = tf.nn.elu(tf.reshape(a, [-1, 12]) @ self.shared)
        right = tf.nn.softplus(b @ self.shared) * self.scale
        y = tf.nn.bias_add(tf.maximum(left, right), self.bias)
        z = tf.where(left > 0.0, right, left * 0.25)
        turned = tf.transpose(tf.reshape(y, [-1, 3, 4]), [0, 2, 1])
        return {"y": y, "z": z, "sum": tf.reduce_sum(turned, 2), "half": tf.cast(z, tf.float16)}


class Words(_Seeded):
    """Strings split into ragged words, looked up in a table, embedded, averaged; a label as a string."""

    def __init__(self, seed):
        super().__init__(seed)
        self.table = tf.lookup.StaticVocabularyTable(
            tf.lookup.KeyValueTensorInitializer(
                tf.constant(["a", "b", "c", "the", "freeze"]), tf.range(5, dtype=tf.int64)
            ),
            3,
        )
        self.embedding = self.weight("embedding", 8, 8)
        self.kernel, self.second = self.weight("kernel", 8, 8), self.weight("second", 8, 8)
        self.bias = self.weight("bias", 8)
        self.shift = self.weight("shift", 8)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="x")])
    def call(self, x):
        words = tf.strings.split(tf.strings.regex_replace(tf.strings.lower(x), "[^a-z ]", ""))
        numbers = self.table.lookup(words.values)
        y = tf.gather(self.embedding, numbers)
        y = tf.math.unsorted_segment_sum(y, words.value_rowids(), tf.shape(x)[0])
        y = tf.nn.relu(tf.nn.bias_add(y @ self.kernel, self.bias))
        y = tf.tanh(y @ self.second + self.shift) - y
        labels = tf.constant(["one", "two", "three", "four", "five", "six", "seven", "eight"])
        return {
            "scores": tf.nn.softmax(y),
            "logs": tf.nn.log_softmax(y),
            "label": tf.gather(labels, tf.argmax(y, -1)),
            "length": words.row_lengths(),
        }


class Frames:
    """TF1's loop and branch: Enter, Merge, Switch and NextIteration among the nodes of the graph."""

    def __init__(self, seed):
        self._seed = seed

    def save(self, folder):
        with tf.Graph().as_default():
            v1.disable_control_flow_v2()
            try:
                x, outputs = self._built(np.random.default_rng(self._seed))
            finally:
                v1.enable_control_flow_v2()
            with v1.Session() as session:
                session.run(v1.global_variables_initializer())
                v1.saved_model.simple_save(session, str(folder), {"x": x}, outputs)

    def _built(self, random):
        def weight(name, *shape):
            start = random.standard_normal(shape).astype(np.float32) * np.float32(0.5)
            return v1.get_variable(name, initializer=start)

        first, second = weight("first", 8, 8), weight("second", 8, 8)
        bias, shift = weight("bias", 8), weight("shift", 8)
        x = v1.placeholder(tf.float32, [None, 8], name="x")

        def step(number, state):
            now = tf.tanh(tf.nn.bias_add(state @ first, bias))
            return number + 1, tf.maximum(now, state * 0.5)

        _, y = v1.while_loop(lambda n, _: n < 4, step, [tf.constant(0), x])
        y = v1.cond(tf.reduce_sum(x) > 0, lambda: y * 2.0, lambda: y - shift)
        y = tf.nn.relu(tf.nn.bias_add(y @ second, bias))
        return x, {"scores": tf.nn.softmax(y), "sum": tf.reduce_sum(y - 1.0, 1)}


MODELS = (Convolutions, Dense, Attention, Loop, Mixed, Words, Frames)
