"""A cache that several users share, and one that a user may only read."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from freezeflow.errors import FreezeflowError
from freezeflow.store.store import Store
from freezeflow.values import Digest

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can be several users")

GROUP = 4321


def as_user(user: int, work: Callable[[], str], umask: int = 0o002) -> str:
    """What some work of another user gives, or the message of the error that it raises."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(GROUP)
            os.setuid(user)
            os.umask(umask)
            os.write(writing, work().encode())
        except FreezeflowError as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)
    return said


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that a group may write to; pytest's own ones are closed to other users."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        os.chown(folder, 0, GROUP)
        folder.chmod(0o2775)
        yield folder


def use(folder: Path, data: bytes) -> str:
    store = Store.open(folder)
    with store.in_use(), store.key_locks() as locks, store.scratch():
        digest = store.blobs.put(data)
        assert locks.take(digest)
        store.stats.remember_written([])
        with store.index.transaction():
            store.actions.note([("/r.yaml", data.decode(), digest)])
    store.close()
    return digest.hex


def test_what_all_write_to_has_the_permissions_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        store = Store.open(tmp_path / "cache")
        with store.in_use(), store.key_locks(), store.index.transaction():
            store.actions.note([("/r.yaml", "a", Digest("0" * 64))])
            files = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in files}
    finally:
        os.umask(before)
    written = [name for name in modes if name != "FORMAT"]
    assert {"index.db", "index.db-wal", "index.db-shm", "lock", "key-locks"} <= set(written)
    assert {oct(modes[name]) for name in written} == {"0o664"}


@as_root
def test_two_users_of_a_group_share_a_cache(shared: Path) -> None:
    one = as_user(1001, lambda: use(shared, b"one"))
    two = as_user(1002, lambda: use(shared, b"two"))

    def both() -> str:
        store = Store.open(shared)
        assert [store.blobs.read(Digest(one)), store.blobs.read(Digest(two))] == [b"one", b"two"]
        return str(len(store.actions.noted([("/r.yaml", "one"), ("/r.yaml", "two")])))

    assert as_user(1001, both) == as_user(1002, both) == "2"


@as_root
def test_a_run_of_another_user_is_left_alone_by_gc(shared: Path) -> None:
    """Also where the file that says that it is on cannot be looked into."""
    as_user(1001, lambda: use(shared, b"one"))
    store = Store.open(shared)
    with store.in_use():
        (run,) = (shared / "running").glob("run-*")
        run.chmod(0o600)

        def look() -> str:
            with Store.open(shared).alone() as running:
                return str(running.oldest_ns is not None)

        assert as_user(1002, look) == "True"
        assert run.exists()


@as_root
def test_one_who_may_only_read_is_refused_and_leaves_nothing(shared: Path) -> None:
    use(shared, b"one")
    before = sorted(shared.rglob("*"))
    shared.chmod(0o777)
    said = as_user(1001, lambda: use(shared, b"two"), umask=0o022)
    assert said.startswith(f"{shared}/index.db: cannot be written: Permission denied\n")
    assert "FREEZEFLOW_CACHE_DIR names another folder" in said
    assert sorted(shared.rglob("*")) == before
    assert use(shared, b"three")
