"""Files that appear whole or not at all, with weights copied by the kernel.

A file is written beside its final path, synced, given its mode, and renamed; then its folder is
synced. Ranges of other files are copied without passing through Python. The SHA-256 of what was
written is computed from the file itself by a second thread that follows behind the writer, so that
copying and hashing take the time of the slower one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from blake3 import blake3

from freezeflow.errors import FreezeflowError
from freezeflow.store import kernel
from freezeflow.store.ahead import Lead
from freezeflow.store.background import copying, settle
from freezeflow.store.hashing import FileIdentity, changed_while_read, reading_failed
from freezeflow.values import Digest, Location

# Small pieces are gathered to this size before they are written.
_GATHER_BYTES = 256 * 1024

# Copied by one call: small enough that the hashing thread and the disk are never far behind.
_COPY_BYTES = 8 * 1024 * 1024

# A file of at least this size gets its space beforehand, and is written to the disk as it grows.
_LARGE_BYTES = 4 * 1024 * 1024

# Hashing takes longer than copying: a writer that is so far ahead leaves the core to others.
_LEAD_BYTES = 64 * 1024 * 1024

_BUFFER_BYTES = 512 * 1024

# A file that is smaller is hashed afterwards, without a second thread.
_FOLLOW_BYTES = 1024 * 1024

# Source files that are kept open while a file is written.
_OPEN_SOURCES = 32


class Written(NamedTuple):
    """What a file holds.

    Args:
        sha256: SHA-256 of its bytes, 64 hex digits.
        nbytes: Their number.
        checksums: CRC-32C (unmasked) of each piece that it was written from, where asked for.
    """

    sha256: str
    nbytes: int
    checksums: tuple[int, ...] = ()


class _Sink(Protocol):
    """Takes the bytes of a file, from its beginning to its end."""

    def update(self, data: memoryview, /) -> object: ...


def write_atomically(
    path: str | Path,
    pieces: Iterable[bytes | Location],
    *,
    mode: int = 0o644,
    checksums: bool = False,
) -> Written:
    """Writes a file that appears at its path whole or not at all.

    Args:
        path: The file; missing folders above it are made.
        pieces: What it holds, in order: bytes, or ranges of other files, which are copied by the
            kernel after a check that they are still the files that were read. Of a sequence the
            size is known, and space for it is reserved at once.
        mode: Its permissions, whatever the umask.
        checksums: Compute the checksum of each piece, too; the pieces must be a sequence.

    Raises:
        FreezeflowError: It cannot be written (no space, no permission), or a source changed.
    """
    with publication() as files:
        return files.write(path, pieces, mode=mode, checksums=checksums)


def write_by_digest(
    folder: Path, pieces: Iterable[bytes | Location], name_of: Callable[[Digest], str]
) -> tuple[str, Written]:
    """Writes a file that is named by what it holds; it appears whole or not at all.

    What is copied is read once: nobody needs to know its digest beforehand. The checks that are going
    on are not waited for, nor is the folder synced: that is for whoever names the file elsewhere.

    Args:
        folder: Where it is to be, held by nobody else meanwhile; it is there.
        pieces: As for `write_atomically`.
        name_of: BLAKE3 of the file's bytes to its name in the folder.

    Returns:
        Its name, and what was written.

    Raises:
        FreezeflowError: As for `write_atomically`.
    """
    target = folder / "unnamed"
    try:
        part = _Part(target)
    except OSError as error:
        raise writing_failed(error, target) from error
    try:
        hasher = blake3()
        written = part.fill(pieces, 0o644, sinks=[hasher])
        name = name_of(Digest(hasher.hexdigest()))
        part.target = folder / name
        part.take_place(keep_old=False)
        return name, written
    except OSError as error:
        raise writing_failed(error, part.target) from error
    finally:
        part.discard()


def write_checked_later(path: Path, data: bytes | bytearray, *, mode: int = 0o444) -> None:
    """Writes a small file that appears at its path whole or not at all, and does not wait for the disk.

    After a power cut it may be there and damaged: for files whose readers check what they hold.

    Raises:
        FreezeflowError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = _Part(path)
    except OSError as error:
        raise writing_failed(error, path) from error
    try:
        part.write(data, mode)
        part.take_place(keep_old=False)
    except OSError as error:
        raise writing_failed(error, path) from error
    finally:
        part.discard()


@contextlib.contextmanager
def publication() -> Iterator[Publication]:
    """Files that appear together: all when the block ends, none when it raises.

    Files appear in the order in which they were written. When one cannot take its place, those
    before it are taken back, and files that they replaced are put there again.

    Raises:
        FreezeflowError: One of them cannot take its place.
    """
    files = Publication()
    try:
        yield files
        files.publish()
    finally:
        files.discard()


class Publication:
    """Several files, written beside their final paths; see `publication`."""

    def __init__(self) -> None:
        self._parts: list[_Part] = []
        self._made: list[Path] = []

    def write(
        self,
        path: str | Path,
        pieces: Iterable[bytes | Location],
        *,
        mode: int = 0o644,
        checksums: bool = False,
    ) -> Written:
        """Writes one of the files beside its final path; arguments as for `write_atomically`."""
        target = Path(os.path.abspath(path))
        try:
            self._make_folder(target.parent)
            part = _Part(target)
            self._parts.append(part)
            if not checksums:
                return part.fill(pieces, mode)
            assert isinstance(pieces, Sequence)
            found = _Checksums([_length(piece) for piece in pieces])
            written = part.fill(pieces, mode, sinks=[found])
            return written._replace(checksums=found.finish())
        except OSError as error:
            raise writing_failed(error, target) from error

    def beside(self, path: Path) -> Path:
        """Where a written file lies until it takes its place."""
        (part,) = [part for part in self._parts if part.target == Path(os.path.abspath(path))]
        return part.path

    def discard(self) -> None:
        """Removes whatever has not taken its place, and folders that were made for it."""
        for part in self._parts:
            part.discard()
        for folder in reversed(self._made):
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()

    def _make_folder(self, folder: Path) -> None:
        missing = [above for above in (folder, *folder.parents) if not above.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        self._made += reversed(missing)

    def publish(self) -> None:
        """Gives all files their final names, or none; first waits for checks that are going on."""
        settle()
        alone = len(self._parts) == 1
        done: list[_Part] = []
        try:
            for part in self._parts:
                done.append(part)
                part.take_place(keep_old=not alone)
            for folder in {part.target.parent for part in self._parts}:
                sync_folder(folder)
        except BaseException as error:
            if not alone:
                for part in reversed(done):
                    part.give_back()
            if isinstance(error, OSError):
                raise writing_failed(error, done[-1].target) from error
            raise


class _Part:
    """A file that is being written beside its final path."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self._descriptor, self.path = new_beside(target, "part", _create, os.unlink)
        self._old: tuple[int, Path] | None = None
        self._placed = False

    def fill(
        self, pieces: Iterable[bytes | Location], mode: int, sinks: Sequence[_Sink] = ()
    ) -> Written:
        with (
            copying() as copied,
            contextlib.closing(_Writer(self._descriptor, sinks, copied)) as writer,
        ):
            if isinstance(pieces, Sequence):
                writer.expect(pieces)
            for piece in pieces:
                if isinstance(piece, Location):
                    writer.copy(piece)
                else:
                    writer.add(piece)
            return writer.finish(mode)

    def write(self, data: bytes | bytearray, mode: int) -> None:
        """Writes all of it, and leaves it to the kernel when it reaches the disk."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]
        os.fchmod(self._descriptor, mode)

    def take_place(self, *, keep_old: bool) -> None:
        if keep_old:
            self._old = _second_name(self.target)
        os.replace(self.path, self.target)
        self._placed = True

    def give_back(self) -> None:
        """Undoes `take_place`."""
        if not self._placed:
            return
        with contextlib.suppress(OSError):
            if self._old is not None:
                os.replace(self._old[1], self.target)
            else:
                os.unlink(self.target)

    def discard(self) -> None:
        """Closes the file and removes every name beside the final one."""
        held = [(self._descriptor, None if self._placed else self.path)]
        if self._old is not None:
            held.append(self._old)
        for descriptor, beside in held:
            if beside is not None:
                with contextlib.suppress(OSError):
                    os.unlink(beside)
            # Last: while it is open, its lock tells others that the file is in use.
            os.close(descriptor)


class _Writer:
    """Writes pieces to an open, empty file and hashes what it wrote."""

    def __init__(
        self, descriptor: int, sinks: Sequence[_Sink], tell: Callable[[int], None]
    ) -> None:
        self._descriptor = descriptor
        self._tell = tell  # about each range that was copied
        self._gathered = bytearray()
        self._written = 0
        self._starter = _Starter(descriptor)
        self._follower = _Follower(descriptor, sinks)
        self._sources = _Sources()
        self._lead: Lead[Location] | None = None
        self._copied = 0

    def close(self) -> None:
        self._follower.stop()
        self._starter.stop()
        self._sources.close()

    def expect(self, pieces: Sequence[bytes | Location]) -> None:
        """Prepares for what will come."""
        size = sum(map(_length, pieces))
        if size >= _LARGE_BYTES:
            kernel.reserve(self._descriptor, size)
            places = [piece for piece in pieces if isinstance(piece, Location)]
            ranges = ((place, place.offset, place.length) for place in places)
            self._lead = Lead(ranges, self._sources.known)

    def add(self, data: bytes) -> None:
        self._gathered += data
        if len(self._gathered) >= _GATHER_BYTES:
            self._flush()

    def copy(self, location: Location) -> None:
        source = self._sources.open(location)
        self._flush()
        offset, end = location.offset, location.offset + location.length
        while offset < end:
            if self._lead is not None:
                self._lead.reached(self._copied)
            count = kernel.copy(source, self._descriptor, offset, min(end - offset, _COPY_BYTES))
            if count == 0:
                raise changed_while_read(location.path)
            offset += count
            self._copied += count
            self._tell(count)
            self._advance(count)

    def finish(self, mode: int) -> Written:
        self._flush()
        self._starter.stop()
        # The kernel writes to the disk while the second thread is still hashing.
        os.fchmod(self._descriptor, mode)
        os.fsync(self._descriptor)
        self._sources.check()
        sha256 = self._follower.finish()
        return Written(sha256, self._written)

    def _flush(self) -> None:
        view = memoryview(self._gathered)
        while view:
            count = os.write(self._descriptor, view)
            view = view[count:]
            self._advance(count)
        view.release()
        self._gathered = bytearray()

    def _advance(self, count: int) -> None:
        self._written += count
        self._follower.advance(self._written)
        self._starter.advance(self._written)
        self._follower.wait_within(_LEAD_BYTES)


def _length(piece: bytes | Location) -> int:
    return piece.length if isinstance(piece, Location) else len(piece)


class _Checksums:
    """CRC-32C of ranges that follow each other, computed as their bytes come."""

    def __init__(self, lengths: Sequence[int]) -> None:
        from crc32c import crc32c

        self._crc32c = crc32c
        self._lengths = lengths
        self._found: list[int] = []
        self._value = 0
        self._missing = lengths[0] if lengths else 0

    def update(self, data: memoryview) -> None:
        while data:
            self._end_full_ranges()
            part = data[: self._missing]
            self._value = self._crc32c(part, self._value)
            self._missing -= len(part)
            data = data[len(part) :]

    def finish(self) -> tuple[int, ...]:
        self._end_full_ranges()
        return tuple(self._found)

    def _end_full_ranges(self) -> None:
        while not self._missing and len(self._found) < len(self._lengths):
            self._found.append(self._value)
            self._value = 0
            if len(self._found) < len(self._lengths):
                self._missing = self._lengths[len(self._found)]


class _Starter:
    """Has the kernel write a growing file to the disk, in a thread that waits when the disk is busy.

    While a disk is read from, the kernel lets writes wait; neither copying nor hashing has to.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._ends: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._told = 0
        self._thread: threading.Thread | None = None

    def advance(self, available: int) -> None:
        """The first `available` bytes of the file are written."""
        # Not what is going on to be written: a writer would wait for a page that is on its way.
        end = available - available % _LARGE_BYTES
        if end == self._told:
            return
        self._told = end
        self._ends.put(end)
        if self._thread is None:
            self._thread = threading.Thread(target=self._start_writing, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ends the thread when the kernel was told all."""
        if self._thread is not None:
            self._ends.put(None)
            self._thread.join()
            self._thread = None

    def _start_writing(self) -> None:
        kernel.give_way()
        started = 0
        while (end := self._ends.get()) is not None:
            kernel.start_writing(self._descriptor, started, end - started)
            started = end


class _Follower:
    """SHA-256 of a growing file, and what else is wanted of its bytes, computed behind its writer."""

    def __init__(self, descriptor: int, sinks: Sequence[_Sink]) -> None:
        self._descriptor = descriptor
        self._hasher = hashlib.sha256()
        self._sinks: Sequence[_Sink] = (self._hasher, *sinks)
        self._hashed = 0
        self._available = 0
        self._complete = False
        self._grown = threading.Condition()
        self._thread: threading.Thread | None = None
        self._failure: OSError | None = None

    def advance(self, available: int) -> None:
        """The first `available` bytes of the file are written."""
        with self._grown:
            self._available = available
            self._grown.notify()
        if self._thread is None and available >= _FOLLOW_BYTES:
            self._thread = threading.Thread(target=self._follow, daemon=True)
            self._thread.start()

    def wait_within(self, lead: int) -> None:
        """Waits until no more than so many bytes are left to hash."""
        if self._thread is None or self._available - self._hashed <= lead:
            return
        with self._grown:
            self._grown.wait_for(
                lambda: self._available - self._hashed <= lead or self._failure is not None
            )

    def finish(self) -> str:
        """The digest of everything that was written."""
        if self._thread is None:
            self._hash_available()
        self.stop()
        if self._failure is not None:
            raise self._failure
        return self._hasher.hexdigest()

    def stop(self) -> None:
        """Ends the thread when it has hashed what is there."""
        if self._thread is None:
            return
        with self._grown:
            self._complete = True
            self._grown.notify()
        self._thread.join()

    def _follow(self) -> None:
        try:
            while True:
                with self._grown:
                    while self._hashed == self._available and not self._complete:
                        self._grown.wait()
                    if self._hashed == self._available:
                        return
                self._hash_available()
        except OSError as error:
            with self._grown:
                self._failure = error
                self._grown.notify()

    def _hash_available(self) -> None:
        buffer = memoryview(bytearray(min(_BUFFER_BYTES, max(self._available, 1))))
        while self._hashed < self._available:
            wanted = min(len(buffer), self._available - self._hashed)
            count = os.preadv(self._descriptor, [buffer[:wanted]], self._hashed)
            if count == 0:
                raise OSError(errno.EIO, "the file that is being written became shorter")
            for sink in self._sinks:
                sink.update(buffer[:count])
            with self._grown:
                self._hashed += count
                self._grown.notify()


class _Sources:
    """Files that ranges are copied from, each checked to be the one that was read."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[int, FileIdentity]] = {}

    def open(self, location: Location) -> int:
        """A descriptor of the location's file."""
        known = self._open.get(location.path)
        if known is None:
            known = self._open_anew(location.path)
        descriptor, identity = known
        if not identity.holds(location):
            raise changed_while_read(location.path)
        return descriptor

    def known(self, location: Location) -> int | None:
        """The same, if the file is open and has not changed."""
        found = self._open.get(location.path)
        return found[0] if found is not None and found[1].holds(location) else None

    def check(self) -> None:
        """Raises when one of the open files is no longer what it was when it was opened."""
        for path, (descriptor, identity) in self._open.items():
            now = FileIdentity.of(os.fstat(descriptor))
            # A new name for the file changes ctime, and nothing else.
            if now[:3] != identity[:3]:
                raise changed_while_read(path)

    def close(self) -> None:
        for descriptor, _ in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def _open_anew(self, path: str) -> tuple[int, FileIdentity]:
        if len(self._open) >= _OPEN_SOURCES:
            self.check()
            self.close()
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise reading_failed(error, path) from error
        try:
            self._open[path] = (descriptor, FileIdentity.of(os.fstat(descriptor)))
        except OSError as error:
            os.close(descriptor)
            raise reading_failed(error, path) from error
        return self._open[path]


def whole_file(path: Path) -> Location:
    """A file as it is now, as a piece of another one."""
    status = os.stat(path)
    size = status.st_size
    return Location(str(path), 0, size, status.st_mtime_ns, size, status.st_ino)


def sync_folder(folder: str | Path) -> None:
    """Makes new and renamed entries of a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_tree(folder: Path) -> None:
    """Removes a folder with all that is in it, also what was made unwritable."""
    import shutil

    for below, _, _ in os.walk(folder):
        with contextlib.suppress(OSError):
            os.chmod(below, 0o700)
    shutil.rmtree(folder, ignore_errors=True)


def writing_failed(error: OSError, path: str | Path) -> FreezeflowError:
    """The error that tells a user why a file could not be written, and what to do."""
    message = f"cannot be written: {error.strerror or error}"
    return FreezeflowError(message, where=str(path), hint=_HINTS.get(error.errno or 0, ""))


_HINTS = {
    errno.ENOSPC: "Free some space on this disk, or write elsewhere; nothing partial was left.",
    errno.EDQUOT: "Your quota on this disk is used up; free some space, or write elsewhere.",
    errno.EACCES: "Check the permissions of the file and of its folder.",
    errno.EPERM: "Check the permissions of the file and of its folder.",
    errno.EROFS: "This disk is mounted read-only; write elsewhere.",
    errno.EISDIR: "A folder has this name; remove it, or choose another name.",
    errno.ENOTDIR: "A file has the name of one of the folders above; choose another path.",
    errno.EEXIST: "A file has the name of one of the folders above; choose another path.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.EMFILE: "Raise the limit of open files (ulimit -n).",
    errno.EIO: "The disk reports an error.",
}


def new_beside(
    target: Path, suffix: str, create: Callable[[Path], int], remove: Callable[[Path], object]
) -> tuple[int, Path]:
    """Creates something beside the target that counts as in use as long as its descriptor is open.

    Its name depends only on the target's, so that what a killed process left is found and removed
    by the next one that writes the same target; the lock, which dies with its process, tells what
    was left from what is in use.

    Args:
        target: The final path.
        suffix: Tells files, folders and second names apart.
        create: Makes it at a path, and opens it; `FileExistsError` where something is.
        remove: Removes what a killed process left.

    Raises:
        OSError: It cannot be made.
    """
    beside = _beside(target, suffix)
    while True:
        try:
            descriptor = create(beside)
        except FileExistsError:
            if not _remove_leftover(beside, remove):
                beside = _beside(target, f"{os.getpid()}.{suffix}")
            continue
        with contextlib.suppress(OSError):  # some network file systems have no locks
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        try:
            if _names(beside, descriptor):
                return descriptor, beside
        except BaseException:
            with contextlib.suppress(OSError):
                remove(beside)
            os.close(descriptor)
            raise
        # Someone took it for a leftover in the moment before it was locked.
        os.close(descriptor)


def _beside(target: Path, suffix: str) -> Path:
    return target.with_name(f".{target.name[:200]}.{suffix}")


def _remove_leftover(path: Path, remove: Callable[[Path], object]) -> bool:
    """Removes what nobody has in use; False when somebody has, or when it cannot be told or done."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError:  # another user's
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _names(path, descriptor):
            remove(path)
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _names(path: Path, descriptor: int) -> bool:
    """Whether the path is a name of what is open."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _create(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def _second_name(target: Path) -> tuple[int, Path] | None:
    """Gives an existing file a second name beside its own; None where that cannot be."""

    def link(path: Path) -> int:
        os.link(target, path)
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            os.unlink(path)
            raise

    with contextlib.suppress(OSError):
        return new_beside(target, "old", link, os.unlink)
    return None
