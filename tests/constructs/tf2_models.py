"""TF2 models, one construct each: a function that builds it, and what to feed it with."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

RNG = np.random.default_rng(11)

F32 = tf.float32


def spec(shape, dtype=F32, name="x"):
    return tf.TensorSpec(shape, dtype, name=name)


def values(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def weight(*shape, name=None, dtype=F32, trainable=True):
    return tf.Variable(tf.cast(values(*shape), dtype), name=name, trainable=trainable)


class Model(tf.Module):
    """A module whose attributes are its variables, and one function on them."""

    def __init__(self, function, signature, **tracked):
        super().__init__()
        for name, value in tracked.items():
            setattr(self, name, value)
        self.serve = tf.function(lambda *args: function(self, *args), input_signature=signature)


def build(function, signature, **tracked):
    model = Model(function, signature, **tracked)
    return model, model.serve


X = {"x": np.array([[1.0, -2.0, 3.0], [0.5, 0.25, -1.0]], np.float32)}


def dense():
    return build(
        lambda m, x: {"y": tf.nn.relu(x @ m.w + m.b)},
        [spec([None, 3])],
        w=weight(3, 4),
        b=weight(4),
    ), X


def large_dense():
    """Weights over the size from which they stay out of line."""
    return build(lambda m, x: {"y": x @ m.w}, [spec([None, 3])], w=weight(3, 700)), X


def cond_captures():
    def run(m, x):
        return {"y": tf.cond(tf.reduce_sum(x) > 0, lambda: x @ m.a, lambda: x @ m.b + m.c)}

    return build(run, [spec([None, 3])], a=weight(3, 2), b=weight(3, 2), c=weight(2)), X


def cond_nested_captures():
    def run(m, x):
        def inner():
            return tf.cond(
                x[0, 0] > 10,
                lambda: x * m.a,
                lambda: tf.cond(x[0, 1] < 0, lambda: x * m.b, lambda: x),
            )

        return {"y": tf.cond(tf.reduce_sum(x) > 0, inner, lambda: x * m.c)}

    return build(run, [spec([None, 3])], a=weight(3), b=weight(3), c=weight(3)), X


def while_captures():
    def run(m, x):
        step = lambda i, y: (i + 1, tf.tanh(y @ m.w) + m.b)  # noqa: E731
        return {"y": tf.while_loop(lambda i, y: i < m.rounds, step, [0, x])[1]}

    return build(
        run, [spec([None, 3])], w=weight(3, 3), b=weight(3), rounds=tf.Variable(3, dtype=tf.int32)
    ), X


def embedding_in_while():
    def run(m, x):
        def step(i, y):
            return i + 1, y + tf.reduce_sum(
                tf.nn.embedding_lookup(m.table, tf.cast(x, tf.int32) % 5 + i)
            )

        return {"y": tf.while_loop(lambda i, y: i < 3, step, [0, 0.0])[1]}

    return build(run, [spec([None, 3])], table=weight(9, 4)), {"x": np.abs(X["x"])}


def embedding_in_if():
    def run(m, x):
        ids = tf.cast(tf.abs(x), tf.int32)
        return {
            "y": tf.cond(
                tf.size(x) > 2, lambda: tf.gather(m.table, ids), lambda: tf.gather(m.other, ids)
            )
        }

    return build(run, [spec([None, 3])], table=weight(9, 4), other=weight(9, 4)), X


def switch_case():
    def run(m, x):
        index = tf.cast(tf.abs(x[0, 0]), tf.int32)
        return {
            "y": tf.switch_case(index, [lambda: x @ m.a, lambda: x @ m.b, lambda: x @ m.a * 2.0])
        }

    return build(run, [spec([None, 3])], a=weight(3, 2), b=weight(3, 2)), X


def map_fn():
    return build(
        lambda m, x: {"y": tf.map_fn(lambda row: row * m.w + m.b, x)},
        [spec([None, 3])],
        w=weight(3),
        b=weight(3),
    ), X


def nested_calls():
    def run(m, x):
        function = lambda y: y * m.w  # noqa: E731
        for _ in range(6):
            function = tf.function(lambda y, inner=function: inner(y) + m.b)
        return {"y": function(x)}

    return build(run, [spec([None, 3])], w=weight(3), b=weight(3)), X


def one_function_many_variables():
    """The same concrete function is called with different handles."""

    @tf.function
    def scale(variable, y):
        return y * variable

    return build(
        lambda m, x: {"y": scale(m.a, x) + scale(m.b, x), "z": scale(m.a, scale(m.b, x))},
        [spec([None, 3])],
        a=weight(3),
        b=weight(3),
    ), X


def not_inlined():
    @tf.function(experimental_attributes={"_noinline": True})
    def plain(y, w):
        return tf.nn.softplus(y) * w

    @tf.function(jit_compile=True)
    def compiled(y, w):
        return y + w

    return build(
        lambda m, x: {"y": plain(x, m.w), "z": plain(compiled(x, m.w), m.w)},
        [spec([None, 3])],
        w=weight(3),
    ), X


def gather_with_batch_dims():
    def run(m, x):
        indices = tf.cast(tf.abs(x), tf.int32)
        gathered = tf.raw_ops.ResourceGather(
            resource=m.table.handle, indices=indices, dtype=F32, batch_dims=1
        )
        return {"y": gathered}

    return build(run, [spec([2, 3])], table=weight(2, 4, 5)), X


def gather_nd():
    def run(m, x):
        indices = tf.cast(tf.abs(x[:, :2]), tf.int32)
        found = tf.raw_ops.ResourceGatherNd(resource=m.table.handle, indices=indices, dtype=F32)
        return {"y": found}

    return build(run, [spec([None, 3])], table=weight(3, 4, 2)), X


def shape_and_state_of_a_variable():
    def run(m, x):
        shape = tf.raw_ops.VariableShape(input=m.w.handle, out_type=tf.int64)
        ready = tf.raw_ops.VarIsInitializedOp(resource=m.w.handle)
        return {"shape": shape, "ready": ready, "y": tf.reduce_sum(x)}

    return build(run, [spec([None, 3])], w=weight(3, 4)), X


def write_that_nobody_sees():
    def run(m, x):
        m.steps.assign_add(1)
        m.mean.assign(0.9 * m.mean + 0.1 * tf.reduce_mean(x, 0))
        return {"y": x @ m.w}

    return build(
        run,
        [spec([None, 3])],
        w=weight(3, 2),
        steps=tf.Variable(0, dtype=tf.int64, trainable=False),
        mean=weight(3),
    ), X


def random_number_that_nobody_takes():
    """A random generator's state is moved on, but no output takes the number."""

    def run(m, x):
        m.generator.normal([2])
        return {"y": x * m.w}

    generator = tf.random.Generator.from_seed(1)
    return build(run, [spec([None, 3])], w=weight(3), generator=generator), X


def batch_norm_in_training():
    def run(m, x):
        mean, variance = tf.nn.moments(x, [0])
        m.mean.assign_sub(0.1 * (m.mean - mean))
        return {"y": tf.nn.batch_normalization(x, mean, variance, m.beta, m.gamma, 1e-3)}

    return build(run, [spec([None, 3])], mean=weight(3), beta=weight(3), gamma=weight(3)), X


def assertion_and_print():
    def run(m, x):
        tf.debugging.assert_less(tf.reduce_max(x), 100.0)
        return {"y": tf.debugging.check_numerics(x * m.w, "x")}

    return build(run, [spec([None, 3])], w=weight(3)), X


def custom_gradient():
    @tf.custom_gradient
    def clipped(y):
        return tf.identity(y), lambda dy: tf.clip_by_value(dy, -1.0, 1.0)

    return build(lambda m, x: {"y": clipped(x * m.w)}, [spec([None, 3])], w=weight(3)), X


def dataset_with_variable():
    def run(m, x):
        data = tf.data.Dataset.from_tensor_slices(x).map(lambda row: row * m.w)
        return {"y": data.reduce(tf.zeros([3]), lambda total, row: total + row * m.v)}

    return build(run, [spec([None, 3])], w=weight(3), v=weight(3)), X


def static_table():
    keys = tf.constant(["a", "b", "c"])
    table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(keys, tf.constant([1.5, 2.5, 3.5])), -1.0
    )
    feeds = {"x": np.array(["b", "zz", "a"], object)}
    return build(
        lambda m, x: {"y": m.table.lookup(x) * m.w},
        [spec([None], tf.string)],
        table=table,
        w=weight(1),
    ), feeds


def table_in_cond():
    table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(
            tf.constant([1, 2], tf.int64), tf.constant(["one", "two"])
        ),
        "?",
    )

    def run(m, x):
        found = tf.cond(tf.size(x) > 1, lambda: m.table.lookup(x), lambda: tf.as_string(x))
        return {"y": found}

    return build(run, [spec([None], tf.int64)], table=table), {"x": np.array([2, 7, 1], np.int64)}


def mutable_table():
    table = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)
    table.insert(tf.constant(["a", "b"]), tf.constant([10, 20], tf.int64))
    feeds = {"x": np.array(["b", "c"], object)}
    return build(
        lambda m, x: {"y": m.table.lookup(x)}, [spec([None], tf.string)], table=table
    ), feeds


def anonymous_tables():
    keys, values = tf.constant(["a", "b"]), tf.constant([10, 20], tf.int64)
    static = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(keys, values), -1, experimental_is_anonymous=True
    )
    mutable = tf.lookup.experimental.MutableHashTable(
        tf.string, tf.int64, -1, experimental_is_anonymous=True
    )
    mutable.insert(keys, values * 3)
    dense = tf.lookup.experimental.DenseHashTable(
        tf.int64, tf.int64, -1, empty_key=-2, deleted_key=-3, experimental_is_anonymous=True
    )
    dense.insert(values, values * 5)
    return build(
        lambda m, x: {
            "static": m.static.lookup(x),
            "mutable": m.mutable.lookup(x),
            "dense": m.dense.lookup(m.static.lookup(x)),
        },
        [spec([None], tf.string)],
        static=static,
        mutable=mutable,
        dense=dense,
    ), {"x": np.array(["b", "c"], object)}


def dense_table():
    table = tf.lookup.experimental.DenseHashTable(
        tf.int64, tf.float32, tf.constant(-1.0), empty_key=-1, deleted_key=-2
    )
    table.insert(tf.constant([3, 4], tf.int64), tf.constant([0.5, 0.25]))
    feeds = {"x": np.array([4, 5, 3], np.int64)}
    return build(
        lambda m, x: {"y": m.table.lookup(x)}, [spec([None], tf.int64)], table=table
    ), feeds


def string_variable():
    labels = tf.Variable(["cat", "dog", b"\x00nul\xff".decode("latin1")])
    return build(
        lambda m, x: {"y": tf.gather(m.labels, tf.cast(tf.abs(x[:, 0]), tf.int32))},
        [spec([None, 3])],
        labels=labels,
    ), X


def many_dtypes():
    dtypes = [
        tf.float16,
        tf.bfloat16,
        tf.float64,
        tf.int8,
        tf.uint8,
        tf.int16,
        tf.uint16,
        tf.int32,
        tf.uint32,
    ]
    dtypes += [tf.int64, tf.uint64, tf.bool, tf.complex64, tf.complex128]
    dtypes += [tf.as_dtype("int4"), tf.as_dtype("uint4")]
    dtypes += [tf.dtypes.experimental.float8_e5m2, tf.dtypes.experimental.float8_e4m3fn]
    small = {"int4", "uint4"}  # TensorFlow casts to these from integers only
    tracked = {
        f"v_{d.name}": tf.Variable(
            tf.cast(tf.constant([0, 1, 2, 3], tf.int32 if d.name in small else F32), d)
        )
        for d in dtypes
    }

    def run(m, x):
        found = {f"o_{d.name}": tf.reshape(getattr(m, f"v_{d.name}"), [2, 2]) for d in dtypes}
        return {**found, "x_": x}

    return build(run, [spec([None, 3])], **tracked), X


def zero_size_and_scalar():
    return build(
        lambda m, x: {"y": tf.concat([x, m.empty], 0) * m.scale},
        [spec([None, 3])],
        empty=tf.Variable(tf.zeros([0, 3])),
        scale=tf.Variable(2.5),
    ), X


def ragged():
    def run(m, x):
        lengths = tf.constant([1, 0, 2])
        rows = tf.RaggedTensor.from_row_lengths(tf.reshape(x, [-1])[:3], lengths)
        return {"y": tf.reduce_sum(rows, 1) * m.w}

    return build(run, [spec([None, 3])], w=weight(3)), X


def returned_variable():
    return build(
        lambda m: {"w": m.w, "twice": m.w * 2.0, "const": tf.constant(7)}, [], w=weight(3, 2)
    ), {}


def one_tensor_twice_and_unused_input():
    def run(m, x, unused):
        y = x * m.w
        return {"a": y, "b": y, "same": x}

    return build(run, [spec([None, 3]), spec([], name="unused")], w=weight(3)), {
        **X,
        "unused": np.float32(1),
    }


def tensor_list():
    def run(m, x):
        array = tf.TensorArray(F32, size=0, dynamic_size=True)
        for i in tf.range(3):
            array = array.write(i, x * m.w * tf.cast(i, F32))
        return {"y": array.stack()}

    return build(run, [spec([None, 3])], w=weight(3)), X


def batch_function():
    @tf.nondifferentiable_batch_function(
        num_batch_threads=1, max_batch_size=8, batch_timeout_micros=0, allowed_batch_sizes=[8]
    )
    def batched(y, w):
        return y * 2.0

    def run(m, x):
        return {"y": batched(x, x) * m.w}

    return build(run, [spec([None, 3])], w=weight(3)), X


def string_and_ragged_ops():
    def run(m, x):
        words = tf.strings.split(x)
        counts = tf.cast(words.row_lengths(), F32)
        return {"y": counts * m.w, "joined": tf.strings.reduce_join(words, axis=1, separator="-")}

    return build(run, [spec([None], tf.string)], w=weight(1)), {
        "x": np.array(["a b c", "", "d"], object)
    }


def jit_compiled():
    """The mark steers compilation; the graph means the same without it."""

    def run(m, x):
        @tf.function(jit_compile=True)
        def compiled(x):
            return tf.nn.softmax(x @ m.w)

        return {"y": compiled(x) * 2.0}

    return build(run, [spec([None, 3])], w=weight(3, 2)), X


def _remotely(m, x):
    @tf.function(input_signature=[spec([None, 3])])
    def far(x):
        return tf.tanh(x @ m.w)

    concrete = far.get_concrete_function()
    (y,) = tf.raw_ops.RemoteCall(
        target="/job:localhost/replica:0/task:0/device:CPU:0",
        args=[x, *concrete.captured_inputs],
        Tout=[F32],
        f=concrete,
    )
    return tf.ensure_shape(y, [None, 3])


def remote_call():
    return build(lambda m, x: {"y": _remotely(m, x)}, [spec([None, 3])], w=weight(3, 3)), X


def remote_call_in_while():
    def run(m, x):
        body = lambda i, y: (i + 1, _remotely(m, y))  # noqa: E731
        return {"y": tf.while_loop(lambda i, y: i < 3, body, (0, x))[1]}

    return build(run, [spec([None, 3])], w=weight(3, 3)), X


def gradients():
    """A signature that differentiates: through a loop and an embedding."""

    def run(m, x):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            step = lambda i, y: (i + 1, tf.tanh(y @ m.w))  # noqa: E731
            y = tf.while_loop(lambda i, y: i < 3, step, (0, x))[1]
            total = tf.reduce_sum(y) + tf.reduce_sum(tf.nn.embedding_lookup(m.rows, [1, 1]) ** 2)
        return {
            "x": tape.gradient(total, x),
            "w": tape.gradient(total, m.w),
            "rows": tf.convert_to_tensor(tape.gradient(total, m.rows)),
        }

    return build(run, [spec([None, 3])], w=weight(3, 3), rows=weight(4, 2)), X


def handles_round_a_loop():
    """Two variables change places in every round."""

    def run(m, x):
        def body(i, one, other, y):
            value = tf.raw_ops.ReadVariableOp(resource=one, dtype=F32)
            return i + 1, other, one, y * 2.0 + value

        start = (0, m.a.handle, m.b.handle, x)
        return {"y": tf.while_loop(lambda i, *_: i < 3, body, start)[3]}

    return build(run, [spec([None, 3])], a=weight(3), b=weight(3)), X


def handles_out_of_calls():
    def run(m, x):
        @tf.function
        def both(i):
            return m.a.handle, m.b.handle, i + 1

        @tf.function
        def swapped(i):
            a, b, i = both(i)
            return b, a, i

        b, a, _ = swapped(tf.constant(1))
        a, b = (tf.raw_ops.ReadVariableOp(resource=handle, dtype=F32) for handle in (a, b))
        return {"y": a * x - b}

    return build(run, [spec([None, 3])], a=weight(3), b=weight(3)), X


def many_datasets():
    """Variables captured at every kind of dataset function."""

    def run(m, x):
        rows = tf.data.Dataset.from_tensor_slices(x)
        rows = rows.map(lambda t: tf.linalg.matvec(m.w, t), num_parallel_calls=2)
        rows = rows.filter(lambda t: tf.reduce_sum(t * m.a) > -100.0)
        rows = rows.scan(tf.zeros([3]), lambda state, t: (state + t * m.a, state))
        rows = rows.take_while(lambda t: tf.reduce_sum(m.a) < 100.0)
        rows = rows.interleave(lambda t: tf.data.Dataset.from_tensors(t * m.a), cycle_length=2)
        rows = rows.flat_map(lambda t: tf.data.Dataset.from_tensor_slices([t, t + m.a]))
        total = tf.zeros([3])
        for row in rows:
            total += row * m.a
        return {"y": total}

    return build(run, [spec([None, 3])], w=weight(3, 3), a=weight(3)), X


def parts_of_an_embedding():
    def run(m, ids):
        mod = tf.compat.v1.nn.embedding_lookup(m.parts, ids, partition_strategy="mod")
        div = tf.compat.v1.nn.embedding_lookup(m.parts, ids, partition_strategy="div")
        return {"mod": mod, "div": div}

    signature = [spec([None], tf.int64, "ids")]
    parts = [weight(4, 2) for _ in range(3)]
    return build(run, signature, parts=parts), {"ids": np.array([0, 5, 11], np.int64)}


MODELS = [
    dense, large_dense, cond_captures, cond_nested_captures, while_captures, embedding_in_while,
    embedding_in_if, switch_case, map_fn, nested_calls, one_function_many_variables, not_inlined,
    gather_with_batch_dims, gather_nd, shape_and_state_of_a_variable, write_that_nobody_sees,
    batch_norm_in_training, assertion_and_print, custom_gradient, dataset_with_variable, static_table,
    table_in_cond, mutable_table, dense_table, anonymous_tables, string_variable, many_dtypes,
    zero_size_and_scalar,
    ragged, returned_variable, one_tensor_twice_and_unused_input, tensor_list, batch_function,
    string_and_ragged_ops, remote_call, remote_call_in_while, gradients,
    handles_round_a_loop, handles_out_of_calls, many_datasets, parts_of_an_embedding,
]  # fmt: skip
