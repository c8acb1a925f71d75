"""Blobs: immutable files named by the BLAKE3 digest of their contents."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from freezeflow.errors import FreezeflowError
from freezeflow.store.files import write_atomically, write_checked_later, writing_failed
from freezeflow.store.hashing import (
    FileIdentity,
    hash_location,
    hash_open_file,
    reading_failed,
)
from freezeflow.store.index import Index
from freezeflow.values import Digest, Location


class BlobLost(FreezeflowError):
    """A blob is not there, or does not hold what its name says."""

    def __init__(self, digest: Digest, path: Path, *, damaged: bool) -> None:
        super().__init__(
            "is damaged" if damaged else "is missing",
            where=str(path),
            hint="Run the recipe again: what needs it is built anew.",
        )
        self.digest = digest
        self.damaged = damaged


class Blobs:
    """The blobs below a folder, two levels deep: ``ab/cdef...``."""

    def __init__(self, folder: Path, index: Index) -> None:
        self.folder = folder
        self._prefix = f"{folder}/"
        self._index = index
        # While a run is on: takes the digests of blobs that it puts and that are there already.
        self.claims: int | None = None

    def path(self, digest: Digest) -> Path:
        """Where a blob is, if it is there."""
        return self.folder / digest.hex[:2] / digest.hex[2:]

    def put(self, data: bytes) -> Digest:
        """Keeps some bytes."""
        digest = Digest.of(data)
        if not self._holds(digest, len(data)):
            path = self.path(digest)
            write_checked_later(path, data)
            self._remember(digest, _identity(path))
        return digest

    def put_range(self, digest: Digest, location: Location) -> None:
        """Keeps a range of a file, whose digest is known from whoever wrote it, and checked here.

        Raises:
            FreezeflowError: The range does not have this digest.
        """
        if self._holds(digest, location.length):
            return
        if hash_location(location) != digest:
            raise FreezeflowError("does not hold what its writer said", where=location.path)
        path = self.path(digest)
        write_atomically(path, [location], mode=0o444)
        self._remember(digest, _identity(path))

    def read(self, digest: Digest) -> bytes:
        """The bytes of a blob, checked.

        Raises:
            BlobLost: It is missing or damaged.
        """
        path = self.path(digest)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise BlobLost(digest, path, damaged=False) from None
        except OSError as error:
            raise reading_failed(error, path) from error
        if Digest.of(data) != digest:
            raise BlobLost(digest, path, damaged=True)
        return data

    def lost(self, digests: Collection[Digest]) -> list[BlobLost]:
        """Those blobs that are missing or damaged; one that looks as when checked is not read."""
        known = {
            digest: FileIdentity(*identity)
            for digest, *identity in self._index.rows(
                "SELECT digest, file_bytes, mtime_ns, inode, ctime_ns FROM blobs"
                " WHERE digest IN (?)",
                [digest.hex for digest in digests],
            )
        }
        found = []
        changed = []
        for digest in digests:
            try:
                # Not by `path`: this runs for every blob of every cached step.
                status = os.stat(f"{self._prefix}{digest.hex[:2]}/{digest.hex[2:]}")
            except OSError:
                found.append(BlobLost(digest, self.path(digest), damaged=False))
                continue
            if FileIdentity.of(status) != known.get(digest.hex):
                changed.append(digest)
        with self._index.transaction():
            for digest in changed:
                if not self._check(digest):
                    found.append(BlobLost(digest, self.path(digest), damaged=True))
        return found

    def locate(self, digest: Digest) -> Location | None:
        """A blob as a location, checked; None when it is missing or damaged."""
        if self.lost([digest]):
            return None
        path = self.path(digest)
        size, mtime_ns, inode, _ = _identity(path)
        return Location(str(path), 0, size, mtime_ns, size, inode)

    def all(self) -> Iterator[Digest]:
        """Every blob that is there, in no order."""
        with contextlib.suppress(FileNotFoundError):
            for folder in os.scandir(self.folder):
                for entry in os.scandir(folder):
                    name = folder.name + entry.name
                    if len(name) == 64 and not entry.name.startswith("."):
                        yield Digest(name)

    def remove(self, digests: Iterable[Digest]) -> None:
        """Deletes blobs; those that are not there are passed over."""
        gone = list(digests)
        for digest in gone:
            try:
                self.path(digest).unlink(missing_ok=True)
            except OSError as error:
                raise writing_failed(error, self.path(digest)) from error
        self._index.write("DELETE FROM blobs WHERE digest = ?", [(d.hex,) for d in gone])

    def _holds(self, digest: Digest, nbytes: int) -> bool:
        """Whether a whole blob is already there; it is read, because it may be damaged.

        A run claims it first: `gc` leaves it alone until the run is over, though it is not new.
        """
        if self.claims is not None:
            with self._index.transaction():
                try:
                    os.write(self.claims, f"{digest.hex}\n".encode())
                except OSError as error:
                    raise writing_failed(error, self.folder) from error
        path = self.path(digest)
        try:
            if os.stat(path).st_size != nbytes:
                return False
        except OSError:
            return False
        return self._check(digest)

    def _check(self, digest: Digest) -> bool:
        """Reads a blob and tells whether it is whole."""
        found, identity = hash_open_file(self.path(digest))
        if found == digest:
            self._remember(digest, identity)
        return found == digest

    def _remember(self, digest: Digest, identity: FileIdentity) -> None:
        self._index.write(
            "INSERT OR REPLACE INTO blobs VALUES (?,?,?,?,?)", [(digest.hex, *identity)]
        )


def _identity(path: Path) -> FileIdentity:
    try:
        return FileIdentity.of(os.stat(path))
    except OSError as error:
        raise reading_failed(error, path) from error
