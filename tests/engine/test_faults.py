"""Every call to the disk fails once during a run, and the run after it succeeds."""

import errno
import shutil
from pathlib import Path

import pytest

from freezeflow.engine.run import run
from freezeflow.errors import FreezeflowError
from freezeflow.store import upkeep
from freezeflow.store.store import Store
from tests.engine.builders import chain
from tests.engine.test_run import assert_clean
from tests.store.test_faults import every_failure


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    plan = chain(folder, fold=True, say="hello")
    run(plan, Store.open(tmp_path / "expected"))
    expected = (folder / "build" / "out.pb").read_bytes()
    stores = [Store.open(tmp_path / "store-0")]

    def work() -> None:
        shutil.rmtree(folder / "build", ignore_errors=True)
        for step in run(plan, stores[-1]).steps:
            if step.error is not None:
                assert "This is a bug" not in step.error.hint
                raise step.error

    def check(survived: bool) -> None:
        store = stores[-1]
        path = folder / "build" / "out.pb"
        assert path.exists() or not survived
        assert not path.exists() or path.read_bytes() == expected
        assert_clean(store)
        assert upkeep.verify(store) == []
        assert run(plan, store).ok
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
