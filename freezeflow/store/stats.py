"""The stat cache: digests of files that need not be read again.

An entry counts while the file's size, modification time, inode and change time are what they were,
and only if the file had been left alone for a moment when it was hashed: one that is changed twice
within the clock tick of its file system looks the same afterwards. (git's index has the same rule:
https://git-scm.com/docs/racy-git.)
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from freezeflow.store.hashing import (
    FileIdentity,
    changed_while_read,
    hash_open_file,
    reading_failed,
)
from freezeflow.store.index import Index
from freezeflow.values import Digest

# Clock ticks of file systems, with room: one that shows fractions of a second, one that does not.
_FINE_TICK_NS = 50_000_000
_COARSE_TICK_NS = 2_100_000_000

_BUFFER_BYTES = 1024 * 1024


def tick_ns(mtime_ns: int) -> int:
    """How long two changes of a file with this time may look like one."""
    return _COARSE_TICK_NS if mtime_ns % 1_000_000_000 == 0 else _FINE_TICK_NS


class Checked(NamedTuple):
    """That a file had certain contents, when it was looked at, and how it looked then."""

    identity: FileIdentity
    checked_ns: int

    def holds_for(self, identity: FileIdentity) -> bool:
        """Whether a file that looks like this still has the same contents."""
        if identity != self.identity:
            return False
        tick = tick_ns(identity.mtime_ns)
        return identity.mtime_ns + tick <= self.checked_ns


class StatCache:
    """Digests of files by path."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def digests(self, paths: Sequence[Path]) -> dict[Path, Digest]:
        """BLAKE3 of each file; those that are not known are hashed now.

        Raises:
            FreezeflowError: A file cannot be read, or changed while it was read.
        """
        identities = {path: _identity(path) for path in paths}
        known = self._known(identities, "blake3")
        found: dict[Path, Digest] = {}
        for path in identities:
            if path in known:
                found[path] = Digest(known[path])
                continue
            started = time.time_ns()
            found[path], identity = hash_open_file(path)
            self._remember("blake3", [(path, found[path].hex, identity)], started)
        return found

    def unchanged(self, files: Mapping[Path, tuple[str, int]]) -> set[Path]:
        """Those of the files that are there with the expected contents.

        Args:
            files: Path to SHA-256 (64 hex digits) and number of bytes.
        """
        identities: dict[Path, FileIdentity] = {}
        for path, (_, nbytes) in files.items():
            try:
                identity = FileIdentity.of(os.stat(path))
            except OSError:
                continue
            if identity.file_bytes == nbytes:
                identities[path] = identity
        known = self._known(identities, "sha256")
        known.update(self._sha256s(path for path in identities if path not in known))
        return {path for path in identities if known.get(path) == files[path][0]}

    def sha256s(self, paths: Sequence[Path]) -> dict[Path, str]:
        """SHA-256 of each file; those that are not known are hashed now.

        Raises:
            FreezeflowError: A file cannot be read, or changed while it was read.
        """
        found = self._known({path: _identity(path) for path in paths}, "sha256")
        found.update(self._sha256s(path for path in paths if path not in found))
        for path in paths:
            if path not in found:
                raise changed_while_read(path)
        return found

    def remember_written(self, files: Iterable[tuple[Path, str]]) -> None:
        """Takes over the SHA-256 of files that have just been written."""
        now = time.time_ns()
        self._remember(
            "sha256",
            [(path, sha256, _identity(path)) for path, sha256 in files],
            now,
        )

    def _known(self, identities: Mapping[Path, FileIdentity], algorithm: str) -> dict[Path, str]:
        names = {os.fsencode(path): path for path in identities}
        query = (
            "SELECT path, digest, file_bytes, mtime_ns, inode, ctime_ns, checked_ns FROM stats"
            " WHERE path IN (?) AND algorithm = '" + algorithm + "'"
        )
        known = {}
        for name, digest, *identity, checked_ns in self._index.rows(query, list(names)):
            path = names[name]
            if Checked(FileIdentity(*identity), checked_ns).holds_for(identities[path]):
                known[path] = digest
        return known

    def _sha256s(self, paths: Iterable[Path]) -> dict[Path, str]:
        """SHA-256 of those files that can be read, remembered."""
        started = time.time_ns()
        read = [(path, *found) for path in paths if (found := _sha256(path))]
        self._remember("sha256", read, started)
        return {path: digest for path, digest, _ in read}

    def _remember(
        self,
        algorithm: str,
        files: Iterable[tuple[Path, str, FileIdentity]],
        checked_ns: int,
    ) -> None:
        self._index.write(
            "INSERT OR REPLACE INTO stats VALUES (?,?,?,?,?,?,?,?)",
            [
                (os.fsencode(path), algorithm, digest, *identity, checked_ns)
                for path, digest, identity in files
            ],
        )


def _sha256(path: Path) -> tuple[str, FileIdentity] | None:
    """SHA-256 of a file, and how it looked; None when it cannot be read, or changes meanwhile."""
    hasher = hashlib.sha256()
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    try:
        with open(path, "rb", buffering=0) as file:
            identity = FileIdentity.of(os.fstat(file.fileno()))
            while count := file.readinto(buffer):
                hasher.update(buffer[:count])
            if FileIdentity.of(os.fstat(file.fileno())) != identity:
                return None
    except OSError:
        return None
    return hasher.hexdigest(), identity


def _identity(path: Path) -> FileIdentity:
    try:
        return FileIdentity.of(os.stat(path))
    except OSError as error:
        raise reading_failed(error, path) from error
