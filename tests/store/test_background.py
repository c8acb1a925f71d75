"""Checks beside other work: nothing is published before they are done, and nothing when one fails."""

import functools
import hashlib
import os
import threading
from pathlib import Path

import pytest

from freezeflow.errors import FreezeflowError, ModelRefused
from freezeflow.store.background import (
    PendingDigest,
    Stopped,
    background,
    present,
    settle,
)
from freezeflow.store.files import write_atomically
from freezeflow.store.hashing import check_whole, disjoint, hash_file, scan
from freezeflow.values import Digest


def refuse() -> None:
    raise ModelRefused("the checksum is another")


def test_one_pass_finds_what_two_find(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(hashlib.shake_128(b"").digest(3_000_000))
    ranges = [(2_000_000, 500_000), (0, 10), (10, 0), (10, 700_000), (1_000_000, 1)]
    steps: list[int] = []
    checksums, whole = check_whole(path, ranges, steps.append)
    assert checksums == [found.crc32c for found in scan(path, ranges)]
    assert whole == hash_file(path)
    assert sum(steps) == 3_000_000
    assert len(steps) > 4
    with pytest.raises(FreezeflowError, match="cut short"):
        check_whole(path, [(2_999_999, 2)], lambda count: None)


def test_disjoint() -> None:
    assert disjoint([(5, 5), (0, 5), (10, 0)])
    assert not disjoint([(5, 5), (0, 6)])


def test_a_file_appears_when_the_checks_are_done(tmp_path: Path) -> None:
    go_on = threading.Event()
    seen: list[bool] = []

    def check() -> None:
        go_on.wait(20)
        seen.append((tmp_path / "out").exists())

    with background() as beside:
        beside.start(check)
        threading.Timer(0.1, go_on.set).start()
        write_atomically(tmp_path / "out", [b"x"])
        assert seen == [False]
        assert (tmp_path / "out").read_bytes() == b"x"
    assert present() is None


def test_nothing_appears_when_a_check_fails(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="checksum"), background() as beside:
        beside.start(refuse)
        write_atomically(tmp_path / "out", [b"x"])
    assert list(tmp_path.iterdir()) == []
    settle()


def test_the_failed_check_is_told_not_what_followed_from_it() -> None:
    with pytest.raises(ModelRefused, match="checksum"), background() as beside:
        with pytest.raises(ModelRefused):
            beside.start(refuse).result()
        raise ModelRefused("a table has no rows")
    with pytest.raises(ModelRefused, match="no rows"), background() as beside:
        beside.start(lambda: None)
        raise ModelRefused("a table has no rows")


def test_a_check_that_nobody_awaits_fails_the_block() -> None:
    with pytest.raises(ModelRefused, match="checksum"), background() as beside:
        beside.start(refuse)


def test_an_interruption_ends_the_work() -> None:
    started = threading.Event()
    ended: list[type] = []

    def endless() -> None:
        started.set()
        try:
            while True:
                beside.read(0)
        except Stopped as stopped:
            ended.append(type(stopped))
            raise

    with pytest.raises(KeyboardInterrupt), background() as beside:
        beside.start(endless)
        started.wait(20)
        raise KeyboardInterrupt
    assert ended == [Stopped]


def test_a_pending_digest_is_a_digest() -> None:
    asked: list[int] = []

    def find() -> str:
        asked.append(1)
        return Digest.of(b"a").hex

    digest = PendingDigest(find)
    pair = (digest, 1)
    assert pair == (digest, 1)
    assert not asked
    assert digest == Digest.of(b"a")
    assert Digest.of(b"a") == digest
    assert digest != Digest.of(b"b")
    assert {Digest.of(b"a"): 1}[digest] == 1
    assert str(digest) == str(Digest.of(b"a"))


def test_jobs_leave_a_core_to_the_threads_that_copy_and_hash() -> None:
    """Those that read much; few bytes are checked as soon as can be."""

    def nice_after(count: int) -> int:
        found.read(count)
        return os.getpriority(os.PRIO_PROCESS, 0)

    before = os.getpriority(os.PRIO_PROCESS, 0)
    with background() as found:
        reading = [found.start(functools.partial(nice_after, n)) for n in (1_000_000, 100_000_000)]
        little, much = (pending.result() for pending in reading)
    assert little == before
    assert before < much <= before + 5 or before == 19
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
