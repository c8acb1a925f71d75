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


def test_a_table_that_a_branch_takes_stays(tmp_path):
    (model, function), feeds = tf2_models.table_in_cond()
    save(model, function, tmp_path / "model")
    frozen = harness.freeze_model(
        harness.saved_model(tmp_path / "model"), tmp_path, tables="inline"
    )
    assert frozen.init
    original = harness.run_original(tmp_path / "model", "serving_default", feeds)
    harness.assert_same(original, harness.run_frozen(frozen, "serving_default", feeds))


def test_siphash_of_the_paper():
    key = tuple(int.from_bytes(bytes(range(i, i + 8)), "little") for i in (0, 8))
    assert siphash24(key, bytes(range(15))) == 0xA129CA6149BE45E5


@given(st.binary(max_size=40), st.tuples(st.integers(0, 2**31), st.integers(0, 2**31)))
def test_siphash_is_tensorflows(data, key):
    buckets = (1 << 63) - 1
    theirs = tf.raw_ops.StringToHashBucketStrong(input=[data], num_buckets=buckets, key=list(key))
    assert siphash24(key, data) % buckets == int(theirs[0])
