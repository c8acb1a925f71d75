"""Which files a model consists of, remembered as long as no folder of it has changed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from freezeflow.store.hashing import FileIdentity
from freezeflow.store.index import Index
from freezeflow.store.stats import Checked


class Listings:
    """Lists of files by a name that tells what was listed."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def get(self, names: Sequence[str]) -> dict[str, tuple[Path, ...]]:
        """Those of the lists that still hold: every folder of them looks as it did."""
        found = {}
        query = "SELECT name, files, folders, checked_ns FROM listings WHERE name IN (?)"
        for name, files, folders, checked_ns in self._index.rows(query, names):
            if all(
                Checked(FileIdentity(*identity), checked_ns).holds_for(_identity(folder))
                for folder, *identity in json.loads(folders)
            ):
                found[name] = tuple(Path(path) for path in json.loads(files))
        return found

    def paths(self, names: Sequence[str]) -> set[str]:
        """Every file and folder of some lists."""
        query = "SELECT files, folders FROM listings WHERE name IN (?)"
        found: set[str] = set()
        for files, folders in self._index.rows(query, names):
            found.update(json.loads(files))
            found.update(folder for folder, *_ in json.loads(folders))
        return found

    def remember(self, name: str, files: Sequence[Path], root: Path, started_ns: int) -> None:
        """Remembers a list.

        Args:
            name: What was listed.
            files: The files.
            root: The folder, or the file, that was looked through.
            started_ns: When looking began, in ns since the epoch.
        """
        folders = set(_folders(root))
        if tuple(files) != (root,):
            folders.update(str(path.parent) for path in files)
        row = (
            name,
            json.dumps([str(path) for path in files]),
            json.dumps([[folder, *_identity(folder)] for folder in sorted(folders)]),
            started_ns,
        )
        self._index.write("INSERT OR REPLACE INTO listings VALUES (?,?,?,?)", [row])


def _folders(root: Path) -> Iterator[str]:
    """The folder and all that are below it; nothing for a file."""
    for folder, _, _ in os.walk(root):
        yield folder


def _identity(path: str) -> FileIdentity:
    try:
        return FileIdentity.of(os.stat(path))
    except OSError:
        return FileIdentity(-1, -1, -1, -1)
