"""What ``import freezeflow`` offers."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import freezeflow
from freezeflow.engine.events import Event, RunEnded, RunStarted, StepEnded
from freezeflow.graph.verify import check
from freezeflow.graph.write import graph_def_bytes
from tests.cli.conftest import RECIPE, ROOT


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(ROOT / "pipelines" / "digits" / "model", tmp_path / "model")
    (tmp_path / "small.yaml").write_text(RECIPE, encoding="utf-8")
    monkeypatch.setenv("FREEZEFLOW_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_everything_that_is_listed_is_there() -> None:
    for name in freezeflow.__all__:
        assert getattr(freezeflow, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'thaw'"):
        freezeflow.thaw  # noqa: B018
    importlib.reload(freezeflow)


def test_importing_it_imports_nothing_else() -> None:
    script = "import freezeflow, sys; print([m for m in sys.modules if m.startswith('freezeflow')])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "['freezeflow.version', 'freezeflow']\n"


def test_freeze_gives_a_model_that_can_be_used(folder: Path) -> None:
    model = freezeflow.freeze("model")
    check(model, stage="freeze")
    assert not model.variables
    assert list(model.signatures["serving_default"].inputs) == ["image"]
    # Its weights can still be read.
    assert len(graph_def_bytes(model.graph)) > 60_000


def test_freeze_to_writes_files(folder: Path) -> None:
    done = freezeflow.freeze_to("model", Path("out.pb"), signatures=["serve"])
    assert [file.path.name for file in done.files] == ["out.pb", "out.manifest.json"]
    assert done.facts["freeze"]["variables_frozen"] == 17
    assert done.warnings == ()
    with pytest.raises(freezeflow.UsageError, match=r"ends in \.pb"):
        freezeflow.freeze_to("model", "out.onnx")


def test_errors_carry_where_and_hint(folder: Path) -> None:
    with pytest.raises(freezeflow.ModelRefused) as refused:
        freezeflow.freeze("model", signatures=["thaw"])
    assert refused.value.where.endswith("saved_model.pb")
    assert "serving_default" in refused.value.hint


def test_inspect_tells_what_a_model_is(folder: Path) -> None:
    found = freezeflow.inspect("model", tags=["serve"])
    assert isinstance(found, freezeflow.Inspection)
    assert found.freezes
    assert [signature.name for signature in found.signatures] == ["serve", "serving_default"]


def test_run_takes_files_recipes_and_plans(folder: Path) -> None:
    heard: list[Event] = []
    first = freezeflow.run("small.yaml", on_event=heard.append)
    assert first.ok
    assert isinstance(heard[0], RunStarted)
    assert heard[-1] == RunEnded(result=first)
    assert sum(isinstance(event, StepEnded) for event in heard) == 4

    recipe = freezeflow.load_recipes("small.yaml")[0]
    plan = freezeflow.load_plans(recipe)[0]
    for again in (Path("small.yaml"), recipe, plan, ["small.yaml"]):
        result = freezeflow.run(again)
        assert [step.status for step in result.steps] == ["cached"] * 4
    assert freezeflow.run("small.yaml", force=True).ok
    assert {found.state for found in freezeflow.forecast([plan])} == {"cached"}


def test_cached_models_keep_their_weights(folder: Path) -> None:
    plan = freezeflow.load_plans("small.yaml")[0]
    assert freezeflow.run(plan).ok
    model = freezeflow.cached_model(plan, "strip")
    frozen = freezeflow.freeze("model")
    assert graph_def_bytes(model.graph) == graph_def_bytes(frozen.graph)
    data = folder / "model/variables/variables.data-00000-of-00001"
    before = data.read_bytes()
    data.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    with pytest.raises(freezeflow.FreezeflowError, match="not cached"):
        freezeflow.cached_model(plan, "strip")


def test_a_cache_of_ones_own(folder: Path) -> None:
    assert freezeflow.run("small.yaml", cache_dir=folder / "other").ok
    assert (folder / "other/FORMAT").is_file()
    assert not (folder / "cache/actions").exists()
