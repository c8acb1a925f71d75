"""What the engine's tests share."""

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
def folder(tmp_path: Path) -> Path:
    """A project's folder with a model."""
    folder = tmp_path / "project"
    make_source(folder / "model")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "cache")
