"""TF1 models, one construct each: builds a graph with variables, and names inputs and outputs."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1
F32 = tf.float32

X = np.array([[1.0, -2.0, 3.0], [0.5, 0.25, -1.0]], np.float32)


def variable(name, *shape, resource=False, **more):
    rng = np.random.default_rng(sum(name.encode()))
    start = rng.normal(size=shape).astype(np.float32)
    return v1.get_variable(name, initializer=start, use_resource=resource, **more)


def placeholder():
    return v1.placeholder(F32, [None, 3], name="x")


def dense(resource):
    x = placeholder()
    return {"x": x}, {
        "y": x @ variable("w", 3, 4, resource=resource) + variable("b", 4, resource=resource)
    }


def cond(resource):
    x = placeholder()
    a, b = variable("a", 3, resource=resource), variable("b", 3, resource=resource)
    return {"x": x}, {"y": v1.cond(tf.reduce_sum(x) > 0, lambda: x * a, lambda: x * b - a)}


def while_loop(resource):
    x = placeholder()
    w = variable("w", 3, 3, resource=resource)
    step = lambda i, y: (i + 1, tf.tanh(y @ w))  # noqa: E731
    return {"x": x}, {"y": v1.while_loop(lambda i, y: i < 3, step, [0, x])[1]}


def embedding_in_while(resource):
    x = placeholder()
    table = variable("table", 12, 3, resource=resource)

    def step(i, y):
        return i + 1, y + tf.nn.embedding_lookup(table, tf.fill([tf.shape(x)[0]], i))

    return {"x": x}, {"y": v1.while_loop(lambda i, y: i < 3, step, [0, x])[1]}


def cond_in_while(resource):
    x = placeholder()
    a, b = variable("a", 3, resource=resource), variable("b", 3, resource=resource)

    def step(i, y):
        return i + 1, v1.cond(tf.equal(i % 2, 0), lambda: y * a, lambda: y + b)

    return {"x": x}, {"y": v1.while_loop(lambda i, y: i < 4, step, [0, x])[1]}


def partitioned_embedding(resource):
    x = placeholder()
    table = v1.get_variable(
        "table",
        shape=[10, 4],
        partitioner=v1.fixed_size_partitioner(3),
        initializer=v1.random_normal_initializer(seed=3),
        use_resource=resource,
    )
    ids = tf.cast(tf.abs(x), tf.int32)
    return {"x": x}, {"y": v1.nn.embedding_lookup(table, ids, partition_strategy="div")}


def legacy_variable_op(resource):
    x = placeholder()
    w = tf.raw_ops.Variable(shape=[3], dtype=F32, name="legacy")
    start = v1.assign(w, np.array([1.0, 2.0, 3.0], np.float32))
    v1.add_to_collection("start", start)
    v1.add_to_collection("saved", ("legacy", w))
    return {"x": x}, {"y": x * w}


def parse_example(resource):
    serialized = v1.placeholder(tf.string, [None], name="examples")
    features = v1.parse_example(serialized, {"v": v1.FixedLenFeature([3], F32)})
    return {"examples": serialized}, {"y": features["v"] * variable("w", 3, resource=resource)}


def unused_write(resource):
    x = placeholder()
    step = v1.train.get_or_create_global_step()
    with tf.control_dependencies([v1.assign_add(step, 1)]):
        y = tf.identity(x * variable("w", 3, resource=resource))
    return {"x": x}, {"y": y}


def intermediate_input(resource):
    """The signature feeds a tensor in the middle of the graph."""
    raw = v1.placeholder(F32, [None, 3], name="raw")
    middle = tf.multiply(raw, 2.0, name="middle")
    return {"x": middle}, {"y": middle + variable("b", 3, resource=resource)}


def placeholder_with_default(resource):
    x = placeholder()
    scale = v1.placeholder_with_default(np.float32(3.0), [], name="scale")
    return {"x": x, "scale": scale}, {"y": x * scale * variable("w", 3, resource=resource)}


def defun_in_cond(resource):
    """A call in a branch of a TF1 cond: when the branch is dead, so is the call's body."""
    x = placeholder()
    w = variable("w", 3, resource=resource)

    @tf.function
    def check(y):
        tf.debugging.Assert(False, ["never"])
        return y * 2.0

    return {"x": x}, {"y": v1.cond(tf.reduce_sum(x) > 1e6, lambda: check(x), lambda: x * w)}


MODELS = [
    dense, cond, while_loop, embedding_in_while, cond_in_while, partitioned_embedding, parse_example,
    unused_write, intermediate_input, placeholder_with_default, defun_in_cond,
]  # fmt: skip


def example_bytes():
    feature = tf.train.Feature(float_list=tf.train.FloatList(value=[1.0, 2.0, 3.0]))
    example = tf.train.Example(features=tf.train.Features(feature={"v": feature}))
    return np.array([example.SerializeToString()], object)


def feeds_for(inputs):
    known = {"x": X, "raw": X, "scale": np.float32(0.5), "examples": example_bytes()}
    return {key: known[key] for key in inputs}
