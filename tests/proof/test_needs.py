"""Inputs that a model answers are found in its graph: indices, examples, pictures, sparse tensors."""

import numpy as np
import pytest
import tensorflow as tf

from freezeflow.errors import StageFailed
from freezeflow.proof import samples
from freezeflow.proof.wishes import Random
from freezeflow.values import DType
from tests.stages.test_validate import pair_of, weights

v1 = tf.compat.v1


def placeholder(dtype, shape, name="x"):
    return v1.placeholder(dtype, shape, name=name)


def indices():
    x = placeholder(tf.int64, [None])
    return {"x": x}, {"y": tf.gather(tf.constant(weights(3, 2)), x)}


def indices_of_a_cast():
    x = placeholder(tf.float32, [None, 1])
    return {"x": x}, {"y": tf.gather(tf.constant(weights(2, 3)), tf.cast(x, tf.int32), axis=1)}


def begin_of_a_slice():
    x = placeholder(tf.int32, [])
    return {"x": x}, {"y": tf.constant(weights(2, 2))[x]}


def examples():
    x = placeholder(tf.string, [None])
    spec = {
        "number": tf.io.FixedLenFeature([2], tf.float32),
        "index": tf.io.FixedLenFeature([], tf.int64),
        "words": tf.io.VarLenFeature(tf.string),
        "rows": tf.io.RaggedFeature(tf.int64),
    }
    parsed = tf.io.parse_example(x, spec)
    y = tf.gather(tf.constant(weights(2, 2)), parsed["index"]) * parsed["number"]
    return {"x": x}, {"y": y, "words": parsed["words"].values, "rows": parsed["rows"].values}


def one_example():
    x = placeholder(tf.string, [])
    parsed = tf.io.parse_single_example(x, {"a": tf.io.FixedLenFeature([3], tf.int64)})
    return {"x": x}, {"y": parsed["a"]}


def old_examples():
    x = placeholder(tf.string, [None])
    parsed = tf.raw_ops.ParseExample(
        serialized=x,
        names=[],
        sparse_keys=["s"],
        dense_keys=["d"],
        dense_defaults=[tf.constant([], tf.float32)],
        sparse_types=[tf.int64],
        dense_shapes=[[1]],
    )
    return {"x": x}, {"y": parsed.dense_values[0], "s": parsed.sparse_values[0]}


def pictures():
    x = placeholder(tf.string, [None])
    decode = lambda text: tf.io.decode_image(text, expand_animations=False, channels=3)  # noqa: E731
    return {"x": x}, {"y": tf.map_fn(decode, x, fn_output_signature=tf.uint8)}


def one_jpeg():
    x = placeholder(tf.string, [])
    return {"x": x}, {"y": tf.io.decode_jpeg(x)}


def one_bmp():
    x = placeholder(tf.string, [])
    return {"x": x}, {"y": tf.io.decode_bmp(x)}


def one_sound():
    x = placeholder(tf.string, [])
    return {"x": x}, {"y": tf.audio.decode_wav(x).audio}


def numbers_as_text():
    x = placeholder(tf.string, [None])
    return {"x": x}, {"y": tf.strings.to_number(x)}


def raw_bytes():
    x = placeholder(tf.string, [None])
    return {"x": x}, {"y": tf.io.decode_raw(x, tf.float32)}


def lines():
    x = placeholder(tf.string, [None])
    return {"x": x}, dict(zip("yz", tf.io.decode_csv(x, [[1.0], [2]]), strict=True))


def a_tensor():
    x = placeholder(tf.string, [])
    return {"x": x}, {"y": tf.io.parse_tensor(x, tf.float32)}


def sparse():
    i, s = placeholder(tf.int64, [None, 2], "i"), placeholder(tf.int64, [2], "s")
    x = placeholder(tf.float32, [None])
    y = tf.sparse.sparse_dense_matmul(tf.SparseTensor(i, x, s), tf.constant(weights(5, 2)))
    return {"i": i, "x": x, "s": s}, {"y": y}


def unknown_rank_of_a_product():
    x = placeholder(tf.float32, None)
    return {"x": x}, {"y": tf.raw_ops.MatMul(a=x, b=tf.constant(weights(3, 2)))}


def unknown_rank_of_a_convolution():
    x = placeholder(tf.float32, None)
    kernel = tf.constant(weights(3, 3, 2, 4))
    return {"x": x}, {
        "y": tf.raw_ops.Conv2D(input=x, filter=kernel, strides=[1, 1, 1, 1], padding="SAME")
    }


def unknown_rank_reshaped():
    x = placeholder(tf.float32, None)
    return {"x": x}, {"y": tf.reshape(x, tf.stack([tf.shape(x)[0], 4, 3]))}


def unknown_rank_found_by_trying():
    x = placeholder(tf.float32, None)
    return {"x": x}, {"y": tf.raw_ops.BatchMatMulV2(x=x, y=tf.transpose(x, [0, 2, 1]))}


def scalar():
    x = placeholder(tf.float32, [])
    return {"x": x}, {"y": tf.ensure_shape(x, []) * 2.0}


def lengths_that_sum_up():
    x, n = placeholder(tf.float32, [None]), placeholder(tf.int64, [None], "n")
    return {"x": x, "n": n}, {"y": tf.RaggedTensor.from_row_lengths(x, n).to_tensor()}


MAKERS = [
    value for value in list(globals().values()) if getattr(value, "__module__", "") == __name__
]
MAKERS = [make for make in MAKERS if make is not placeholder]


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_seeded_inputs_are_answered(tmp_path, make):
    with tf.Graph().as_default() as graph:
        inputs, outputs = make()
    pair = pair_of(tmp_path, graph, inputs, outputs)
    verdict = pair.verdict()
    found = verdict["signatures"]["serving_default"]
    assert found["equal"]
    assert found["refused"] == 0, verdict
    edges = pair.verdict(edges=True)["signatures"]["serving_default"]
    assert edges["equal"]


def test_what_is_assumed_is_said_and_a_recipe_goes_before_it(tmp_path):
    with tf.Graph().as_default() as graph:
        ends = unknown_rank_of_a_product()
    pair = pair_of(tmp_path, graph, *ends)
    assumed = pair.verdict()["assumed"]["serving_default"]["x"]
    assert assumed == "shape [?, 3] (for MatMul at MatMul)"
    assert any(assumed in line for line in pair.context.lines)
    assert pair.verdict(random={"x": Random(shape=(4, 3))})["assumed"] == {}
    with pytest.raises(StageFailed, match="refuses every input") as caught:
        pair.verdict(random={"x": Random(shape=(4, 4))})
    assert "random" in caught.value.hint


def test_words_of_a_table_and_one_that_is_not_in_it(tmp_path):
    with tf.Graph().as_default() as graph:
        x = placeholder(tf.string, [None])
        values = tf.lookup.KeyValueTensorInitializer(["one", "two"], tf.constant([5, 7], tf.int64))
        table = tf.lookup.StaticHashTable(values, -1)
        y = table.lookup(x)
    folder = tmp_path / "saved"
    with graph.as_default(), v1.Session() as session:
        v1.saved_model.simple_save(
            session, str(folder), {"x": x}, {"y": y}, values.initialize(table)
        )
    from freezeflow.proof.needs import needs_of
    from freezeflow.sources.original import original_of
    from tests.constructs import harness
    from tests.tf.built import FakeContext

    original = original_of(harness.saved_model(folder), FakeContext(tmp_path))
    wish = needs_of(original)["serving_default"]["x"]
    assert set(wish.choices) == {b"one", b"two", b"?"}
    assert wish.loose


def test_pictures_are_what_they_say():
    for picture in samples.jpeg_pictures() + samples.png_pictures() + samples.bmp_pictures():
        assert tf.io.decode_image(picture).shape == (16, 16, 3)
    assert samples.png_pictures() == samples.png_pictures()


def test_examples_are_those_of_tensorflow():
    features = [
        samples.Feature(b"f", DType.FLOAT, (2,), None),
        samples.Feature(b"i", DType.INT64, None, None),
        samples.Feature(b"s", DType.STRING, (), None),
    ]
    for text in samples.examples(features):
        found = tf.train.Example.FromString(text).features.feature
        assert len(found["f"].float_list.value) == 2
        assert len(found["i"].int64_list.value) == 1
        assert isinstance(found["s"].bytes_list.value[0], bytes)
        assert np.isfinite(found["f"].float_list.value).all()
