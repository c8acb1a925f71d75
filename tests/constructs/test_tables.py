"""Static tables inlined: equal to the byte, no init, no table left."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from freezeflow.graph.siphash import siphash24
from tests.constructs import harness, tf2_models
from tests.constructs.test_tf1 import vocabulary_model
from tests.constructs.test_tf2 import save

v1 = tf.compat.v1

KEYS = {
    tf.string: ["apple", "", "b", "nul\x00x", "ünï", "longer than eight bytes"],
    tf.int64: [7, -3, 0, 2**62, -(2**62), 5],
    tf.int32: [7, -3, 0, 2**30, -(2**30), 5],
}
VALUES = {
    tf.float32: [1.5, -0.0, float("nan"), 3.0, float("inf"), 1e-40],
    tf.int64: [1, 2, 3, 4, 5, 2**60],
    tf.string: ["one", "", "three", "\x00", "five", "six"],
}
PAIRS = [
    (tf.string, tf.int64), (tf.string, tf.float32), (tf.string, tf.string),
    (tf.int64, tf.float32), (tf.int64, tf.int64), (tf.int64, tf.string), (tf.int32, tf.float32),
]  # fmt: skip


def inlined(path, tmp_path):
    model = harness.freeze_model(harness.saved_model(path), tmp_path, tables="inline")
    assert not model.init
    ops = {node.op for node in model.graph.nodes.values()}
    assert not [op for op in ops if "Table" in op]
    return model


@pytest.mark.parametrize(("key", "value"), PAIRS, ids=lambda dtype: dtype.name)
def test_every_kind_of_table(key, value, tmp_path):
    table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(
            tf.constant(KEYS[key], key), tf.constant(VALUES[value], value)
        ),
        tf.constant(VALUES[value][0], value),
    )
    signature = [tf2_models.spec([None, None], key)]
    model, function = tf2_models.build(
        lambda m, x: {"y": m.table.lookup(x), "n": m.table.size()}, signature, table=table
    )
    save(model, function, tmp_path / "model")
    frozen = inlined(tmp_path / "model", tmp_path)
    unknown = ["zz", "appl"] if key is tf.string else [1, -1]
    for wanted in ([*KEYS[key], *unknown], unknown, []):
        feeds = {"x": tf.constant(wanted, key, shape=[1, len(wanted)]).numpy()}
        original = harness.run_original(tmp_path / "model", "serving_default", feeds)
        harness.assert_same(original, harness.run_frozen(frozen, "serving_default", feeds))


def test_a_vocabulary_file(tmp_path):
    vocabulary_model(tmp_path / "model", legacy=False)
    model = inlined(tmp_path / "model", tmp_path)
    feeds = {"words": np.array(["banana", "cherry", "nothing", "apple"], object)}
    original = harness.run_original_v1(tmp_path / "model", "serving_default", feeds)
    harness.assert_same(original, harness.run_frozen(model, "serving_default", feeds))


def two_tables():
    string_keys = tf.lookup.KeyValueTensorInitializer(["a", "b", "c"], [1.0, 2.0, 3.0])
    other = tf.lookup.KeyValueTensorInitializer(["x", "a"], tf.constant([0, 1], tf.int64))
    return {
        "t": tf.lookup.StaticHashTable(string_keys, -1.0),
        "u": tf.lookup.StaticVocabularyTable(other, 3),
    }


def in_a_loop(m, s):
    zeros = tf.zeros(tf.shape(s))
    return tf.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y + m.t.lookup(s)), (0, zeros))[1]


def in_a_branch(m, s):
    return tf.cond(tf.size(s) > 2, lambda: m.t.lookup(s), lambda: in_a_loop(m, s))


def in_a_case(m, s):
    branches = [
        lambda: m.t.lookup(s),
        lambda: in_a_branch(m, s),
        lambda: tf.cast(m.u.lookup(s), tf.float32),
    ]
    return tf.switch_case(tf.size(s) % 3, branches)


def in_map_fn(m, s):
    return tf.map_fn(m.t.lookup, s, fn_output_signature=tf.float32)


def in_a_dataset(m, s):
    words = tf.data.Dataset.from_tensor_slices(s)
    return words.map(m.t.lookup).reduce(0.0, lambda total, x: total + x)


@pytest.mark.parametrize(
    "place", [in_a_loop, in_a_branch, in_a_case, in_map_fn, in_a_dataset], ids=lambda f: f.__name__
)
def test_look_ups_in_functions(place, tmp_path):
    model, function = tf2_models.build(
        lambda m, s: {"y": place(m, s), "u": m.u.lookup(s)},
        [tf2_models.spec([None], tf.string, "s")],
        **two_tables(),
    )
    save(model, function, tmp_path / "model")
    frozen = inlined(tmp_path / "model", tmp_path)
    for words in (["a", "q", "c"], ["b"], ["x", "y", "zz", "a"]):
        feeds = {"s": np.array(words, object)}
        original = harness.run_original(tmp_path / "model", "serving_default", feeds)
        harness.assert_same(original, harness.run_frozen(frozen, "serving_default", feeds))


def tf1_tables():
    def table(keys, values):
        filled = tf.lookup.KeyValueTensorInitializer(keys, values)
        return tf.lookup.StaticHashTable(filled, -1.0)

    return table(["a", "b"], [1.0, 2.0]), table(["a", "c"], [5.0, 7.0])


def tf1_loops(s):
    t, u = tf1_tables()

    def branch(i, y):
        return v1.cond(i > 1, lambda: y + t.lookup(s), lambda: y * u.lookup(s))

    def body(i, y):
        return i + 1, tf.ensure_shape(branch(i, y), [None])

    shapes = [tf.TensorShape([]), tf.TensorShape([None])]
    times = tf.cast(t.size(), tf.int32) + 1
    start = [0, tf.ones(tf.shape(s))]
    return v1.while_loop(lambda i, y: i < times, body, start, shape_invariants=shapes)[1]


def tf1_handles_meet(s):
    t, u = tf1_tables()
    first, second = (tf.raw_ops.Switch(data=x.resource_handle, pred=tf.size(s) > 2) for x in (t, u))
    met = tf.raw_ops.Merge(inputs=[first[0], second[1]])[0]
    return tf.raw_ops.LookupTableFindV2(table_handle=met, keys=s, default_value=tf.constant(-1.0))


def tf1_first_table_ops(s):
    """The ops of TensorFlow 0.x, whose handles are references to strings."""
    table = tf.raw_ops.HashTable(key_dtype=tf.string, value_dtype=tf.float32)
    keys, values = tf.constant(["a", "b"]), tf.constant([1.0, 2.0])
    fill = tf.raw_ops.InitializeTable(table_handle=table, keys=keys, values=values)
    v1.add_to_collection(v1.GraphKeys.TABLE_INITIALIZERS, fill)
    return tf.raw_ops.LookupTableFind(table_handle=table, keys=s, default_value=tf.constant(-1.0))


def save_tf1(place, path):
    with tf.Graph().as_default(), v1.Session(config=harness.exact_config()) as session:
        v1.disable_control_flow_v2()
        try:
            s = v1.placeholder(tf.string, [None], name="s")
            y = place(s)
        finally:
            v1.enable_control_flow_v2()
        init = v1.tables_initializer()
        session.run(init)
        v1.saved_model.simple_save(session, str(path), {"s": s}, {"y": y}, legacy_init_op=init)


@pytest.mark.parametrize("tables", ["init", "inline"])
@pytest.mark.parametrize("place", [tf1_loops, tf1_handles_meet, tf1_first_table_ops])
def test_look_ups_in_tf1_control_flow(place, tables, tmp_path):
    save_tf1(place, tmp_path / "model")
    frozen = harness.freeze_model(harness.saved_model(tmp_path / "model"), tmp_path, tables=tables)
    stays = tables == "init" or place is tf1_handles_meet
    assert bool(frozen.init) == stays
    for words in (["a", "b", "c"], ["a", "c"]):
        feeds = {"s": np.array(words, object)}
        original = harness.run_original_v1(tmp_path / "model", "serving_default", feeds)
        harness.assert_same(original, harness.run_frozen(frozen, "serving_default", feeds))


def test_siphash_of_the_paper():
    key = tuple(int.from_bytes(bytes(range(i, i + 8)), "little") for i in (0, 8))
    assert siphash24(key, bytes(range(15))) == 0xA129CA6149BE45E5


@given(st.binary(max_size=40), st.tuples(st.integers(0, 2**31), st.integers(0, 2**31)))
def test_siphash_is_tensorflows(data, key):
    buckets = (1 << 63) - 1
    theirs = tf.raw_ops.StringToHashBucketStrong(input=[data], num_buckets=buckets, key=list(key))
    assert siphash24(key, data) % buckets == int(theirs[0])
