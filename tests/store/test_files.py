import contextlib
import errno
import hashlib
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import crc32c
import pytest
from blake3 import blake3

from freezeflow.errors import FreezeflowError
from freezeflow.store import kernel
from freezeflow.store.files import Written, publication, write_atomically, write_by_digest
from freezeflow.values import Location


def location(path: Path, offset: int = 0, length: int | None = None) -> Location:
    status = path.stat()
    count = status.st_size - offset if length is None else length
    return Location(str(path), offset, count, status.st_mtime_ns, status.st_size, status.st_ino)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(os.urandom(3_000_000))
    return path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_bytes_and_ranges_in_order(tmp_path: Path, weights: Path) -> None:
    data = weights.read_bytes()
    target = tmp_path / "new" / "folder" / "out"
    pieces: list[bytes | Location] = [
        b"head",
        location(weights, 10, 2_500_000),
        b"",
        b"mid",
        location(weights, 0, 5),
        b"e",
    ]
    expected = b"head" + data[10:2_500_010] + b"mid" + data[:5] + b"e"

    written = write_atomically(target, pieces)

    assert target.read_bytes() == expected
    assert written == Written(hashlib.sha256(expected).hexdigest(), len(expected))
    assert names(target.parent) == {"out"}


def test_many_small_pieces(tmp_path: Path) -> None:
    pieces = [bytes([i % 256]) * (i % 700) for i in range(4000)]

    written = write_atomically(tmp_path / "out", pieces)

    assert (tmp_path / "out").read_bytes() == b"".join(pieces)
    assert written.sha256 == hashlib.sha256(b"".join(pieces)).hexdigest()


def test_empty_file(tmp_path: Path) -> None:
    assert write_atomically(tmp_path / "out", [])[:2] == (hashlib.sha256().hexdigest(), 0)
    assert (tmp_path / "out").read_bytes() == b""


def test_mode_does_not_depend_on_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_atomically(tmp_path / "out", [b"x"], mode=0o644)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o644


def test_more_sources_than_are_kept_open(tmp_path: Path) -> None:
    sources = [tmp_path / f"s{i}" for i in range(100)]
    for i, source in enumerate(sources):
        source.write_bytes(b"%03d" % i)

    write_atomically(tmp_path / "out", [location(source) for source in sources])

    assert (tmp_path / "out").read_bytes() == b"".join(b"%03d" % i for i in range(100))


@pytest.mark.parametrize("first", range(3))
def test_every_way_of_copying(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    monkeypatch.setattr(kernel, "COPIERS", kernel.COPIERS[first:])
    write_atomically(tmp_path / "out", [b"x", location(weights, 1)])
    assert (tmp_path / "out").read_bytes() == b"x" + weights.read_bytes()[1:]


def test_space_is_reserved_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, nbytes: int) -> None:
        assert nbytes == 20_000_001
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    big = tmp_path / "big"
    big.write_bytes(os.urandom(20_000_000))
    monkeypatch.setattr(kernel, "copy", None)
    monkeypatch.setattr(kernel, "reserve", full)
    with pytest.raises(FreezeflowError, match="No space left"):
        write_atomically(tmp_path / "out", [b"x", location(big)])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("helped", [True, False])
def test_large_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, helped: bool) -> None:
    if not helped:
        monkeypatch.setattr(kernel, "_c_library", lambda: None)
    big = tmp_path / "big"
    big.write_bytes(os.urandom(20_000_000))
    data = b"x" + big.read_bytes()

    written = write_atomically(tmp_path / "out", [b"x", location(big)])

    assert (tmp_path / "out").read_bytes() == data
    assert written == Written(hashlib.sha256(data).hexdigest(), len(data))
    assert (tmp_path / "out").stat().st_blocks * 512 < len(data) + 1_000_000


def test_more_than_there_is_cannot_be_reserved(tmp_path: Path) -> None:
    with open(tmp_path / "out", "wb") as file, pytest.raises(OSError, match=r"space|large"):
        kernel.reserve(file.fileno(), 1 << 60)


@pytest.mark.parametrize("change", ["content", "gone", "replaced", "shorter"])
def test_a_changed_source_is_refused(tmp_path: Path, weights: Path, change: str) -> None:
    place = location(weights)
    if change == "content":
        weights.write_bytes(os.urandom(3_000_000))
    elif change == "shorter":
        os.truncate(weights, 100)
    elif change == "replaced":
        data = weights.read_bytes()
        (tmp_path / "other").write_bytes(data)
        os.utime(tmp_path / "other", ns=(place.mtime_ns, place.mtime_ns))
        os.replace(tmp_path / "other", weights)
    else:
        weights.unlink()
    with pytest.raises(FreezeflowError, match=r"changed while being read|no such file"):
        write_atomically(tmp_path / "out", [b"head", place])
    assert names(tmp_path) <= {"weights"}


def test_a_source_that_changes_while_it_is_copied(tmp_path: Path, weights: Path) -> None:
    def pieces() -> Iterator[bytes | Location]:
        yield location(weights)
        with open(weights, "r+b") as file:
            file.write(b"changed")
        yield b"end"

    with pytest.raises(FreezeflowError, match="changed while being read"):
        write_atomically(tmp_path / "out", pieces())
    assert names(tmp_path) == {"weights"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_nothing_is_left_when_the_pieces_fail(tmp_path: Path, error: type[BaseException]) -> None:
    def pieces() -> Iterator[bytes | Location]:
        yield b"x" * 2_000_000
        raise error

    (tmp_path / "out").write_bytes(b"old")
    before = set(threading.enumerate())  # other tests' servers may still be running
    with pytest.raises(error):
        write_atomically(tmp_path / "out", pieces())
    assert names(tmp_path) == {"out"}
    assert (tmp_path / "out").read_bytes() == b"old"
    assert set(threading.enumerate()) <= before


def test_leftovers_of_a_killed_process_go(tmp_path: Path) -> None:
    (tmp_path / ".out.part").write_bytes(b"partial")
    write_atomically(tmp_path / "out", [b"whole"])
    assert names(tmp_path) == {"out"}


def test_second_names_that_a_killed_process_left_go(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"old")
        os.link(tmp_path / name, tmp_path / f".{name}.old")
    with publication() as group:
        group.write(tmp_path / "a", [b"1"])
        group.write(tmp_path / "b", [b"2"])
    assert names(tmp_path) == {"a", "b"}
    assert (tmp_path / "a").read_bytes() == b"1"


def test_two_writers_of_one_file(tmp_path: Path) -> None:
    with publication() as one:
        one.write(tmp_path / "out", [b"one"])
        write_atomically(tmp_path / "out", [b"two"])
        assert (tmp_path / "out").read_bytes() == b"two"
    assert (tmp_path / "out").read_bytes() == b"one"
    assert names(tmp_path) == {"out"}


def test_files_appear_together(tmp_path: Path) -> None:
    with publication() as group:
        group.write(tmp_path / "a", [b"1"])
        group.write(tmp_path / "b", [b"2"])
        assert not (tmp_path / "a").exists()
    assert names(tmp_path) == {"a", "b"}


def test_no_file_appears_when_the_block_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), publication() as group:
        group.write(tmp_path / "a", [b"1"])
        raise RuntimeError
    assert names(tmp_path) == set()


def test_files_are_taken_back_when_one_cannot_appear(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"old")
    (tmp_path / "folder" / "full").mkdir(parents=True)
    with pytest.raises(FreezeflowError, match="cannot be written"), publication() as group:
        group.write(tmp_path / "old", [b"1"])
        group.write(tmp_path / "new", [b"2"])
        group.write(tmp_path / "folder", [b"3"])
    assert names(tmp_path) == {"old", "folder"}
    assert (tmp_path / "old").read_bytes() == b"old"


@contextlib.contextmanager
def closed_folder() -> Iterator[Path]:
    """A folder in which this process may not write, even if it is root's."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o555)
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(65534)
        yield folder
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o700)
        shutil.rmtree(folder)


def test_no_permission_is_one_line_with_a_hint() -> None:
    with closed_folder() as folder:
        with pytest.raises(FreezeflowError, match="Permission denied") as caught:
            write_atomically(folder / "out", [b"x"])
        assert names(folder) == set()
    assert "permissions" in caught.value.hint


def test_a_folder_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FreezeflowError, match="cannot be written") as caught:
        write_atomically(tmp_path / "file" / "out", [b"x"])
    assert "another path" in caught.value.hint


def test_a_full_disk_is_one_line_with_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, data: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(FreezeflowError, match="No space left") as caught:
        write_atomically(tmp_path / "out", [b"x"])
    monkeypatch.undo()
    assert "Free some space" in caught.value.hint
    assert names(tmp_path) == set()


def test_checksums_of_pieces(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 9000)
    pieces = [b"", b"123456789", location(source, 5, 2_000_000), b"", b"x"]
    written = write_atomically(tmp_path / "out", pieces, checksums=True)
    middle = crc32c.crc32c(source.read_bytes()[5:2_000_005])
    assert written.checksums == (0, 0xE3069283, middle, 0, crc32c.crc32c(b"x"))


@pytest.mark.parametrize("nbytes", [0, 10, 3_000_000])
def test_a_file_is_named_by_what_it_holds(tmp_path: Path, nbytes: int) -> None:
    data = os.urandom(nbytes)
    source = tmp_path / "source"
    source.write_bytes(data)
    status = source.stat()
    place = Location(str(source), 0, nbytes, status.st_mtime_ns, nbytes, status.st_ino)
    folder = tmp_path / "out"
    folder.mkdir()
    for _ in range(2):
        name, written = write_by_digest(folder, [place], lambda digest: f"{digest.hex[:8]}.bin")
        assert name == f"{blake3(data).hexdigest()[:8]}.bin"
        assert written == Written(hashlib.sha256(data).hexdigest(), nbytes)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == {name: data}


def test_a_file_that_cannot_be_copied_gets_no_name(tmp_path: Path, weights: Path) -> None:
    status = weights.stat()
    gone = Location(str(weights), 0, 10, status.st_mtime_ns + 1, status.st_size, status.st_ino)
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(FreezeflowError, match="changed while being read"):
        write_by_digest(folder, [gone], str)
    assert list(folder.iterdir()) == []
