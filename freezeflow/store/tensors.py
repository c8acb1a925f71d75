"""Where tensors' bytes lie: in files that are not ours (adopted ranges), or in blobs of our own."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from freezeflow.errors import FreezeflowError
from freezeflow.store.blobs import Blobs
from freezeflow.store.hashing import FileIdentity, hash_ranges
from freezeflow.store.index import Index
from freezeflow.store.stats import Checked
from freezeflow.values import Digest, Location


class _Adopted(NamedTuple):
    """A range of a file, with how the file looked when the range was known to be right."""

    path: str
    offset: int
    length: int
    checked: Checked


_ALL_RANGES = (
    "SELECT digest, path, offset, length, file_bytes, mtime_ns, inode, ctime_ns, checked_ns"
    " FROM ranges"
)


class Tensors:
    """Digest of a tensor's bytes to the place where they are now."""

    def __init__(self, index: Index, blobs: Blobs) -> None:
        self._index = index
        self._blobs = blobs

    def adopt(self, locations: Mapping[Digest, Location]) -> None:
        """Remembers where tensors lie in files that are not ours; nothing is copied.

        A range whose file has changed since it was hashed is passed over.
        """
        now = time.time_ns()
        statuses = {path: _status(path) for path in {loc.path for loc in locations.values()}}
        self._remember(
            [
                (digest, _Adopted(*location[:3], Checked(identity, now)))
                for digest, location in locations.items()
                if (identity := statuses[location.path]) and identity.holds(location)
            ]
        )

    def suggest(self, places: Mapping[Digest, tuple[str, int, int]]) -> None:
        """Remembers where tensors may lie (path, offset, length); hashed before it is believed."""
        never = Checked(FileIdentity(-1, -1, -1, -1), 0)
        self._remember(
            [(digest, _Adopted(*place, never)) for digest, place in places.items()],
            over="IGNORE",
        )

    def locate(self, digests: Collection[Digest]) -> dict[Digest, Location]:
        """Where tensors are now; one that is nowhere, or whose bytes have changed, is left out.

        A range of a file that looks other than when the range was checked is hashed again.
        """
        found: dict[Digest, Location] = {}
        doubtful: dict[str, list[tuple[Digest, _Adopted]]] = defaultdict(list)
        identities: dict[str, FileIdentity | None] = {}
        for digest, adopted in self._adopted(digests):
            if adopted.path not in identities:
                identities[adopted.path] = _status(adopted.path)
            identity = identities[adopted.path]
            if identity is None:
                continue
            if adopted.checked.holds_for(identity):
                found[digest] = _location(adopted, identity)
            elif adopted.offset + adopted.length <= identity.file_bytes:
                doubtful[adopted.path].append((digest, adopted))
        for path, ranges in doubtful.items():
            found.update(self._check(path, ranges))
        found.update(self._owned([digest for digest in digests if digest not in found]))
        return found

    def wrong_ranges(self) -> list[tuple[str, Digest]]:
        """Adopted ranges (path, digest) that hold something else in a file that looks unchanged."""
        wrong = []
        for path, ranges in self._unchanged().items():
            places = [(adopted.offset, adopted.length) for _, adopted in ranges]
            for (digest, _), actual in zip(ranges, hash_ranges(path, places), strict=True):
                if actual != digest:
                    wrong.append((path, digest))
        return wrong

    def forget_gone(self) -> None:
        """Forgets ranges of files that are not there any more."""
        rows = self._index.select("SELECT DISTINCT path FROM ranges")
        gone = [(path,) for (path,) in rows if not os.path.exists(path)]
        self._index.write("DELETE FROM ranges WHERE path = ?", gone)

    def _unchanged(self) -> dict[str, list[tuple[Digest, _Adopted]]]:
        """All adopted ranges of files that look as when the ranges were checked, by path."""
        found: dict[str, list[tuple[Digest, _Adopted]]] = defaultdict(list)
        for row in self._index.select(_ALL_RANGES):
            digest, adopted = _row(row)
            if _status(adopted.path) == adopted.checked.identity:
                found[adopted.path].append((digest, adopted))
        return found

    def _owned(self, digests: Sequence[Digest]) -> dict[Digest, Location]:
        there = [digest for digest in digests if self._blobs.path(digest).exists()]
        located = {digest: self._blobs.locate(digest) for digest in there}
        return {digest: location for digest, location in located.items() if location}

    def _check(
        self, path: str, ranges: Sequence[tuple[Digest, _Adopted]]
    ) -> dict[Digest, Location]:
        """Hashes ranges of a file; where those are that still hold what they held."""
        now = time.time_ns()
        places = [(adopted.offset, adopted.length) for _, adopted in ranges]
        try:
            hashed = hash_ranges(path, places)
        except FreezeflowError:
            # Gone, cut short or being written: not a place to take anything from.
            return {}
        identity = _status(path)
        if identity is None:
            return {}
        good = [
            (digest, adopted._replace(checked=Checked(identity, now)))
            for (digest, adopted), actual in zip(ranges, hashed, strict=True)
            if actual == digest
        ]
        self._remember(good)
        return {digest: _location(adopted, identity) for digest, adopted in good}

    def _adopted(self, digests: Collection[Digest]) -> list[tuple[Digest, _Adopted]]:
        query = f"{_ALL_RANGES} WHERE digest IN (?)"
        return [_row(row) for row in self._index.rows(query, [digest.hex for digest in digests])]

    def _remember(
        self, ranges: Sequence[tuple[Digest, _Adopted]], *, over: str = "REPLACE"
    ) -> None:
        self._index.write(
            f"INSERT OR {over} INTO ranges VALUES (?,?,?,?,?,?,?,?,?)",
            [
                (
                    digest.hex,
                    os.fsencode(adopted.path),
                    adopted.offset,
                    adopted.length,
                    *adopted.checked.identity,
                    adopted.checked.checked_ns,
                )
                for digest, adopted in ranges
            ],
        )


def _status(path: str) -> FileIdentity | None:
    try:
        return FileIdentity.of(os.stat(path))
    except OSError:
        return None


def _row(row: tuple[Any, ...]) -> tuple[Digest, _Adopted]:
    digest, path, offset, length, *identity, checked_ns = row
    checked = Checked(FileIdentity(*identity), checked_ns)
    return Digest(digest), _Adopted(os.fsdecode(path), offset, length, checked)


def _location(adopted: _Adopted, identity: FileIdentity) -> Location:
    size, mtime_ns, inode, _ = identity
    return Location(adopted.path, adopted.offset, adopted.length, mtime_ns, size, inode)
