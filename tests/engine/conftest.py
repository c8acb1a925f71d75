"""What the engine's tests share."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from freezeflow.stages import registry
from freezeflow.store.store import Store
from tests.engine.builders import STAGES, make_source


@pytest.fixture(autouse=True)
def _installed_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Installs the stages of `builders` as a plug-in, for this process and for its children."""
    monkeypatch.syspath_prepend(install_plugin(tmp_path / "plugin"))
    _forget_stages()
    yield
    _forget_stages()


def install_plugin(folder: Path) -> Path:
    """Makes a folder of a search path with a package that offers the tests' stages and executors."""
    plugin = folder / "freezeflow_test_stages-1.dist-info"
    plugin.mkdir(parents=True)
    (plugin / "METADATA").write_text("Metadata-Version: 2.1\nName: test-stages\nVersion: 1\n")
    names = zip(("LOAD", "CHANGE", "CONFINED", "EXPORT"), STAGES.values(), strict=True)
    lines = [f"{stage.name} = tests.engine.builders:{name}" for name, stage in names]
    pools = [f"{name} = tests.engine.pools:{name}" for name in ("threads", "processes")]
    groups = ["[freezeflow.stages]", *lines, "[freezeflow.executors]", *pools, ""]
    (plugin / "entry_points.txt").write_text("\n".join(groups))
    return folder


def _forget_stages() -> None:
    registry.stage_modules.cache_clear()
    registry.stage_named.cache_clear()


@pytest.fixture
def memory_group() -> Iterator[Path]:
    """A control group that may have 300 MB of memory; the kernel ends who takes more."""
    group, limit = _new_group(f"freezeflow-test-{os.getpid()}")
    try:
        group.mkdir()
        (group / limit).write_text("300000000")
    except OSError as error:
        pytest.skip(f"no control group with a limit of memory can be made here: {error}")
    yield group
    # Whoever was in it has ended, or is about to.
    for _ in range(100):
        with contextlib.suppress(OSError):
            group.rmdir()
            return
        time.sleep(0.05)


def _new_group(name: str) -> tuple[Path, str]:
    """Its folder, below this process's own, and its file with the limit; version 1 or 2."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return Path(f"/sys/fs/cgroup/memory{path}", name), "memory.limit_in_bytes"
    path = Path("/proc/self/cgroup").read_text().strip().rpartition(":")[2]
    return Path(f"/sys/fs/cgroup{path}", name), "memory.max"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project's folder with a model."""
    folder = tmp_path / "project"
    make_source(folder / "model")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "cache")
