"""Recipes that extend others, and blocks of stages: what they come to, and where mistakes are told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from freezeflow.plan import Plan, compiled_plans, make_plan
from freezeflow.spec.problems import InvalidRecipe
from freezeflow.spec.recipe import load_recipes

BASE = """\
version: 1
name: base
vars: {samples: 2, seed: 7}
blocks:
  shrink:
    - strip
    - fold: {max_growth: 1}
  prove:
    - use: shrink
    - validate:
        inputs: data.npz
        seed: ${seed}
override:
  fold: {max_bytes: 5}
stages:
  - load
  - freeze
  - use: prove
  - export: "build/{model}.pb"
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    for name in ("model/saved_model.pb", "shared/data.npz", "shared/model/saved_model.pb"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "pyproject.toml").touch()
    (folder / "shared/base.yaml").write_text(BASE)
    monkeypatch.chdir(folder)
    return folder


def plan(text: str) -> Plan:
    Path("recipe.yaml").write_text(f"version: 1\n{text}")
    (loaded,) = load_recipes("recipe.yaml").recipes
    return make_plan(loaded)


def problems(text: str) -> list[str]:
    Path("recipe.yaml").write_text(f"version: 1\n{text}")
    with pytest.raises(InvalidRecipe) as raised:
        load_recipes("recipe.yaml")
    return [f"{p.file}:{p.mark.line}:{p.mark.column}: {p.message}" for p in raised.value.problems]


EXTENDS = "extends: shared/base.yaml\nmodel: {saved_model: model}\n"


def test_what_is_not_said_comes_from_the_base(project: Path) -> None:
    found = plan(EXTENDS)
    assert found.name == "recipe"
    assert [step.id for step in found.steps] == [
        "load", "freeze", "strip", "fold", "validate", "export",
    ]  # fmt: skip
    steps = {step.id: step for step in found.steps}
    assert (steps["fold"].params["max_growth"], steps["fold"].params["max_bytes"]) == (1, 5)
    assert steps["validate"].params["seed"] == 7
    assert steps["validate"].needs == ("fold",)
    assert found.bases == (project / "shared/base.yaml",)


def test_paths_start_where_they_are_written(project: Path) -> None:
    steps = {step.id: step for step in plan(EXTENDS).steps}
    assert steps["load"].source.path == project / "model"
    assert steps["validate"].input_files == {"inputs": project / "shared/data.npz"}
    assert steps["export"].output_files[0] == project / "shared/build/recipe.pb"
    (project / "shared/with_model.yaml").write_text(f"{BASE}model: {{saved_model: model}}\n")
    other = plan("extends: shared/with_model.yaml\nname: own\n")
    assert other.steps[0].source.path == project / "shared/model"
    own = plan(f"{EXTENDS}override: {{export: 'build/{{model}}.pb', fold: {{}}}}\n")
    assert own.steps[-1].output_files[0] == project / "build/recipe.pb"


def test_what_is_said_goes_before(project: Path) -> None:
    text = f"{EXTENDS}vars: {{seed: 3}}\noverride: {{strip: {{identities: true}}}}\n"
    steps = {step.id: step for step in plan(text).steps}
    assert steps["validate"].params["seed"] == 3
    assert steps["strip"].params["identities"] is True
    assert steps["fold"].params["max_bytes"] == 5


def test_several_and_through_others(project: Path) -> None:
    (project / "shared/more.yaml").write_text(
        "version: 1\nextends: base.yaml\nblocks: {shrink: [strip]}\noverride: {}\n"
    )
    (project / "vars.yaml").write_text("version: 1\nvars: {seed: 9}\n")
    text = "extends: [shared/more.yaml, vars.yaml]\nmodel: {saved_model: model}\n"
    Path("recipe.yaml").write_text(f"version: 1\n{text}")
    with pytest.raises(InvalidRecipe, match="no stage has the id 'fold'"):
        load_recipes("recipe.yaml")
    base = BASE.replace("override:\n  fold: {max_bytes: 5}\n", "")
    (project / "shared/base.yaml").write_text(base)
    found = plan(text)
    assert [step.id for step in found.steps] == ["load", "freeze", "strip", "validate", "export"]
    assert found.steps[3].params["seed"] == 9
    assert len(found.bases) == 3


def test_models_take_the_place_of_a_model(project: Path) -> None:
    (project / "shared/with_model.yaml").write_text(f"{BASE}model: {{saved_model: model}}\n")
    Path("recipe.yaml").write_text('version: 1\nextends: shared/with_model.yaml\nmodels: "mod*"\n')
    (loaded,) = load_recipes("recipe.yaml").recipes
    assert loaded.name == "model"
    assert loaded.source.path == project / "model"


def test_a_block_twice_and_with_needs(project: Path) -> None:
    text = (
        "model: {saved_model: model}\nblocks: {out: [strip, export: 'x.pb']}\n"
        "override: {export-2: {to: y.pb}}\n"
        "stages: [load, freeze, {use: out}, {use: out, needs: freeze}]\n"
    )
    found = plan(text)
    assert {step.id: step.needs for step in found.steps} == {
        "load": (),
        "freeze": ("load",),
        "strip": ("freeze",),
        "export": ("strip",),
        "strip-2": ("freeze",),
        "export-2": ("strip-2",),
    }


def test_mistakes_in_a_base_are_told_there(project: Path) -> None:
    text = BASE.replace("max_growth: 1", "max_grwoth: 1").replace("data.npz", "dat.npz")
    (project / "shared/base.yaml").write_text(text.replace("${seed}", "${sed}"))
    assert problems(EXTENDS + "override: {strip: {identities: maybe}}\n") == [
        "recipe.yaml:4:32: identities must be true or false, not 'maybe'",
        "shared/base.yaml:7:14: unknown parameter of fold 'max_grwoth'",
        "shared/base.yaml:11:17: there is no file 'shared/dat.npz'",
        "shared/base.yaml:12:15: there is no variable 'sed'",
    ]


def test_two_outputs_name_both_files(project: Path) -> None:
    text = BASE.replace("  - strip\n", "")
    (project / "shared/base.yaml").write_text(text + '  - export: "build/{model}.pb"\n')
    (found,) = problems(EXTENDS)
    assert found.startswith("shared/base.yaml:19:13:")
    assert "already written by export (shared/base.yaml, line 18)" in found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "extends: shared/bsae.yaml\nmodel: {saved_model: model}\nstages: [load]\n",
            ["recipe.yaml:2:10: there is no recipe 'shared/bsae.yaml'"],
        ),
        (
            "extends: recipe.yaml\nmodel: {saved_model: model}\nstages: [load]\n",
            ["recipe.yaml:2:10: the recipes extend each other: recipe.yaml extends recipe.yaml"],
        ),
        (
            "extends: [3]\nmodel: {saved_model: model}\nstages: [load]\n",
            ["recipe.yaml:2:11: extends[0] must be text, not 3"],
        ),
        (
            "model: {saved_model: model}\nblocks: {one: [strip]}\nstages: [load, use: oen]\n",
            ["recipe.yaml:4:21: there is no block 'oen'"],
        ),
        (
            "model: {saved_model: model}\nblocks: {a: [use: b], b: [use: a]}\nstages: [load, use: a]\n",
            ["recipe.yaml:3:32: the blocks use each other: a uses b uses a"],
        ),
        (
            "model: {saved_model: model}\nblocks: {a: strip}\nstages: [load]\n",
            ["recipe.yaml:3:13: a must be a list, not 'strip'"],
        ),
    ],
    ids=["missing", "itself", "number", "no block", "block circle", "no list"],
)
def test_mistakes(project: Path, text: str, expected: list[str]) -> None:
    assert problems(text) == expected


def test_a_circle_names_the_file_that_closes_it(project: Path) -> None:
    (project / "a.yaml").write_text("version: 1\nextends: b.yaml\n")
    (project / "b.yaml").write_text("version: 1\n# again\nextends: a.yaml\n")
    found = problems("extends: a.yaml\nmodel: {saved_model: model}\nstages: [load]\n")
    assert found == [
        "b.yaml:3:10: the recipes extend each other: a.yaml extends b.yaml extends a.yaml"
    ]


def test_a_changed_base_is_another_plan(project: Path) -> None:
    Path("recipe.yaml").write_text(f"version: 1\n{EXTENDS}")
    (before,) = compiled_plans(Path("recipe.yaml"), project / "plans")
    (again,) = compiled_plans(Path("recipe.yaml"), project / "plans")
    assert again == before
    base = project / "shared/base.yaml"
    base.write_text(BASE.replace("max_growth: 1", "max_growth: 2"))
    (after,) = compiled_plans(Path("recipe.yaml"), project / "plans")
    assert after.digest != before.digest
    os.unlink(base)
    with pytest.raises(InvalidRecipe):
        compiled_plans(Path("recipe.yaml"), project / "plans")
