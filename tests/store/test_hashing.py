import os
from pathlib import Path

import blake3
import crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freezeflow.errors import FreezeflowError
from freezeflow.store import hashing
from freezeflow.store.hashing import hash_file, hash_location, hash_ranges, scan
from freezeflow.values import Digest
from tests.store.test_files import location

SIZE = 2_000_000


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hashing") / "big"
    path.write_bytes(os.urandom(SIZE))
    return path


@settings(max_examples=30, deadline=None)
@given(
    bounds=st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)), max_size=12),
    threads=st.integers(1, 4),
)
def test_scan_of_any_ranges(big: Path, bounds: list[tuple[int, int]], threads: int) -> None:
    ranges = [(min(pair), max(pair) - min(pair)) for pair in bounds]
    data = big.read_bytes()
    for (offset, length), found in zip(ranges, scan(big, ranges, threads=threads), strict=True):
        part = data[offset : offset + length]
        assert found == (Digest(blake3.blake3(part).hexdigest()), crc32c.crc32c(part))
    assert hash_ranges(big, ranges) == [found.digest for found in scan(big, ranges)]


def test_whole_file(big: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Digest.of(big.read_bytes())
    assert hash_file(big) == expected
    monkeypatch.setattr(hashing, "_PARALLEL_FILE_BYTES", 1)
    assert hash_file(big) == expected


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert hash_file(tmp_path / "empty") == Digest.of(b"")
    assert scan(tmp_path / "empty", []) == []


def test_a_range_behind_the_end(big: Path) -> None:
    with pytest.raises(FreezeflowError, match="cut short"):
        scan(big, [(0, 10), (SIZE - 5, 10)])


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FreezeflowError, match="no such file"):
        scan(tmp_path / "none", [(0, 1)])


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(FreezeflowError, match="not a regular file"):
        hash_file(tmp_path)


def test_a_file_that_changes_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")
    real = os.preadv

    def write_then_read(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        with open(path, "r+b") as file:
            file.write(b"after!")
        os.utime(path, ns=(1, 1))
        return real(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", write_then_read)
    with pytest.raises(FreezeflowError, match="changed while being read"):
        hash_file(path)


def test_location(big: Path, tmp_path: Path) -> None:
    place = location(big, 100, 1000)
    assert hash_location(place) == Digest.of(big.read_bytes()[100:1100])
    assert hash_location(place._replace(mtime_ns=1)) is None
    assert hash_location(place._replace(path=str(tmp_path / "gone"))) is None
