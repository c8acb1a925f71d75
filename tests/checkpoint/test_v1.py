"""V1 checkpoints against TensorFlow: what it writes is read as it reads it."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from freezeflow.checkpoint import open_checkpoint
from freezeflow.checkpoint.coding import FULL, slice_key
from freezeflow.checkpoint.table import Table
from freezeflow.errors import FreezeflowError, ModelRefused
from freezeflow.messages import message_class
from freezeflow.values import DType
from tests.checkpoint import tables
from tests.checkpoint.written import V1_NUMBERS, Kept, content_of, fetch, numbers, save_v1, v1

STRINGS = tf.constant([[b"", b"a\0b"], [b"x" * 5000, "größer".encode()]])


@pytest.mark.parametrize("dtype", V1_NUMBERS, ids=lambda dtype: dtype.tf_name)
def test_every_dtype(tmp_path, dtype):
    tensors = {
        "scalar": numbers(dtype, ()),
        "small": numbers(dtype, (3, 5)),
        "large": numbers(dtype, (7, 300)),
    }
    save_v1(tmp_path / "a", tensors)
    expected = [content_of(tensor) for tensor in tensors.values()]
    assert fetch(tmp_path / "a", *tensors, put=Kept(tmp_path)) == expected
    entries = open_checkpoint(tmp_path / "a").entries()
    assert [(e.key, e.dtype) for e in entries] == [(key, dtype) for key in sorted(tensors)]
    assert {e.key: (e.shape, e.nbytes, e.slices) for e in entries} == {
        key: (shape, len(data), ()) for key, (shape, data) in zip(tensors, expected, strict=True)
    }


def test_floats_that_are_no_numbers_keep_their_bits(tmp_path):
    bits = np.array([0x7F800001, 0xFFC00123, 0x7F800000, 0x80000000, 1], np.uint32)
    tensor = tf.bitcast(tf.constant(bits), tf.float32)
    save_v1(tmp_path / "a", {"t": tensor})
    reader = v1.train.load_checkpoint(str(tmp_path / "a"))
    assert fetch(tmp_path / "a", "t") == [((5,), reader.get_tensor("t").tobytes())]
    assert fetch(tmp_path / "a", "t") == [((5,), bits.tobytes())]


def test_strings_and_nothing(tmp_path):
    tensors = {"text": STRINGS, "one": tf.constant(b"x\0"), "none": tf.zeros((0, 3))}
    save_v1(tmp_path / "a", tensors)
    assert fetch(tmp_path / "a", *tensors) == [content_of(t) for t in tensors.values()]


@pytest.mark.parametrize("sharded", [False, True])
def test_what_the_saver_writes(tmp_path, sharded):
    value = numbers(DType.FLOAT, (40, 30)).numpy()
    with tf.Graph().as_default(), v1.Session() as session:
        one = v1.get_variable("one", initializer=value)
        two = v1.get_variable("two", initializer=np.int64(5))
        session.run(v1.global_variables_initializer())
        saver = v1.train.Saver([one, two], sharded=sharded, write_version=v1.train.SaverDef.V1)
        prefix = saver.save(session, str(tmp_path / "model"), global_step=3)
    reader = v1.train.load_checkpoint(prefix)
    expected = [reader.get_tensor("one"), np.asarray(reader.get_tensor("two"))]
    assert fetch(prefix.removesuffix("-?????-of-00001"), "one", "two", put=Kept(tmp_path)) == [
        (value.shape, value.tobytes()) for value in expected
    ]


def test_slices_in_several_shards(tmp_path):
    tensor = numbers(DType.FLOAT, (8, 300))
    save_v1(tmp_path / "m-00000-of-00002", {"t": tensor[:3]}, {"t": "8 300 0,3:-"})
    save_v1(tmp_path / "m-00001-of-00002", {"t": tensor[3:]}, {"t": "8 300 3,5:0,300"})
    put = Kept(tmp_path)
    wanted = [("t", ""), ("t", "8 300 0,3:-"), ("t", "8 300 1,4:7,90"), ("t", "8 300 3,1:0,2")]
    parts = [tensor, tensor[:3], tensor[1:5, 7:97], tensor[3:4, :2]]
    assert fetch(tmp_path / "m", *wanted, put=put) == [content_of(part) for part in parts]
    entry = open_checkpoint(tmp_path / "m").describe("t")
    assert (entry.shape, len(entry.slices)) == ((8, 300), 2)
    (tmp_path / "m-00001-of-00002").unlink()
    with pytest.raises(ModelRefused, match="2 parts"):
        open_checkpoint(tmp_path / "m")


# ---------------------------------------------------------------- tables of our own


def saved(name, shape, dtype, **values):
    """The two messages of a tensor that is saved whole: its description and its data."""
    whole = [{} for _ in shape]
    slice_proto = {"extent": whole}
    meta = {"name": name, "type": dtype, "shape": {"dim": [{"size": n} for n in shape]}}
    meta["slice"] = [slice_proto]
    data = {"name": name, "slice": slice_proto, "data": values}
    key = slice_key(name.encode(), [(0, FULL)] * len(shape))
    return meta, key, message_class("SavedTensorSlices")(data=data)


def write(path, *tensors):
    meta = message_class("SavedTensorSlices")(meta={"tensor": [meta for meta, _, _ in tensors]})
    entries = [(key, message.SerializeToString()) for _, key, message in tensors]
    path.write_bytes(tables.table([(b"", meta.SerializeToString()), *sorted(entries)]))
    return path


@pytest.mark.parametrize(
    ("dtype", "field", "values"),
    [
        (DType.UINT32, "uint32_val", [0, 7, (1 << 32) - 1]),
        (DType.UINT64, "uint64_val", [0, 7, (1 << 64) - 1]),
        (DType.QUINT16, "int_val", [0, 7, 65535]),
    ],
)
def test_types_that_only_other_writers_save(tmp_path, dtype, field, values):
    path = write(tmp_path / "a", saved("t", [3], int(dtype), **{field: values}))
    expected = np.array(values, f"<u{dtype.item_bytes}").tobytes()
    assert fetch(path, "t") == [((3,), expected)]


BROKEN = {
    "too few": (saved("t", [3], 1, float_val=[1, 2]), "'t' holds 8 bytes of 12"),
    "too many": (saved("t", [3], 1, float_val=[1] * 4), "'t' holds 16 bytes of 12"),
    "another field": (saved("t", [1], 1, double_val=[1]), "'t' holds 0 bytes of 4"),
    "huge": (saved("t", [1 << 40, 1 << 20], 1, float_val=[1]), "'t' holds 4 bytes"),
    "out of range": (saved("t", [1], 4, int_val=[256]), "'t' holds a number that is no uint8"),
    "negative half": (saved("t", [1], 19, half_val=[-1]), "no float16"),
    "strings": (
        saved("t", [1 << 40], 7, string_val=[b"x"]),
        "'t' holds 1 of 1099511627776 strings",
    ),
    "bfloat16": (saved("t", [1], 14, half_val=[1]), "which V1 cannot hold"),
    "resource": (saved("t", [1], 20), "'t' holds resource"),
    "unknown dtype": (saved("t", [1], 99), "dtype of 't'"),
    "negative size": (saved("t", [-1], 1), "shape of 't'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_contradicts_itself_is_refused(tmp_path, name):
    tensor, message = BROKEN[name]
    path = write(tmp_path / "a", tensor)
    with pytest.raises(ModelRefused, match=message) as refusal:
        fetch(path, "t", put=Kept(tmp_path))
    assert refusal.value.where == str(path) and refusal.value.hint


def test_tables_that_contradict_each_other_are_refused(tmp_path):
    tensor = saved("t", [1], 1, float_val=[1])
    write(tmp_path / "m-00000-of-00002", tensor)
    write(tmp_path / "m-00001-of-00002", tensor)
    with pytest.raises(ModelRefused, match="stored twice"):
        open_checkpoint(tmp_path / "m")
    write(tmp_path / "m-00001-of-00002", saved("t", [2], 1, float_val=[1, 2]))
    with pytest.raises(ModelRefused, match="two shapes"):
        open_checkpoint(tmp_path / "m")


def test_a_slice_without_data_and_a_table_without_description(tmp_path):
    meta, key, data = saved("t", [1], 1, float_val=[1])
    path = write(tmp_path / "a", (meta, slice_key(b"u", [(0, FULL)]), data))
    with pytest.raises(ModelRefused, match="a slice of 't' is missing"):
        fetch(path, "t")
    path.write_bytes(tables.table([(key, data.SerializeToString())]))
    with pytest.raises(ModelRefused, match="says nothing"):
        fetch(path, "t")
    path.write_bytes(tables.table([(b"", b"\xff")]))
    with pytest.raises(ModelRefused, match="cannot be read"):
        fetch(path, "t")


def test_a_key_that_is_not_there(tmp_path):
    write(tmp_path / "a", saved("kernel", [1], 1, float_val=[1]))
    with pytest.raises(ModelRefused, match="no tensor 'kernal'") as refusal:
        fetch(tmp_path / "a", "kernal")
    assert "kernel" in refusal.value.hint


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    tensors = {"t": numbers(DType.FLOAT, (20, 30)), "text": STRINGS, "n": tf.constant(3)}
    save_v1(folder / "a", tensors)
    with contextlib.closing(Table(folder / "a")) as table:
        assert len(list(table.items())) == 4
    return (
        (folder / "a").read_bytes(),
        tuple(tensors),
        fetch(folder / "a", *tensors, put=Kept(folder)),
    )


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_files_are_refused_or_read_right(good, tmp_path_factory, data):
    content, keys, expected = good
    damaged = bytearray(content)
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        for flip in data.draw(
            st.lists(st.integers(0, len(content) * 8 - 1), min_size=1, max_size=3)
        ):
            damaged[flip // 8] ^= 1 << flip % 8
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "a").write_bytes(damaged)
    try:
        found = fetch(folder / "a", *keys, put=Kept(folder))
    except FreezeflowError as refusal:
        assert isinstance(refusal, ModelRefused) and refusal.where and refusal.hint
    else:
        assert found == expected or bytes(damaged) == content
