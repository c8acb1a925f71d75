"""Tables: what a writer wrote comes back; whatever else is refused, at little cost."""

from __future__ import annotations

import struct
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freezeflow.checkpoint.table import Table
from freezeflow.errors import ModelRefused
from tests.checkpoint import tables
from tests.checkpoint.tables import block, count, entry, handle, stored, table, table_of_blocks

KEYS = st.lists(st.binary(max_size=40), max_size=60, unique=True).map(sorted)
SAMPLE = [(f"layer/{n:03d}/kernel".encode(), bytes([n]) * (n % 7)) for n in range(100)]


@pytest.fixture
def read(tmp_path):
    """Reads a table given as bytes."""
    path = tmp_path / "table"

    def items(data, **options):
        path.write_bytes(data)
        opened = Table(path, **options)
        try:
            return list(opened.items())
        finally:
            opened.close()

    return items


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


@given(KEYS, st.integers(1, 20), st.integers(1, 17), st.sampled_from([0, 1]))
def test_what_was_written_comes_back(folder, keys, per_block, interval, compression):
    entries = [(key, key[::-1] * 3) for key in keys]
    path = folder / "table"
    path.write_bytes(
        table(entries, per_block=per_block, interval=interval, compression=compression)
    )
    opened = Table(path)
    try:
        assert list(opened.items()) == entries
        assert [opened.get(key) for key in keys] == [value for _, value in entries]
        assert all(opened.get(key + b"!") is None for key in keys if key + b"!" not in keys)
    finally:
        opened.close()


@settings(max_examples=400)
@given(st.data(), st.sampled_from([0, 1]))
def test_flipped_bits_are_refused_or_harmless(folder, data, compression):
    good = table(SAMPLE, compression=compression)
    flips = data.draw(
        st.lists(st.integers(0, len(good) * 8 - 1), min_size=1, max_size=4, unique=True)
    )
    damaged = bytearray(good)
    for flip in flips:
        damaged[flip // 8] ^= 1 << flip % 8
    assert _read_or_refused(folder, bytes(damaged)) in (None, SAMPLE)


@given(st.integers(0, len(table(SAMPLE)) - 1))
def test_a_table_cut_short_is_refused(folder, length):
    assert _read_or_refused(folder, table(SAMPLE)[:length]) is None


@given(st.binary(max_size=300))
def test_any_bytes_before_a_good_footer_are_refused(folder, data):
    whole = data + tables.footer(0, max(len(data) - 5, 0))
    assert _read_or_refused(folder, whole) is None


@given(st.binary(max_size=200), st.sampled_from([0, 1]))
def test_any_bytes_with_a_right_checksum_are_read_or_refused(folder, data, compression):
    blocks = [(_with_trailer(data, compression), b"\xff" * 50)]
    found = _read_or_refused(folder, table_of_blocks(blocks))
    assert found is None or found == sorted(found)


def _read_or_refused(folder, data):
    path = folder / "table"
    path.write_bytes(data)
    try:
        opened = Table(path)
        try:
            return list(opened.items())
        finally:
            opened.close()
    except ModelRefused as refusal:
        assert refusal.where == str(path) and refusal.hint
        return None


# ---------------------------------------------------------------- made to do harm, checksums right


def one_block(data, compression=0):
    return table_of_blocks([(stored(data, compression), b"\xff" * 9)])


def _with_trailer(content, compression):
    checksum = tables.masked(tables.crc32c.crc32c(content + bytes([compression])))
    return content + bytes([compression]) + struct.pack("<I", checksum)


HOSTILE = {
    "shares more than there is": one_block(entry(9, b"a", b"") + count([])),
    "value behind the end": one_block(entry(0, b"a", b"x" * 9)[:-5] + count([])),
    "more restart points than bytes": one_block(b"\0" * 8 + struct.pack("<I", 1 << 30)),
    "no room for restart points": one_block(b"\0\0"),
    "number without end": one_block(b"\xff" * 12 + count([])),
    "keys twice": one_block(entry(0, b"a", b"") + entry(1, b"", b"") + count([])),
    "keys descend": one_block(entry(0, b"b", b"") + entry(0, b"a", b"") + count([])),
    "unknown compression": one_block(block(SAMPLE[:2]), 7),
    "not Snappy": table_of_blocks([(_with_trailer(b"\4\xff\xff\xff\xff", 1), b"z")]),
    "keys descend from block to block": table_of_blocks(
        [(stored(block([(b"b", b"")])), b"b"), (stored(block([(b"a", b"")])), b"c")]
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_blocks_are_refused(read, name):
    with pytest.raises(ModelRefused):
        read(HOSTILE[name])


def test_a_block_cannot_be_named_twice(read):
    content = stored(block(SAMPLE[:3]))
    index = stored(
        block([(b"x", handle(0, len(content) - 5)), (b"y", handle(0, len(content) - 5))], 1)
    )
    with pytest.raises(ModelRefused, match="overlap"):
        read(content + index + tables.footer(len(content), len(index) - 5))


def test_a_small_file_cannot_fill_the_memory_with_keys(read):
    long_key = b"k" * 100_000
    entries = entry(0, long_key, b"") + b"".join(
        entry(100_000 + n, b"a", b"") for n in range(20_000)
    )
    tracemalloc.start()
    with pytest.raises(ModelRefused, match="too long"):
        read(one_block(entries + count([])))
    assert tracemalloc.get_traced_memory()[1] < 40_000_000
    tracemalloc.stop()


def test_a_snappy_block_cannot_claim_more_than_it_can_hold(read):
    content = tables.varint(1 << 31) + b"\0abc"
    whole = table_of_blocks([(_with_trailer(content, 1), b"z")])
    with pytest.raises(ModelRefused, match="Snappy"):
        read(whole)


def test_a_block_larger_than_allowed_is_refused(read):
    entries = [(b"a", b"x" * 10_000)]
    assert read(table(entries), largest_block=11_000) == entries
    for compression in (0, 1):
        with pytest.raises(ModelRefused):
            read(table(entries, compression=compression), largest_block=9_000)
