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
    plugin = tmp_path / "plugin" / "freezeflow_test_stages-1.dist-info"
    plugin.mkdir(parents=True)
    (plugin / "METADATA").write_text("Metadata-Version: 2.1\nName: test-stages\nVersion: 1\n")
    lines = [
        f"{stage.name} = tests.engine.builders:{name}"
        for name, stage in zip(
            ("LOAD", "CHANGE", "CONFINED", "EXPORT"), STAGES.values(), strict=True
        )
    ]
    (plugin / "entry_points.txt").write_text("\n".join(["[freezeflow.stages]", *lines, ""]))
    monkeypatch.syspath_prepend(plugin.parent)
    _forget_stages()
    yield
    _forget_stages()


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
