"""The disk is asked early for what will be read, in the order in which it will be read."""

import os
import threading
from pathlib import Path

import pytest

from freezeflow.store import ahead
from freezeflow.store.ahead import Lead, read_ahead
from freezeflow.store.background import Stopped, background, copying

MEGABYTE = 1024 * 1024


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """(descriptor, offset, length) of what the kernel was asked for."""
    found: list[tuple[int, int, int]] = []
    monkeypatch.setattr(
        os, "posix_fadvise", lambda *wanted: found.append(wanted[:3]), raising=False
    )
    return found


def test_a_lead_is_bounded_and_asks_for_everything_once(asked: list[tuple[int, int, int]]) -> None:
    ranges = [(7, 3, 100 * MEGABYTE), (7, 500 * MEGABYTE, 100 * MEGABYTE + 5)]
    total = sum(length for _, _, length in ranges)
    lead = Lead(ranges, lambda file: file)
    for reached in range(0, total, 8 * MEGABYTE):
        lead.reached(reached)
        so_far = sum(length for _, _, length in asked)
        assert so_far >= min(total, reached + 64 * MEGABYTE)
        assert so_far <= reached + 66 * MEGABYTE
    assert sum(length for _, _, length in asked) == total
    assert asked[0][:2] == (7, 3)
    ends = {offset + length for _, offset, length in asked}
    assert {100 * MEGABYTE + 3, 600 * MEGABYTE + 5} <= ends


def test_a_lead_waits_for_a_file_to_be_open(asked: list[tuple[int, int, int]]) -> None:
    files: dict[str, int] = {"a": 5}
    lead = Lead([("a", 0, 10), ("b", 0, 10)], files.get)
    lead.reached(0)
    assert asked == [(5, 0, 10)]
    files["b"] = 6
    lead.reached(10)
    assert asked[1:] == [(6, 0, 10)]


def test_the_files_of_a_model_are_asked_for(
    tmp_path: Path, asked: list[tuple[int, int, int]]
) -> None:
    (tmp_path / "model" / "variables").mkdir(parents=True)
    (tmp_path / "model" / "saved_model.pb").write_bytes(b"x" * 10)
    (tmp_path / "model" / "variables" / "data").write_bytes(b"x" * 30)
    (tmp_path / "model.other").write_bytes(b"x" * 7)
    ahead._ask_for(tmp_path / "model")
    assert [length for _, _, length in asked] == [30, 10]
    asked.clear()
    ahead._ask_for(tmp_path / "model.o")
    assert [length for _, _, length in asked] == [7]
    asked.clear()
    # Whoever reads it tells.
    read_ahead(tmp_path / "nothing" / "there")
    ahead._ask_for(tmp_path / "nothing" / "there")
    assert not asked


def test_checks_stay_near_a_copy() -> None:
    reached: list[int] = []
    full = threading.Event()

    def check() -> None:
        for _ in range(100):
            beside.read(MEGABYTE)
            reached.append(1)
            if len(reached) == 65:
                full.set()

    with background() as beside:
        with copying() as copied:
            job = beside.start(check)
            assert full.wait(20)
            assert len(reached) == 65
            copied(10 * MEGABYTE)
        job.result()
    assert len(reached) == 100


def test_waiting_for_a_copy_ends_with_an_interruption() -> None:
    ended: list[type] = []

    def check() -> None:
        try:
            while True:
                beside.read(MEGABYTE)
        except Stopped as stopped:
            ended.append(type(stopped))
            raise

    with pytest.raises(KeyboardInterrupt), background() as beside, copying():
        beside.start(check)
        raise KeyboardInterrupt
    assert ended == [Stopped]
