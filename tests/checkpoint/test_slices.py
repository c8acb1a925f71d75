"""Slices: specs, keys, and putting tensors together, against NumPy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freezeflow.checkpoint.assembly import (
    FileSource,
    MemorySource,
    Part,
    assemble,
    assemble_strings,
)
from freezeflow.checkpoint.coding import FULL, Malformed, slice_key
from freezeflow.checkpoint.slices import (
    box_shape,
    covering,
    overlap,
    parse_spec,
    runs,
    volume,
    whole,
)

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)


@pytest.mark.parametrize(
    ("spec", "shape", "box"),
    [
        ("4 2 0,2:0,2", (4, 2), ((0, 2), (0, 2))),
        ("4 2 -:1,1", (4, 2), ((0, 4), (1, 1))),
        ("7 -", (7,), ((0, 7),)),
        ("0 3 -:-", (0, 3), ((0, 0), (0, 3))),
        ("1 0,1", (1,), ((0, 1),)),
        (" ", None, None),
        ("", (), ()),
    ],
)
def test_specs(spec, shape, box):
    if shape is None:
        with pytest.raises(Malformed):
            parse_spec(spec)
    else:
        assert parse_spec(spec) == (shape, box)


@pytest.mark.parametrize(
    "spec",
    [
        "4 2",
        "4 0,5",
        "4 -1,2",
        "4 0,0",
        "4 2 0,2",
        "-4 -",
        "a -",
        "4 x,1",
        "4 0,1,2",
        "4  -",
        "4 :",
    ],
)
def test_bad_specs(spec):
    with pytest.raises(Malformed):
        parse_spec(spec)


@given(st.text())
def test_any_spec_is_read_or_malformed(spec):
    try:
        shape, box = parse_spec(spec)
    except Malformed:
        return
    assert all(s >= 0 and s + n <= size for size, (s, n) in zip(shape, box, strict=True))


@given(
    st.tuples(st.binary(max_size=4), INT64, INT64), st.tuples(st.binary(max_size=4), INT64, INT64)
)
def test_keys_of_slices_are_in_the_order_of_what_they_name(one, other):
    """The law of ordered codes; it holds only when every length is written as it should be."""
    keys = [slice_key(name, [(start, length)]) for name, start, length in (one, other)]
    assert (keys[0] < keys[1]) == (one < other)


def test_a_key_of_a_slice():
    key = slice_key(b"a\x00\xffb", [(0, FULL), (64, 63)])
    assert (
        key == b"\x00" + b"a\x00\xff\xff\x00b\x00\x01" + b"\x01\x02" + b"\x80\x7f" + b"\xc0\x40\xbf"
    )


# ---------------------------------------------------------------- assembly


@st.composite
def partitions(draw):
    """A shape, boxes that cut it up in a grid, and a wanted box."""
    shape = draw(st.lists(st.integers(1, 6), max_size=4))
    boxes = [()]
    for size in shape:
        cuts = sorted({0, size, *draw(st.sets(st.integers(0, size), max_size=3))})
        spans = [(a, b - a) for a, b in itertools.pairwise(cuts)]
        boxes = [(*box, span) for box in boxes for span in spans]
    wanted = []
    for size in shape:
        start = draw(st.integers(0, size - 1))
        wanted.append((start, draw(st.integers(1, size - start))))
    return tuple(shape), draw(st.permutations(boxes)), tuple(wanted)


def cut(tensor, box):
    return tensor[tuple(slice(start, start + length) for start, length in box)]


@given(partitions(), st.sampled_from(["uint8", "float32", "complex128"]))
def test_assembling_is_what_numpy_slices(case, dtype):
    shape, boxes, wanted = case
    tensor = np.arange(np.prod(shape, dtype=int)).astype(dtype).reshape(shape)
    parts = covering(wanted, dict.fromkeys(boxes))
    sources = (Part(box, MemorySource(cut(tensor, box).tobytes())) for box in parts)
    assert assemble(wanted, sources, tensor.itemsize) == cut(tensor, wanted).tobytes()
    strings = tensor.astype(bytes)
    found = assemble_strings(wanted, [(box, elements(strings, box)) for box in parts])
    assert list(found) == elements(strings, wanted)


def elements(strings, box):
    return np.ravel(cut(strings, box)).tolist()


@given(partitions())
def test_runs_ascend_and_are_as_long_as_they_can_be(case):
    _, boxes, wanted = case
    for box in boxes:
        found = list(runs(box, wanted))
        assert sum(run.length for run in found) == (
            0 if overlap(box, wanted) is None else volume(overlap(box, wanted))
        )
        for one, following in itertools.pairwise(found):
            assert following.source >= one.source + one.length
            assert following.target >= one.target + one.length
            gaps = (following.source - one.source, following.target - one.target)
            assert gaps != (one.length, one.length)


@given(partitions())
def test_a_missing_or_doubled_slice_is_noticed(case):
    shape, boxes, _ = case
    if len(boxes) < 2:
        return
    with pytest.raises(Malformed, match="hold"):
        covering(whole(shape), dict.fromkeys(boxes[1:]))
    axis = next(i for i, (_, length) in enumerate(boxes[0]) if length < shape[i])
    wider = tuple((0, shape[i]) if i == axis else span for i, span in enumerate(boxes[0]))
    if wider == whole(shape):
        return
    with pytest.raises(Malformed, match="overlap"):
        covering(whole(shape), dict.fromkeys([*boxes, wider]))


@pytest.mark.parametrize("row", [3, 1000, 600_000])
def test_parts_in_files(tmp_path, row):
    """Short, middling and long runs, columns out of a matrix behind other bytes."""
    rows = 4_000_000 // row
    matrix = np.random.default_rng(1).integers(0, 256, (rows, row), dtype=np.uint8)
    path = tmp_path / "data"
    path.write_bytes(b"others" + matrix.tobytes() + b"more")
    wanted = ((1, rows - 1), (1, row - 1))
    with open(path, "rb") as file:
        source = FileSource(file.fileno(), 6, matrix.nbytes)
        found = assemble(wanted, [Part(whole(matrix.shape), source)], 1)
    assert box_shape(wanted) == (rows - 1, row - 1)
    assert found == cut(matrix, wanted).tobytes()


def test_a_part_of_a_file_that_is_cut_short(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(b"abc")
    with open(path, "rb") as file, pytest.raises(EOFError):
        assemble(whole((2, 2)), [Part(whole((2, 2)), FileSource(file.fileno(), 0, 4))], 1)
