"""The store: one folder that keeps what steps gave, so that nothing runs twice.

Its format is described in ``docs/store-format.md``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from freezeflow.errors import FreezeflowError
from freezeflow.store.actions import Actions
from freezeflow.store.blobs import Blobs
from freezeflow.store.failures import Failures
from freezeflow.store.files import remove_tree, write_atomically, writing_failed
from freezeflow.store.index import Index
from freezeflow.store.key_locks import KeyLocks
from freezeflow.store.listings import Listings
from freezeflow.store.stats import StatCache
from freezeflow.store.tensors import Tensors
from freezeflow.values import Digest

FORMAT = "freezeflow.store/1"

ENVIRONMENT_VARIABLE = "FREEZEFLOW_CACHE_DIR"


_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


class Running(NamedTuple):
    """The runs that are on.

    Args:
        oldest_ns: When the oldest began, by the clock of the store's disk; None where there is none.
        claims: Files that name the blobs which they have put and that were there before.
    """

    oldest_ns: int | None
    claims: tuple[Path, ...]

    def claimed(self) -> set[Digest]:
        """The blobs that are named now."""
        found: set[Digest] = set()
        for path in self.claims:
            with contextlib.suppress(FileNotFoundError):  # that run is over
                found.update(map(Digest, path.read_text(encoding="ascii").split()))
        return found


class Store:
    """An open store.

    Attributes:
        folder: Where it is.
        blobs: Immutable files by digest.
        actions: What steps gave, by key.
        tensors: Where tensors' bytes lie.
        stats: Digests of files by path.
        listings: Which files models consist of.
        failures: What failed steps left to explain themselves.
    """

    def __init__(self, folder: Path, index: Index) -> None:
        self.folder = folder
        self.index = index
        self.blobs = Blobs(folder / "blobs", index)
        self.actions = Actions(folder / "actions", index)
        self.tensors = Tensors(index, self.blobs)
        self.stats = StatCache(index)
        self.listings = Listings(index)
        self.failures = Failures(folder / "failures")

    @staticmethod
    def open(cache_dir: str | Path) -> Store:
        """Opens the store in a folder, and makes it if there is none.

        Raises:
            FreezeflowError: It cannot be read or written, or its format is another one.
        """
        folder = Path(os.path.abspath(cache_dir))
        index = folder / "index.db"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _check_format(folder)
            _check_writable(index)
            return Store(folder, Index(index))
        except OSError as error:
            raise _elsewhere(writing_failed(error, Path(error.filename or folder))) from error

    def close(self) -> None:
        self.index.close()

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Says that a run is on, so that `gc` leaves alone what it uses; several may be on at once.

        It waits while `gc` is at work. It is told by a file that is locked until the process ends.
        """
        running = self.folder / "running"
        with self._locked(fcntl.LOCK_SH):
            try:
                running.mkdir(exist_ok=True)
                name = running / f"run-{secrets.token_hex(8)}"
                descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            except OSError as error:
                raise writing_failed(error, running) from error
            with contextlib.suppress(OSError):  # some network file systems have no locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            claims = _claims_of(name)
            try:
                self.blobs.claims = os.open(claims, _APPEND, 0o666)
            except OSError as error:
                os.close(descriptor)
                os.unlink(name)
                raise writing_failed(error, running) from error
        try:
            yield
        finally:
            os.close(self.blobs.claims)
            self.blobs.claims = None
            for path in (name, claims):
                with contextlib.suppress(OSError):
                    os.unlink(path)
            os.close(descriptor)

    @contextlib.contextmanager
    def alone(self) -> Iterator[Running]:
        """Lets no run begin; gives the runs that are on. What dead ones left is removed."""
        with self._locked(fcntl.LOCK_EX):
            began: dict[Path, int] = {}
            for path in (self.folder / "running").glob("run-*"):
                with contextlib.suppress(OSError):
                    try:
                        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                    except PermissionError:  # another user's: it may be on
                        began[path] = path.stat().st_mtime_ns
                        continue
                    try:
                        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        path.unlink()
                        _claims_of(path).unlink(missing_ok=True)
                    except BlockingIOError:
                        began[path] = os.fstat(descriptor).st_mtime_ns
                    finally:
                        os.close(descriptor)
            yield Running(min(began.values(), default=None), tuple(map(_claims_of, began)))

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A new empty folder on the store's own disk, removed afterwards with all that is in it.

        Folders that killed processes left are removed on the way.
        """
        parent = self.folder / "scratch"
        try:
            parent.mkdir(exist_ok=True)
            _sweep(parent)
            folder, lock = _locked_folder(parent)
        except OSError as error:
            raise writing_failed(error, parent) from error
        try:
            yield folder
        finally:
            remove_tree(folder)
            os.close(lock)

    @contextlib.contextmanager
    def key_locks(self) -> Iterator[KeyLocks]:
        """Locks by which runs leave each other the steps that they are making."""
        locks = KeyLocks(self.folder / "key-locks")
        try:
            yield locks
        finally:
            locks.close()

    def keep_crash(self, name: str, report: str) -> Path:
        """Keeps the report of a bug; returns its file."""
        path = self.folder / "crashes" / f"{name}.txt"
        write_atomically(path, [report.encode(errors="backslashreplace")])
        return path

    @contextlib.contextmanager
    def _locked(self, kind: int) -> Iterator[None]:
        try:
            lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise writing_failed(error, self.folder / "lock") from error
        try:
            fcntl.flock(lock, kind)
            yield
        finally:
            os.close(lock)


def _check_format(folder: Path) -> None:
    path = folder / "FORMAT"
    try:
        found = path.read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        try:
            write_atomically(path, [f"{FORMAT}\n".encode()])
        except FreezeflowError as error:
            raise _elsewhere(error) from error
        return
    if found != FORMAT:
        raise FreezeflowError(
            f"the cache has the format {found[:60]!r}, and this freezeflow uses {FORMAT!r}",
            where=str(folder),
            hint=f"Remove the folder, or set {ENVIRONMENT_VARIABLE} to another one.",
        )


def _check_writable(index: Path) -> None:
    """Makes the index's file where there is none; raises OSError where it cannot be written.

    SQLite gives the files beside it the same permissions, so the umask says who else may write. And
    where a user may only read it, SQLite would leave files there that its owner cannot write.
    """
    os.close(os.open(index, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666))


def _elsewhere(error: FreezeflowError) -> FreezeflowError:
    """Adds to an error that the store may be in another place."""
    elsewhere = f"{ENVIRONMENT_VARIABLE} names another folder for the cache."
    hint = f"{error.hint} {elsewhere}".lstrip()
    return FreezeflowError(error.message, where=error.where, hint=hint)


def _claims_of(run: Path) -> Path:
    """The file of a run's claims, beside the one that says that it is on."""
    return run.with_name(run.name.replace("run-", "claims-", 1))


def _locked_folder(parent: Path) -> tuple[Path, int]:
    """Makes a folder and locks it; none of those that sweep sees it in between."""
    with _held(parent, fcntl.LOCK_SH):
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=parent))
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            folder.rmdir()
            raise
        with contextlib.suppress(OSError):  # some network file systems have no locks
            fcntl.flock(lock, fcntl.LOCK_EX)
    return folder, lock


def _sweep(parent: Path) -> None:
    """Removes folders whose process is gone; while another makes one, that one is left to do it."""
    with _held(parent, fcntl.LOCK_EX | fcntl.LOCK_NB) as alone:
        for folder in parent.iterdir() if alone else ():
            with contextlib.suppress(OSError):
                lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    remove_tree(folder)
                finally:
                    os.close(lock)


@contextlib.contextmanager
def _held(folder: Path, kind: int) -> Iterator[bool]:
    """A lock on a folder; gives whether it was to be had."""
    lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(lock, kind)
            got = True
        except OSError:  # another has it, or the file system has no locks
            got = False
        yield got
    finally:
        os.close(lock)
