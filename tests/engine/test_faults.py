"""Every call to the disk fails once during a run, and the run after it succeeds."""

import errno
import shutil
from pathlib import Path

import pytest

from freezeflow import api
from freezeflow.engine import choosing
from freezeflow.engine.events import Event, RunWarned
from freezeflow.engine.options import RunOptions
from freezeflow.engine.run import run, run_plans
from freezeflow.errors import FreezeflowError
from freezeflow.store import upkeep
from freezeflow.store.store import Store
from tests.engine.builders import CHANGE, LOAD, chain, plan, step
from tests.engine.test_run import assert_clean
from tests.store.test_faults import every_failure


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    one = chain(folder, fold=True, say="hello")
    run(one, Store.open(tmp_path / "expected"))
    expected = (folder / "build" / "out.pb").read_bytes()
    stores = [Store.open(tmp_path / "store-0")]

    def work() -> None:
        shutil.rmtree(folder / "build", ignore_errors=True)
        for result in run(one, stores[-1]).steps:
            if result.error is not None:
                assert "This is a bug" not in result.error.hint
                raise result.error

    def check(survived: bool) -> None:
        store = stores[-1]
        path = folder / "build" / "out.pb"
        assert path.exists() or not survived
        assert not path.exists() or path.read_bytes() == expected
        assert_clean(store)
        assert upkeep.verify(store) == []
        assert run(one, store).ok
        assert path.read_bytes() == expected
        store.close()
        stores.append(Store.open(tmp_path / f"store-{len(stores)}"))

    assert every_failure(monkeypatch, number, work, check) > 80


def test_a_full_disk_is_one_line(
    folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from freezeflow.store import files

    def full(descriptor: int, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "write", full)  # type: ignore[attr-defined]
        with pytest.raises(FreezeflowError, match="No space left"):
            run(chain(folder), store)
    assert_clean(store)
    assert run(chain(folder), store).ok


def test_a_full_disk_is_one_line_where_steps_run_side_by_side(
    folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = [
        plan(
            folder,
            step(folder, LOAD),
            step(folder, CHANGE, "load", rename=name),
            name=name,
        )
        for name in ("one", "two")
    ]

    def full(path: Path, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(FreezeflowError, match="cannot be written: No space left") as caught:
            run_plans(plans, store, RunOptions(jobs=2))
    assert "Free some space" in caught.value.hint
    assert_clean(store)
    assert run_plans(plans, store, RunOptions(jobs=2)).ok


def test_what_failed_is_told_where_it_cannot_be_noted(
    folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Event] = []
    monkeypatch.setattr(choosing, "write_checked_later", _cannot_write)
    result = api.run(chain(folder, fail="refuse"), cache_dir=store.folder, on_event=events.append)
    assert [step.ref.step for step in result.failures] == ["change"]
    (warning,) = (event.message for event in events if isinstance(event, RunWarned))
    assert warning.startswith("it is not noted what failed: ")


def _cannot_write(path: Path, data: bytes, mode: int) -> None:
    raise FreezeflowError("cannot be written", where=str(path))
