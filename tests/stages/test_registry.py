"""The registry: our own stages, those of plugins, and what is wrong with a plugin."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from freezeflow.errors import UsageError
from freezeflow.spec.recipe import load_recipes
from freezeflow.spec.schema import recipe_schema, validator
from freezeflow.stages import registry
from freezeflow.stages.registry import BUILTIN, stage_modules, stage_named

STAGE = """
import dataclasses
from freezeflow.params import param
from freezeflow.stages.stage import Outcome, Stage

@dataclasses.dataclass(frozen=True, kw_only=True)
class Params:
    degree: int = param("How warm.", default=3, shorthand=True)

def run(given, params, context):
    return Outcome(model=given.model)

MELT = Stage(name="melt", summary="Melts.", version=1, params=Params, run=run)
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Installs a package with entry points for stages, for the length of a test."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def installed(package: str, source: str, **points: str) -> None:
        module = package.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{module}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
        lines = [f"{name} = {module}{place}\n" for name, place in points.items()]
        (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{''.join(lines)}")
        forget()

    def forget() -> None:
        for cached in (stage_modules, stage_named, validator):
            cached.cache_clear()

    yield installed
    for name in [name for name in sys.modules if name.startswith("plugin_")]:
        del sys.modules[name]
    forget()


def test_every_stage_of_our_own() -> None:
    assert {"load", "freeze", "strip", "fold", "validate", "export"} <= set(BUILTIN)
    for name in BUILTIN:
        stage = stage_named(name)
        assert stage.name == name
        assert stage.version >= 1
        assert stage.summary.endswith(".")


def test_an_unknown_stage() -> None:
    with pytest.raises(UsageError, match="there is no stage 'freze'") as raised:
        stage_named("freze")
    assert raised.value.hint == "Did you mean 'freeze'?"


def test_a_stage_imports_only_itself() -> None:
    script = (
        "import sys; from freezeflow.stages.registry import stage_named; stage_named('load');"
        "print([m for m in ('freezeflow.stages.fold', 'tensorflow', 'numpy')"
        " if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_a_plugin_joins(install: Callable[..., None], tmp_path: Path) -> None:
    install("plugin-melt", STAGE, melt=":MELT")
    assert stage_named("melt").summary == "Melts."
    (tmp_path / "graph.pb").touch()
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("version: 1\nmodel: {frozen_graph: graph.pb}\nstages: [load, {melt: 5}]\n")
    assert load_recipes(recipe).recipes[0].stages[1].params.degree == 5
    names = recipe_schema()["properties"]["stages"]["items"]["else"]["enum"]
    assert names == [*BUILTIN, "melt"]
    published = recipe_schema(plugins=False)
    assert published["properties"]["stages"]["items"]["else"]["enum"] == list(BUILTIN)


def test_two_plugins_clash(install: Callable[..., None]) -> None:
    install("plugin-one", STAGE, melt=":MELT")
    install("plugin-two", STAGE, melt=":MELT")
    with pytest.raises(UsageError, match="'melt' is brought by plugin-one and by plugin-two"):
        stage_modules()


def test_a_plugin_clashes_with_us(install: Callable[..., None]) -> None:
    install("plugin-fold", STAGE, fold=":MELT")
    with pytest.raises(UsageError, match="'fold' is brought by freezeflow and by plugin-fold"):
        stage_modules()


@pytest.mark.parametrize("place", [":Params", ":NOTHING", ":MELT"])
def test_an_entry_point_that_names_something_else(install: Callable[..., None], place: str) -> None:
    install("plugin-wrong", STAGE, freezer=place)
    with pytest.raises(UsageError, match="names no stage 'freezer'"):
        stage_named("freezer")


def test_a_broken_plugin_breaks_only_recipes_that_use_it(
    install: Callable[..., None], tmp_path: Path
) -> None:
    install("plugin-broken", "import no_such_module", melt=":MELT")
    (tmp_path / "graph.pb").touch()
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("version: 1\nmodel: {frozen_graph: graph.pb}\nstages: [load, freeze]\n")
    assert len(load_recipes(recipe).recipes[0].stages) == 2
    recipe.write_text("version: 1\nmodel: {frozen_graph: graph.pb}\nstages: [load, melt]\n")
    with pytest.raises(
        UsageError, match="stage 'melt' cannot be imported: No module named 'no_such"
    ):
        load_recipes(recipe).recipes[0]
