"""The store's index: one SQLite file that answers many look-ups at once.

Everything in it is also told by files, or costs one hashing to find again; it may be deleted at any
time. Its tables belong to the modules that use them (`actions`, `blobs`,
`listings`, `stats`, `tensors`).
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from freezeflow.errors import FreezeflowError

# Raised whenever a table changes; an index of another version is built anew.
_VERSION = 1

# Values in one query; SQLite allows 32,766 of them, and older ones 999.
_BATCH = 900

_TABLES = """
CREATE TABLE actions (
  key TEXT PRIMARY KEY, outputs TEXT NOT NULL, facts TEXT NOT NULL, used INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE steps (
  recipe TEXT, step TEXT, key TEXT NOT NULL, PRIMARY KEY (recipe, step)
) WITHOUT ROWID;
CREATE TABLE blobs (
  digest TEXT PRIMARY KEY, file_bytes INTEGER, mtime_ns INTEGER, inode INTEGER, ctime_ns INTEGER
) WITHOUT ROWID;
CREATE TABLE ranges (
  digest TEXT PRIMARY KEY, path BLOB, offset INTEGER, length INTEGER, file_bytes INTEGER,
  mtime_ns INTEGER, inode INTEGER, ctime_ns INTEGER, checked_ns INTEGER
) WITHOUT ROWID;
CREATE TABLE stats (
  path BLOB, algorithm TEXT, digest TEXT NOT NULL, file_bytes INTEGER, mtime_ns INTEGER,
  inode INTEGER, ctime_ns INTEGER, checked_ns INTEGER, PRIMARY KEY (path, algorithm)
) WITHOUT ROWID;
CREATE TABLE listings (
  name TEXT PRIMARY KEY, files TEXT NOT NULL, folders TEXT NOT NULL, checked_ns INTEGER
) WITHOUT ROWID;
"""


class Index:
    """An open index.

    Attributes:
        fresh: It was built anew when it was opened, because there was none, or a damaged one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fresh = False
        try:
            self._connection = self._connect()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise _failed(error, path) from error
            remove_index(path)
            with _errors(path):
                self._connection = self._connect()

    def rows(
        self, query: str, values: Sequence[object], *, first: Sequence[object] = ()
    ) -> Iterator[tuple[Any, ...]]:
        """Rows of a query whose ``IN (?)`` takes any number of values, after those of `first`."""
        with _errors(self.path):
            for start in range(0, len(values), _BATCH):
                batch = values[start : start + _BATCH]
                marks = ",".join("?" * len(batch))
                whole = query.replace("IN (?)", f"IN ({marks})")
                yield from self._connection.execute(whole, [*first, *batch])

    def select(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        with _errors(self.path):
            return self._connection.execute(query, values).fetchall()

    def write(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        """Runs a statement for every row, in one transaction."""
        if not rows:
            return
        with _errors(self.path), self.transaction():
            self._connection.executemany(statement, rows)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything written inside becomes visible at once; one inside another joins it."""
        if self._connection.in_transaction:
            yield
            return
        with _errors(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise

    def problems(self) -> list[str]:
        """What SQLite itself finds wrong with the file."""
        found = [str(row[0]) for row in self.select("PRAGMA quick_check(20)")]
        return [] if found == ["ok"] else found

    def close(self) -> None:
        self._connection.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=60, isolation_level=None)
        try:
            connection.execute("PRAGMA synchronous=NORMAL")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                self._make_tables(connection)
            elif version != _VERSION:
                raise sqlite3.DatabaseError("an index of another version")
            return connection
        except BaseException:
            connection.close()
            raise

    def _make_tables(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("BEGIN IMMEDIATE")
        # Another process may have made them while this one waited.
        if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
            for statement in _TABLES.split(";\n"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version={_VERSION}")
            self.fresh = True
        connection.execute("COMMIT")


def remove_index(path: Path) -> None:
    """Deletes an index with its side files."""
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        path.with_name(name).unlink(missing_ok=True)


@contextlib.contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Turns SQLite's errors into one line for the user; a damaged index is removed."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise _failed(error, path) from error
    except sqlite3.DatabaseError as error:
        remove_index(path)
        raise FreezeflowError(
            f"the cache's index was damaged ({error}) and has been removed",
            where=str(path),
            hint="Run the same command again: the index is built anew.",
        ) from error


def _failed(error: sqlite3.OperationalError, path: Path) -> FreezeflowError:
    hint = "Check the folder's permissions and the space on its disk, or set FREEZEFLOW_CACHE_DIR."
    if "locked" in str(error):
        hint = "Another freezeflow has been writing to this cache for a minute; try again."
    return FreezeflowError(f"the cache's index: {error}", where=str(path), hint=hint)
