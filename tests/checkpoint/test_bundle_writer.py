"""Bundles that freezeflow writes: to the byte what TensorFlow writes, and read back by both."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from freezeflow.checkpoint import Request, Value, open_checkpoint, write_bundle
from freezeflow.checkpoint.table import Table
from freezeflow.checkpoint.table_writer import table_pieces
from freezeflow.errors import FreezeflowError
from freezeflow.store.files import publication
from freezeflow.values import Digest, DType, TensorRef
from tests.checkpoint.written import (
    NUMBERS,
    content_of,
    fetch,
    location_of,
    no_put,
    numbers,
    restored,
    save,
)

STRINGS = (b"", b"a\0b", b"x" * 127, b"y" * 128, b"z" * 20_000, "größer".encode())


def value_of(tensor, folder=None):
    """A TensorFlow tensor as a value; its bytes in a file of the folder, if one is given."""
    shape, content = content_of(tensor)
    dtype = DType(tensor.dtype.as_datatype_enum)
    if folder is None or dtype is DType.STRING:
        return Value(dtype, shape, content)
    path = folder / f"source{len(list(folder.iterdir()))}"
    path.write_bytes(b"before" + content + b"after")
    location = location_of(path, 6, len(content))
    return Value(dtype, shape, TensorRef(Digest.of(content), dtype, shape, location))


def in_order(tensors):
    return dict(sorted(tensors.items(), key=lambda item: item[0].encode()))


def same_files(one, two):
    for ending in ("index", "data-00000-of-00001"):
        paths = [prefix.with_name(f"{prefix.name}.{ending}") for prefix in (one, two)]
        assert paths[0].read_bytes() == paths[1].read_bytes(), ending


@pytest.mark.parametrize("dtype", NUMBERS, ids=lambda dtype: dtype.tf_name)
def test_every_dtype_as_tensorflow_writes_it(tmp_path, dtype):
    tensors = {
        "b/large": numbers(dtype, (7, 300)),
        "a": numbers(dtype, ()),
        "none": numbers(dtype, (0, 4)),
        "b": numbers(dtype, (3, 5)),
    }
    save(tmp_path / "theirs", in_order(tensors))
    (tmp_path / "from").mkdir()
    for name, folder in (("memory", None), ("files", tmp_path / "from")):
        write_bundle(tmp_path / name, {k: value_of(t, folder) for k, t in tensors.items()})
        same_files(tmp_path / name, tmp_path / "theirs")
    assert restored(tmp_path / "files", "b/large", dtype) == content_of(tensors["b/large"])


def test_strings(tmp_path):
    tensors = {
        "scalar": tf.constant(b"one\0two"),
        "matrix": tf.constant(np.array(STRINGS, object).reshape(2, 3)),
        "none": tf.constant([], tf.string),
    }
    save(tmp_path / "theirs", in_order(tensors))
    written = write_bundle(tmp_path / "ours", {k: value_of(t) for k, t in tensors.items()})
    same_files(tmp_path / "ours", tmp_path / "theirs")
    assert fetch(tmp_path / "ours", *tensors) == [content_of(t) for t in tensors.values()]
    reader = tf.train.load_checkpoint(str(tmp_path / "ours"))
    assert reader.get_tensor("matrix").ravel().tolist() == list(STRINGS)
    assert {path.name: w.nbytes for path, w in written.items()} == {
        path.name: path.stat().st_size for path in tmp_path.glob("ours.*")
    }


def test_many_keys_fill_several_blocks(tmp_path):
    names = [f"layer_{i:05d}/kernel/.ATTRIBUTES/VARIABLE_VALUE" for i in range(7000)]
    names += ["\xff" * 20, "\xff" * 21, "größe", "z"]
    tensors = {name: tf.constant(float(i)) for i, name in enumerate(names)}
    save(tmp_path / "theirs", in_order(tensors))
    write_bundle(tmp_path / "ours", {k: value_of(t) for k, t in tensors.items()})
    same_files(tmp_path / "ours", tmp_path / "theirs")
    reader = tf.train.load_checkpoint(str(tmp_path / "ours"))
    assert len(reader.get_variable_to_shape_map()) == len(names)
    assert reader.get_tensor(names[6543]) == 6543


@given(st.dictionaries(st.binary(max_size=12), st.binary(max_size=40), max_size=60))
@settings(max_examples=60, deadline=None)
def test_a_table_is_read_as_it_was_written(tmp_path_factory, entries):
    path = tmp_path_factory.mktemp("table") / "table"
    ordered = sorted(entries.items())
    path.write_bytes(b"".join(table_pieces(ordered)))
    table = Table(path)
    try:
        assert list(table.items()) == ordered
        assert all(table.get(key) == value for key, value in ordered)
    finally:
        table.close()


def test_nothing_at_all(tmp_path):
    write_bundle(tmp_path / "ours", {})
    assert open_checkpoint(tmp_path / "ours").keys() == ()
    assert tf.train.load_checkpoint(str(tmp_path / "ours")).get_variable_to_shape_map() == {}


def test_large_pieces_are_checksummed_behind_the_copy(tmp_path):
    """Beyond the size at which a second thread follows the writer, across its buffers."""
    data = np.random.default_rng(3).integers(0, 256, 3_000_001, dtype=np.uint8)
    tensors = {"a": tf.constant(data), "b": tf.constant(data[:5]), "c": tf.constant(data[::-1])}
    (tmp_path / "from").mkdir()
    values = {key: value_of(tensor, tmp_path / "from") for key, tensor in tensors.items()}
    write_bundle(tmp_path / "ours", values)
    save(tmp_path / "theirs", in_order(tensors))
    same_files(tmp_path / "ours", tmp_path / "theirs")
    # Our own reader checks every checksum.
    assert len(open_checkpoint(tmp_path / "ours").fetch([Request("a"), Request("c")], no_put)) == 2


def test_a_source_that_changed_leaves_nothing(tmp_path):
    (tmp_path / "from").mkdir()
    value = value_of(numbers(DType.FLOAT, (1000,)), tmp_path / "from")
    (tmp_path / "from" / "source0").write_bytes(b"other")
    with pytest.raises(FreezeflowError, match="changed"), publication() as files:
        write_bundle(tmp_path / "ours", {"a": value}, write=files.write)
    assert [path.name for path in tmp_path.iterdir()] == ["from"]
