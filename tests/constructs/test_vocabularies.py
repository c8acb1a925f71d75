"""Vocabulary files, line by line as TensorFlow reads them: the same table, or both refuse."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from freezeflow.errors import ModelRefused
from tests.constructs import harness, tf2_models
from tests.constructs.test_tf2 import save

LINE, NUMBER = tf.lookup.TextFileIndex.WHOLE_LINE, tf.lookup.TextFileIndex.LINE_NUMBER

# Halfway between two float32, but for a digit that no float64 holds.
NEARLY_HALFWAY = b"1.000000178813934326171874999999"

WORDS = [
    b"a\nb\n", b"a\nb", b"a\r\nb\r\n", b"a\rb\nc\r\r\nb\n", b"a\n b \nb", b"a\n\r",
    b"a\n\nb\n", b"a\n\n", b"\n", b"", b"a\na\n", b"b\na\nb", "ü\nb".encode(),
]  # fmt: skip
NUMBERS = [
    b"a\t5", b"a\t 5 ", b"a\t+5", b"a\t-0", b"a\t007", b"a\t1_0", b"a\t0x10", b"a\t1.0", b"a\t",
    b"a", b"a\t1\t2", b"a\t9223372036854775807", b"a\t9223372036854775808", b"a\t5\na\t5",
    b"a\t5\na\t6",
]  # fmt: skip
FLOATS = [
    b"a\t1.5", b"a\tnan", b"a\t-Infinity", b"a\t1e400", b"a\t3.4028236e38", b"a\t1e-50", b"a\t0.1",
    b"a\t.5", b"a\t5.", b"a\t1_0.5", b"a\t1f", b"a\t0x1p3", b"a\tx", b"a\t-0.0",
    b"a\t" + NEARLY_HALFWAY, b"a\t-" + NEARLY_HALFWAY, b"a\t1.00000017881393432617187500001",
    b"a\t1.000000178813934326171875",
]  # fmt: skip


# Before 2.17 TensorFlow took fewer ways to write a number.
TAKES_FEWER = tuple(map(int, tf.__version__.split(".")[:2])) < (2, 17)


@pytest.fixture(scope="module", params=["words", "numbers", "floats"])
def model(request, tmp_path_factory):
    """A model with a vocabulary file, its kind, and contents to try."""
    folder = tmp_path_factory.mktemp(request.param)
    value, index, files = {
        "words": (tf.int64, NUMBER, WORDS),
        "numbers": (tf.int64, 1, NUMBERS),
        "floats": (tf.float32, 1, FLOATS),
    }[request.param]
    (folder / "words.txt").write_bytes(b"a\t1\n")
    filled = tf.lookup.TextFileInitializer(
        str(folder / "words.txt"), tf.string, LINE if value is tf.int64 and index == NUMBER else 0,
        value, index,
    )  # fmt: skip
    table = tf.lookup.StaticHashTable(filled, tf.constant(-1, value))
    built, function = tf2_models.build(
        lambda m, x: {"y": m.table.lookup(x), "n": m.table.size()},
        [tf2_models.spec([None], tf.string)],
        table=table,
    )
    save(built, function, folder / "model")
    return folder / "model", files


def answers(path, feeds):
    """What TensorFlow answers; None if it cannot load the table."""
    try:
        return harness.run_original(path, "serving_default", feeds)
    except tf.errors.OpError:
        return None


def test_the_table_is_the_one_that_tensorflow_reads(model, tmp_path):
    path, files = model
    (asset,) = (path / "assets").iterdir()
    feeds = {"x": np.array(["a", "b", "a\rb", "c\r", " b ", "", "ü"], object)}
    for number, content in enumerate(files):
        # Tables are shared in a process by the file's name.
        asset.write_bytes(content)
        copy = path.rename(path.with_name(f"model_{number}"))
        path = copy
        (asset,) = (path / "assets").iterdir()
        want = answers(path, feeds)
        if want is None and TAKES_FEWER:
            continue
        if want is None:
            with pytest.raises(ModelRefused, match="vocabulary file"):
                harness.freeze_model(harness.saved_model(path), tmp_path)
            continue
        frozen = harness.freeze_model(harness.saved_model(path), tmp_path)
        have = harness.run_frozen(frozen, "serving_default", feeds)
        np.testing.assert_array_equal(have["y"], want["y"], err_msg=str(content))
        assert have["n"] == want["n"], content
    path.rename(path.with_name("model"))
