"""Tensor bundles against TensorFlow: what it writes is read as it reads it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from freezeflow.checkpoint import Request, bundle_data, open_checkpoint
from freezeflow.checkpoint.coding import FULL, slice_key
from freezeflow.checkpoint.table import Table
from freezeflow.errors import FreezeflowError, ModelRefused
from freezeflow.messages import message_class
from freezeflow.values import DType, TensorRef
from tests.checkpoint import tables
from tests.checkpoint.written import (
    NUMBERS,
    Kept,
    content_of,
    fetch,
    no_put,
    numbers,
    restored,
    save,
    save_parts,
    v1,
)

STRINGS = [b"", b"a\0b", b"x" * 127, b"y" * 128, b"z" * 20_000, "größer".encode()]


@pytest.mark.parametrize("dtype", NUMBERS, ids=lambda dtype: dtype.tf_name)
def test_every_dtype(tmp_path, dtype):
    tensors = {
        "scalar": numbers(dtype, ()),
        "small": numbers(dtype, (3, 5)),
        "large": numbers(dtype, (7, 300)),
        "none": numbers(dtype, (0, 4)),
    }
    save(tmp_path / "a", tensors)
    assert fetch(tmp_path / "a", *tensors) == [content_of(t) for t in tensors.values()]
    assert fetch(tmp_path / "a", "large") == [restored(tmp_path / "a", "large", dtype)]
    values = open_checkpoint(tmp_path / "a").fetch([Request(k) for k in tensors], no_put)
    assert {value.dtype for value in values} == {dtype}
    assert [isinstance(value.content, TensorRef) for value in values] == [False, False, True, False]


def test_strings(tmp_path):
    tensors = {
        "scalar": tf.constant(b"one\0two"),
        "matrix": tf.constant(np.array(STRINGS, object).reshape(2, 3)),
        "none": tf.constant([], tf.string),
        "many": tf.constant([str(n) for n in range(3000)]),
    }
    save(tmp_path / "a", tensors)
    assert fetch(tmp_path / "a", *tensors) == [content_of(t) for t in tensors.values()]


def test_what_tf_train_checkpoint_writes(tmp_path):
    module = tf.Module()
    module.weights = [tf.Variable(numbers(DType.FLOAT, (n, 40), n)) for n in (1, 30, 50)]
    module.step = tf.Variable(7, dtype=tf.int64)
    prefix = tf.train.Checkpoint(model=module).save(tmp_path / "ckpt")
    reader = tf.train.load_checkpoint(prefix)
    ours = open_checkpoint(prefix)
    shapes = reader.get_variable_to_shape_map()
    assert ours.keys() == tuple(sorted(shapes))
    for key, dtype in reader.get_variable_to_dtype_map().items():
        entry = ours.describe(key)
        assert (entry.shape, entry.dtype) == (tuple(shapes[key]), dtype.as_datatype_enum)
        assert fetch(prefix, key) == [content_of(tf.constant(reader.get_tensor(key), dtype))]


@pytest.mark.parametrize("sharded", [False, True])
def test_what_the_saver_of_tf1_writes(tmp_path, sharded):
    value = numbers(DType.FLOAT, (40, 30)).numpy()
    with tf.Graph().as_default(), v1.Session() as session:
        with tf.device("/cpu:0"):
            one = v1.get_variable("one", initializer=value)
        two = v1.get_variable("two", initializer=np.int64(5))
        session.run(v1.global_variables_initializer())
        saver = v1.train.Saver([one, two], sharded=sharded)
        prefix = saver.save(session, str(tmp_path / "model"), global_step=3)
        values = session.run([one, two])
    expected = [(value.shape, value.tobytes()) for value in values]
    assert fetch(prefix, "one", "two") == expected


def test_shards(tmp_path):
    parts = [{f"v{n}": numbers(DType.FLOAT, (n + 1, 200), n)} for n in range(5)]
    save_parts(tmp_path / "a", *((part, {}) for part in parts))
    tensors = {key: tensor for part in parts for key, tensor in part.items()}
    assert fetch(tmp_path / "a", *tensors) == [content_of(t) for t in tensors.values()]
    checkpoint = open_checkpoint(tmp_path / "a")
    assert len(checkpoint.files) == 6 and all(path.is_file() for path in checkpoint.files)


# ---------------------------------------------------------------- slices


def place_of(spec):
    """What a spec picks, as NumPy takes it."""
    extents = spec.split(" ")[-1].split(":") if spec else ["-"]
    return tuple(
        slice(None) if e == "-" else slice(int(e.split(",")[0]), sum(map(int, e.split(","))))
        for e in extents
    )


def save_sliced(prefix, key, tensor, specs):
    """Writes a tensor in slices, each from a file of its own."""
    parts = [({key: tensor[place_of(spec)]}, {key: spec}) for spec in specs]
    save_parts(prefix, *parts)


SPECS = ["8 300 0,3:-", "8 300 3,1:-", "8 300 4,4:0,100", "8 300 4,4:100,200"]
WANTED = [
    "",
    *SPECS,
    "8 300 -:-",
    "8 300 0,8:0,300",
    "8 300 1,2:-",
    "8 300 2,5:50,100",
    "8 300 7,1:299,1",
]


@pytest.mark.parametrize("dtype", [DType.FLOAT, DType.UINT8, DType.STRING, DType.COMPLEX128])
def test_slices(tmp_path, dtype):
    if dtype is DType.STRING:
        tensor = tf.reshape(tf.strings.as_string(tf.range(2400)), (8, 300))
    else:
        tensor = numbers(dtype, (8, 300))
    save_sliced(tmp_path / "a", "t", tensor, SPECS)
    put = Kept(tmp_path)
    for spec in WANTED:
        expected = content_of(tensor[place_of(spec)])
        assert fetch(tmp_path / "a", ("t", spec), put=put) == [expected], spec
        # TensorFlow itself cannot put strings together.
        assert dtype is DType.STRING or restored(tmp_path / "a", "t", dtype, spec) == expected
    entry = open_checkpoint(tmp_path / "a").describe("t")
    assert entry.shape == (8, 300) and len(entry.slices) == 4
    if dtype is not DType.STRING:
        assert entry.nbytes == 2400 * dtype.item_bytes
    assert open_checkpoint(tmp_path / "a").keys() == ("t",)


def test_stored_slices_and_rows_of_them_stay_where_they_are(tmp_path):
    tensor = numbers(DType.FLOAT, (8, 300))
    save_sliced(tmp_path / "a", "t", tensor, ["8 300 0,4:-", "8 300 4,4:0,300"])
    requests = [
        ("t", spec) for spec in ("8 300 0,4:-", "8 300 0,4:0,300", "8 300 5,2:-", "8 300 6,1:9,2")
    ]
    found = fetch(tmp_path / "a", *requests, put=no_put)
    parts = (tensor[:4], tensor[:4], tensor[5:7], tensor[6:7, 9:11])
    assert found == [content_of(part) for part in parts]


def test_a_part_of_a_tensor_that_is_stored_whole(tmp_path):
    tensors = {"t": numbers(DType.INT32, (40, 30)), "s": numbers(DType.INT32, (4, 3))}
    save(tmp_path / "a", tensors)
    for key, spec in [
        ("t", "40 30 3,20:-"),
        ("t", "40 30 -:2,20"),
        ("s", "4 3 1,2:-"),
        ("s", "4 3 -:1,1"),
    ]:
        found = fetch(tmp_path / "a", (key, spec), put=Kept(tmp_path))
        assert found == [restored(tmp_path / "a", key, DType.INT32, spec)]


def test_slices_of_keys_that_need_escapes(tmp_path):
    for number, key in enumerate(["a/b", "é\x7f", "x" * 300]):
        prefix = tmp_path / str(number)
        save_sliced(prefix, key, numbers(DType.FLOAT, (200, 2)), ["200 2 0,70:-", "200 2 70,130:-"])
        assert fetch(prefix, key, put=Kept(tmp_path)) == [restored(prefix, key, DType.FLOAT)]


def test_a_hole_between_slices_is_refused(tmp_path):
    save_sliced(tmp_path / "a", "t", numbers(DType.FLOAT, (8, 300)), SPECS[1:])
    with pytest.raises(ModelRefused, match="1500 of 2400") as refusal:
        fetch(tmp_path / "a", "t")
    assert "'t'" in str(refusal.value)


@pytest.mark.parametrize("spec", ["8 300", "4 2 -:-", "8 300 7,2:-", "nonsense"])
def test_a_spec_that_does_not_fit_is_refused(tmp_path, spec):
    save(tmp_path / "a", {"t": numbers(DType.FLOAT, (8, 300))})
    with pytest.raises(ModelRefused, match="'t'"):
        fetch(tmp_path / "a", ("t", spec))


# ---------------------------------------------------------------- one pass


def test_what_several_ask_for_is_read_once(tmp_path, monkeypatch):
    save(tmp_path / "a", {"t": numbers(DType.FLOAT, (40, 30)), "u": numbers(DType.FLOAT, (40, 40))})
    scanned = []

    def counting(path, ranges, **options):
        scanned.extend(ranges)
        return scan(path, ranges, **options)

    scan = bundle_data.scan
    monkeypatch.setattr(bundle_data, "scan", counting)
    values = open_checkpoint(tmp_path / "a").fetch(
        [Request("t"), Request("u"), Request("t"), Request("t", "40 30 -:-")], no_put
    )
    assert sorted(length for _, length in scanned) == [4800, 6400]
    assert values[0] == values[2] == values[3]


@pytest.mark.timeout(120)
def test_memory_stays_small_and_tensorflow_away(tmp_path):
    size = 150_000_000
    save(tmp_path / "a", {f"t{n}": tf.zeros([size // 12], tf.float32) for n in range(3)})
    script = """
import json, resource, sys
from freezeflow.checkpoint import Request, open_checkpoint
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
checkpoint = open_checkpoint(sys.argv[1])
values = checkpoint.fetch([Request(key) for key in checkpoint.keys()], None)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
loaded = sorted({"tensorflow", "numpy"} & set(sys.modules))
print(json.dumps([sum(v.content.nbytes for v in values), after - before, loaded]))
"""
    found = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a")], check=True, capture_output=True
    )
    total, grown, loaded = json.loads(found.stdout)
    assert (total, loaded) == (size, [])
    assert grown < 12_000  # KiB


# ---------------------------------------------------------------- refusals


@pytest.fixture
def prefix(tmp_path):
    """A bundle of two shards with numbers, strings and slices."""
    big = numbers(DType.FLOAT, (20, 40))
    parts = [
        ({"big": big[:15], "small": numbers(DType.INT32, (3,))}, {"big": "20 40 0,15:-"}),
        (
            {"big": big[15:], "text": tf.constant(STRINGS[:4]), "other": big},
            {"big": "20 40 15,5:-"},
        ),
    ]
    save_parts(tmp_path / "a", *parts)
    return tmp_path / "a"


KEYS = ("big", "other", "small", "text")


def table_items(path):
    with contextlib.closing(Table(path)) as table:
        return list(table.items())


def edit(prefix, change, compression=0):
    """Writes the index again, its messages changed, all its checksums right."""
    path = prefix.with_name(prefix.name + ".index")
    entries = dict(table_items(path))
    messages = {
        key: message_class("BundleEntryProto").FromString(v) for key, v in entries.items() if key
    }
    header = message_class("BundleHeaderProto").FromString(entries[b""])
    change(header, messages)
    changed = [(b"", header.SerializeToString())]
    changed += [(key, messages[key].SerializeToString()) for key in sorted(messages)]
    path.write_bytes(tables.table(changed, compression=compression))


@pytest.mark.parametrize("compression", [0, 1])
def test_an_index_compressed_or_not(prefix, compression):
    expected = [restored(prefix, key, open_checkpoint(prefix).describe(key).dtype) for key in KEYS]
    edit(prefix, lambda header, entries: None, compression)
    assert fetch(prefix, *KEYS, put=Kept(prefix.parent)) == expected
    if compression:
        reader = tf.train.load_checkpoint(str(prefix))
        assert sorted(reader.get_variable_to_shape_map()) == list(KEYS)


def _header(**fields):
    return lambda header, entries: [setattr(header, k, v) for k, v in fields.items()]


def _small(**fields):
    return lambda header, entries: [setattr(entries[b"small"], k, v) for k, v in fields.items()]


def _shape(*sizes):
    def change(header, entries):
        del entries[b"small"].shape.dim[:]
        for size in sizes:
            entries[b"small"].shape.dim.add(size=size)

    return change


def _version(header, entries):
    header.version.min_consumer = 9


def _drop_slice(header, entries):
    del entries[min(entries)]


def _wrong_slice(header, entries):
    entries[b"big"].slices[0].extent[0].length = 400


def _move_slice(header, entries):
    entries[min(entries)].dtype = 2


def _text_count(header, entries):
    entries[b"text"].shape.dim[0].size = 1 << 40


BROKEN = {
    "big-endian": (_header(endianness=1), "big-endian"),
    "newer format": (_version, "version"),
    "no shards": (_header(num_shards=0), "data file"),
    "too many shards": (_header(num_shards=-5), "data files"),
    "shard that is not there": (_small(shard_id=2), "'small' lies in data file 2 of 2"),
    "negative shard": (_small(shard_id=-1), "'small'"),
    "negative offset": (_small(offset=-4), "'small'"),
    "offset behind the end": (_small(offset=1 << 40), "'small'"),
    "wrong size": (_small(size=16), "'small' takes 16 bytes, but int32\\[3\\] takes 12"),
    "negative size": (_small(size=-12), "'small'"),
    "wrong checksum": (_small(crc32c=1), "'small'.*checksum"),
    "unknown dtype": (_small(dtype=77), "dtype of 'small' is 77"),
    "no dtype": (_small(dtype=0), "'small' has no dtype"),
    "resource": (_small(dtype=20), "'small' holds resource"),
    "variant": (_small(dtype=21), "'small' holds variant"),
    "reference": (_small(dtype=103), "dtype of 'small'"),
    "negative dimension": (_shape(-3), "shape of 'small'"),
    "huge dimension": (_shape(1 << 62, 1 << 62), "'small'"),
    "rank 300": (_shape(*[1] * 300), "shape of 'small'"),
    "a slice without its entry": (_drop_slice, "slice 0,15:0,40 of 'big'"),
    "a slice outside": (_wrong_slice, "'big'.*not inside"),
    "a slice of another dtype": (_move_slice, "slice 0,15:0,40 of 'big' is float64"),
    "more strings than bytes": (_text_count, "'text'.*too few"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_index_that_is_wrong_is_refused(prefix, name):
    change, message = BROKEN[name]
    edit(prefix, change)
    with pytest.raises(ModelRefused, match=message) as refusal:
        fetch(prefix, *KEYS, put=Kept(prefix.parent))
    assert str(prefix) in refusal.value.where and refusal.value.hint


def test_slices_over_each_other_cannot_fill_the_memory(prefix):
    def change(header, entries):
        entry = entries[min(entries)]
        big = entries[b"big"]
        del big.slices[:]
        big.shape.dim[0].size = 15 * 4000
        for number in range(4000):
            piece = big.slices.add()
            piece.extent.add(start=15 * number, length=15)
            piece.extent.add()
            key = slice_key(b"big", [(15 * number, 15), (0, FULL)])
            entries[key] = type(entry).FromString(entry.SerializeToString())

    edit(prefix, change)
    with pytest.raises(ModelRefused, match="over each other"):
        fetch(prefix, "big")


def test_missing_data_files(prefix):
    shard = prefix.with_name(prefix.name + ".data-00001-of-00002")
    shard.unlink()
    with pytest.raises(ModelRefused, match="missing") as refusal:
        fetch(prefix, "other")
    assert refusal.value.where == str(shard) and "'other'" in refusal.value.message
    assert fetch(prefix, "small")[0][0] == (3,)


def test_a_data_file_cut_short(prefix):
    shard = prefix.with_name(prefix.name + ".data-00001-of-00002")
    shard.write_bytes(shard.read_bytes()[:-40])
    with pytest.raises(ModelRefused, match=r"'\w+' should take") as refusal:
        fetch(prefix, *KEYS)
    assert refusal.value.where == str(shard)


def test_a_key_that_is_not_there_names_its_neighbours(prefix):
    with pytest.raises(ModelRefused, match="no tensor 'smal'") as refusal:
        fetch(prefix, "smal")
    assert "small" in refusal.value.hint
    for key in ("", "\0big"):
        with pytest.raises(ModelRefused, match="no tensor"):
            fetch(prefix, key)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Files of a bundle of two shards, and what it holds."""
    folder = tmp_path_factory.mktemp("good")
    big = numbers(DType.FLOAT, (20, 40))
    parts = [
        ({"big": big[:15], "small": numbers(DType.INT32, (3,))}, {"big": "20 40 0,15:-"}),
        ({"big": big[15:], "text": tf.constant(STRINGS[:4])}, {"big": "20 40 15,5:-"}),
    ]
    save_parts(folder / "a", *parts)
    files = {path.name: path.read_bytes() for path in folder.glob("a.*")}
    keys = ("big", "small", "text")
    return files, keys, fetch(folder / "a", *keys, put=Kept(folder))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_files_are_refused_or_read_right(good, tmp_path_factory, data):
    files, keys, expected = good
    name = data.draw(st.sampled_from(sorted(files)))
    content = bytearray(files[name])
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        for flip in data.draw(
            st.lists(st.integers(0, len(content) * 8 - 1), min_size=1, max_size=3)
        ):
            content[flip // 8] ^= 1 << flip % 8
    folder = tmp_path_factory.mktemp("damaged")
    for other, good_content in files.items():
        (folder / other).write_bytes(bytes(content) if other == name else good_content)
    try:
        found = fetch(folder / "a", *keys, put=Kept(folder))
    except FreezeflowError as refusal:
        assert isinstance(refusal, ModelRefused) and refusal.where and refusal.hint
    else:
        assert found == expected


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_entry_with_right_checksums_is_refused_or_read(good, tmp_path_factory, data):
    """Random fields in the index's own messages, where no checksum helps."""
    files, keys, _ = good
    folder = tmp_path_factory.mktemp("edited")
    for name, content in files.items():
        (folder / name).write_bytes(content)
    number = st.one_of(st.integers(-2, 60), st.integers(-(1 << 63), (1 << 63) - 1))
    small = number.map(lambda n: max(-(1 << 31), min(n, (1 << 31) - 1)))

    def change(header, entries):
        entry = entries[data.draw(st.sampled_from(sorted(entries)))]
        for field in data.draw(
            st.sets(st.sampled_from(["dtype", "shard_id", "offset", "size", "dim"]))
        ):
            if field == "dim":
                entry.shape.dim.add(size=data.draw(number))
            else:
                wide = field in ("offset", "size")
                setattr(entry, field, data.draw(number if wide else small))

    edit(folder / "a", change)
    for key in keys:
        try:
            fetch(folder / "a", key, put=Kept(folder))
        except FreezeflowError as refusal:
            assert isinstance(refusal, ModelRefused) and refusal.where and refusal.hint
