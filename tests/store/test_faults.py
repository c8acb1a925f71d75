"""Every call to the disk may fail (https://www.sqlite.org/testing.html, I/O error testing)."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from freezeflow.errors import FreezeflowError
from freezeflow.store import blobs, files, hashing, kernel, listings, stats, store, tensors
from freezeflow.store.files import publication, write_atomically
from freezeflow.store.store import Store
from tests.store.test_files import location
from tests.store.test_store import make_action

CALLS = (
    "open",
    "write",
    "fsync",
    "fchmod",
    "fstat",
    "stat",
    "replace",
    "link",
    "preadv",
    "copy_file_range",
    "sendfile",
)


class Faults:
    """Counts calls to the disk and makes one of them fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failing: int, number: int) -> None:
        self.count = 0
        self.failing = failing
        fake = SimpleNamespace(**{name: getattr(os, name) for name in dir(os)})
        for name in CALLS:
            setattr(fake, name, self._wrap(getattr(os, name), number))
        for module in (blobs, files, hashing, kernel, listings, stats, store, tensors):
            monkeypatch.setattr(module, "os", fake)

    def _wrap(self, call: Callable[..., object], number: int) -> Callable[..., object]:
        def wrapped(*args: object, **kwargs: object) -> object:
            self.count += 1
            if self.count == self.failing:
                raise OSError(number, os.strerror(number))
            return call(*args, **kwargs)

        return wrapped


def every_failure(
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    work: Callable[[], object],
    check: Callable[[bool], None],
) -> int:
    """Does the work once for each of its calls to the disk, which fails; then checks.

    `check` gets whether the work came through all the same (some calls may fail without harm).
    """
    for failing in range(1, 1000):
        with monkeypatch.context() as patch:
            faults = Faults(patch, failing, number)
            try:
                work()
                survived = True
            except FreezeflowError as error:
                assert "\n" not in error.message
                survived = False
        if faults.count < failing:
            return failing - 1
        check(survived)
    raise AssertionError("too many calls")


ERRORS = pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EACCES])


@ERRORS
def test_write_atomically(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(os.urandom(3_000_000))
    target = tmp_path / "out" / "file"
    target.parent.mkdir()
    target.write_bytes(b"old")
    whole = b"head" + weights.read_bytes()

    def check(survived: bool) -> None:
        assert {path.name for path in target.parent.iterdir()} == {"file"}
        assert target.read_bytes() in ([whole] if survived else [b"old", whole])
        target.write_bytes(b"old")

    def work() -> None:
        write_atomically(target, [b"head", location(weights)])

    assert every_failure(monkeypatch, number, work, check) > 10
    work()
    assert target.read_bytes() == whole


@ERRORS
def test_two_files_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    target = tmp_path / "out"
    target.mkdir()

    def reset() -> None:
        (target / "one").write_bytes(b"old")
        (target / "two").unlink(missing_ok=True)

    def check(survived: bool) -> None:
        names = {path.name: path.read_bytes() for path in target.iterdir()}
        new = {"one": b"1", "two": b"2"}
        assert names in ([new] if survived else [{"one": b"old"}])
        reset()

    def work() -> None:
        with publication() as group:
            group.write(target / "one", [b"1"])
            group.write(target / "two", [b"2"])

    reset()
    assert every_failure(monkeypatch, number, work, check) > 10
    work()


@ERRORS
def test_blob_and_action(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    kept = Store.open(tmp_path / "cache")
    file = make_action(Store.open(tmp_path / "other"))
    outputs = file.action.outputs

    def work() -> None:
        kept.blobs.put(b"graph a")
        kept.blobs.put(b"record a")
        kept.blobs.put(b"log")
        kept.actions.put(file)

    def check(survived: bool) -> None:
        found = kept.actions.get([file.action.key])
        # An action is there only with all that it needs.
        if survived or found:
            assert found == {file.action.key: file.action}
            assert kept.blobs.lost(set(outputs.blobs())) == []
        parts = [path for path in kept.folder.rglob("*") if path.name.endswith(".part")]
        assert parts == []
        kept.actions.forget([file.action.key])
        kept.blobs.remove(list(kept.blobs.all()))

    assert every_failure(monkeypatch, number, work, check) > 20
    work()
    check(True)
