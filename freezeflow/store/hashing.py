"""Digests and checksums of files and of ranges of files, in constant memory.

Bytes are read into one reusable buffer per thread: never mapped (mapped pages count as resident
memory) and never held as a ``bytes`` object. Reading, BLAKE3 and CRC-32C all let go of the
interpreter's lock, so two threads keep two cores busy.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from freezeflow.errors import FreezeflowError
from freezeflow.store.ahead import Lead
from freezeflow.values import Digest, Location

# Two of these fit into a core's second-level cache, so a checksum finds warm what was just read.
BUFFER_BYTES = 512 * 1024

# A file of at least this size is worth hashing on several threads.
_PARALLEL_FILE_BYTES = 32 * 1024 * 1024
_PARALLEL_BUFFER_BYTES = 4 * 1024 * 1024

DEFAULT_THREADS = 2


class RangeScan(NamedTuple):
    """What a range of a file holds: BLAKE3 and (unmasked) CRC-32C of its bytes."""

    digest: Digest
    crc32c: int


class FileIdentity(NamedTuple):
    """What tells whether a file is still the one that was read."""

    file_bytes: int
    mtime_ns: int
    inode: int
    ctime_ns: int

    @staticmethod
    def of(status: os.stat_result) -> FileIdentity:
        return FileIdentity(status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns)

    def holds(self, location: Location) -> bool:
        """Whether the location was taken from this very state of the file."""
        known = (location.file_bytes, location.mtime_ns, location.inode)
        return known == (self.file_bytes, self.mtime_ns, self.inode)


def scan(
    path: str | Path,
    ranges: Sequence[tuple[int, int]],
    *,
    threads: int = DEFAULT_THREADS,
) -> list[RangeScan]:
    """BLAKE3 and CRC-32C of ranges of a file, each range read from the disk once.

    Args:
        path: The file.
        ranges: (offset, length) of each range, in bytes; they may overlap and be empty.
        threads: How many threads share the work.

    Returns:
        One scan for each range, in the same order.

    Raises:
        FreezeflowError: The file cannot be read, is shorter than a range asks for, or changed
            while it was read.
    """
    digests = [_NO_DIGEST] * len(ranges)
    checksums = [0] * len(ranges)
    total = sum(length for _, length in ranges)
    jobs: list[_Job] = []
    for index in _longest_first(ranges):
        length = ranges[index][1]
        if length * threads > total and length > BUFFER_BYTES:
            # Longer than a thread's fair share: digest and checksum are made side by side.
            jobs.append(_range_job(ranges[index], index, digests, None))
            jobs.append(_range_job(ranges[index], index, None, checksums))
        else:
            jobs.append(_range_job(ranges[index], index, digests, checksums))
    _run_on_file(path, jobs, threads)
    return [RangeScan(*pair) for pair in zip(digests, checksums, strict=True)]


def check_whole(
    path: str | Path, ranges: Sequence[tuple[int, int]], proceed: Callable[[int], None]
) -> tuple[list[int], Digest]:
    """CRC-32C of ranges of a file, and BLAKE3 of all of it, in one pass; the disk is kept ahead of it.

    Args:
        path: The file.
        ranges: (offset, length) of each range; none over another.
        proceed: Called before each piece that is read, with its length; what it raises ends the pass.

    Raises:
        FreezeflowError: As for `scan`.
    """
    from crc32c import crc32c

    checksums = [0] * len(ranges)
    digests: list[Digest] = []

    def run(descriptor: int, buffer: memoryview) -> None:
        whole = blake3()
        checksum = 0
        size = os.fstat(descriptor).st_size
        lead = Lead([(descriptor, 0, size)], lambda file: file)

        def add_checksum(piece: memoryview) -> None:
            nonlocal checksum
            checksum = crc32c(piece, checksum)

        def feed(start: int, end: int, *sinks: Callable[[memoryview], object]) -> None:
            def before(offset: int) -> None:
                proceed(min(len(buffer), end - offset))
                lead.reached(offset)

            _feed(descriptor, start, end - start, buffer, (whole.update, *sinks), before)

        at = 0
        for index in sorted(range(len(ranges)), key=lambda index: ranges[index]):
            offset, length = ranges[index]
            feed(at, offset)
            checksum = 0
            at = offset + length
            feed(offset, at, add_checksum)
            checksums[index] = checksum
        feed(at, size)
        digests.append(Digest(whole.hexdigest()))

    _run_on_file(path, [run], 1)
    return checksums, digests[0]


def disjoint(ranges: Iterable[tuple[int, int]]) -> bool:
    """Whether no range (offset, length) lies over another."""
    end = 0
    for offset, length in sorted(ranges):
        if offset < end:
            return False
        end = offset + length
    return True


def hash_ranges(
    path: str | Path,
    ranges: Sequence[tuple[int, int]],
    *,
    threads: int = DEFAULT_THREADS,
) -> list[Digest]:
    """BLAKE3 of ranges of a file; arguments and errors as for `scan`."""
    digests = [_NO_DIGEST] * len(ranges)
    order = _longest_first(ranges)
    jobs = [_range_job(ranges[index], index, digests, None) for index in order]
    _run_on_file(path, jobs, threads)
    return digests


def hash_location(location: Location) -> Digest | None:
    """BLAKE3 of the bytes at a location; None when its file has changed since, or gone."""
    try:
        descriptor = os.open(location.path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise reading_failed(error, location.path) from error
    try:
        if not FileIdentity.of(os.fstat(descriptor)).holds(location):
            return None
        hasher = blake3()
        buffer = memoryview(bytearray(min(BUFFER_BYTES, max(location.length, 1))))
        _feed(descriptor, location.offset, location.length, buffer, (hasher.update,))
        return Digest(hasher.hexdigest())
    except OSError as error:
        raise reading_failed(error, location.path) from error
    finally:
        os.close(descriptor)


def hash_file(path: str | Path, *, threads: int = DEFAULT_THREADS) -> Digest:
    """BLAKE3 of a whole file.

    Raises:
        FreezeflowError: The file cannot be read, or changed while it was read.
    """
    return hash_open_file(path, threads=threads)[0]


def hash_open_file(
    path: str | Path, *, threads: int = DEFAULT_THREADS
) -> tuple[Digest, FileIdentity]:
    """BLAKE3 of a whole file, with the identity that the file had while it was read."""
    digests: list[Digest] = []

    def run(descriptor: int, buffer: memoryview) -> None:
        size = os.fstat(descriptor).st_size
        hasher = blake3()
        if size >= _PARALLEL_FILE_BYTES and threads > 1:
            hasher = blake3(max_threads=threads)
            buffer = memoryview(bytearray(_PARALLEL_BUFFER_BYTES))
        _feed(descriptor, 0, size, buffer, (hasher.update,))
        digests.append(Digest(hasher.hexdigest()))

    identity = _run_on_file(path, [run], 1)
    return digests[0], identity


def sha256_of(data: bytes) -> str:
    """SHA-256 of some bytes, 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: str | Path) -> str:
    """SHA-256 of a whole file, 64 hex digits.

    Raises:
        FreezeflowError: The file cannot be read, or changed while it was read.
    """
    hasher = hashlib.sha256()

    def run(descriptor: int, buffer: memoryview) -> None:
        _feed(descriptor, 0, os.fstat(descriptor).st_size, buffer, (hasher.update,))

    _run_on_file(path, [run], 1)
    return hasher.hexdigest()


def reading_failed(error: OSError, path: str | Path) -> FreezeflowError:
    """The error that tells a user why a file could not be read."""
    if isinstance(error, FileNotFoundError):
        return FreezeflowError("no such file", where=str(path))
    return FreezeflowError(f"cannot be read: {error.strerror or error}", where=str(path))


def changed_while_read(path: str | Path) -> FreezeflowError:
    """The error for a file that is not what it was when its bytes were checked."""
    return FreezeflowError(
        "changed while being read",
        where=str(path),
        hint="Run again when nothing writes to it any more.",
    )


_Job = Callable[[int, memoryview], None]

_NO_DIGEST = Digest("")


def _longest_first(ranges: Sequence[tuple[int, int]]) -> list[int]:
    """The order of work in which no thread is left with a long range at the end."""
    return sorted(range(len(ranges)), key=lambda index: -ranges[index][1])


def _range_job(
    place: tuple[int, int],
    index: int,
    digests: list[Digest] | None,
    checksums: list[int] | None,
) -> _Job:
    """A job that puts a range's digest and checksum, as far as wanted, at `index` of the lists."""
    from crc32c import crc32c

    def run(descriptor: int, buffer: memoryview) -> None:
        hasher = blake3()
        checksum = 0

        def add_checksum(piece: memoryview) -> None:
            nonlocal checksum
            checksum = crc32c(piece, checksum)

        sinks: list[Callable[[memoryview], object]] = []
        if digests is not None:
            sinks.append(hasher.update)
        if checksums is not None:
            sinks.append(add_checksum)
        _feed(descriptor, *place, buffer, sinks)
        if digests is not None:
            digests[index] = Digest(hasher.hexdigest())
        if checksums is not None:
            checksums[index] = checksum

    return run


def _run_on_file(path: str | Path, jobs: Sequence[_Job], threads: int) -> FileIdentity:
    """Runs jobs on one open file; raises when the file is another one afterwards."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise reading_failed(error, path) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise FreezeflowError("not a regular file", where=str(path))
        _share(descriptor, jobs, min(threads, len(jobs)))
        if FileIdentity.of(os.fstat(descriptor)) != FileIdentity.of(status):
            raise changed_while_read(path)
        return FileIdentity.of(status)
    except EOFError as error:
        raise FreezeflowError("the file is cut short", where=str(path)) from error
    except OSError as error:
        raise reading_failed(error, path) from error
    finally:
        os.close(descriptor)


def _share(descriptor: int, jobs: Sequence[_Job], threads: int) -> None:
    """Runs jobs in order on some threads, the calling one first; raises the first failure."""
    waiting = iter(jobs)
    taking = threading.Lock()
    failures: list[BaseException] = []

    def work() -> None:
        buffer = memoryview(bytearray(BUFFER_BYTES))
        try:
            while not failures:
                with taking:
                    job = next(waiting, None)
                if job is None:
                    return
                job(descriptor, buffer)
        except BaseException as error:  # noqa: BLE001  the calling thread raises it
            failures.append(error)

    helpers = [threading.Thread(target=work, daemon=True) for _ in range(threads - 1)]
    for helper in helpers:
        helper.start()
    work()
    for helper in helpers:
        helper.join()
    if failures:
        raise failures[0]


def _feed(
    descriptor: int,
    offset: int,
    length: int,
    buffer: memoryview,
    sinks: Iterable[Callable[[memoryview], object]],
    proceed: Callable[[int], None] = lambda offset: None,
) -> None:
    """Reads a range piece by piece into the buffer and gives each piece to all sinks.

    Before each piece, `proceed` is called with its offset.

    Raises:
        EOFError: The file ends before the range does.
    """
    end = offset + length
    while offset < end:
        proceed(offset)
        count = os.preadv(descriptor, [buffer[: end - offset]], offset)
        if count == 0:
            raise EOFError
        piece = buffer[:count]
        for sink in sinks:
            sink(piece)
        offset += count
