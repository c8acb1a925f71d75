"""The reference page: its generated parts are up to date, and its recipes are good ones."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from freezeflow.spec.recipe import Recipe, load_recipes
from tools.make_reference import MANY_PAGE, PAGE, PAGES, page

TEXT = PAGE.read_text(encoding="utf-8")
_YAML = re.compile(r"```yaml\n(.*?)```", re.DOTALL)
RECIPES = _YAML.findall(TEXT)
DIGITS = PAGE.parent.parent / "pipelines" / "digits"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_pages_are_up_to_date(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert page(text) == text, "run `make docs`"


@pytest.mark.parametrize(
    ("path", "parts", "word"), [(PAGE, 3, "max_bytes"), (MANY_PAGE, 1, "exclude")]
)
def test_generated_parts_are_found_and_written_anew(path: Path, parts: int, word: str) -> None:
    text = path.read_text(encoding="utf-8")
    emptied = re.sub(r"(generated -->\n).*?(<!-- end)", r"\1\2", text, flags=re.DOTALL)
    assert emptied.count("generated -->") == parts
    assert f"| `{word}` |" not in emptied
    assert page(emptied) == text


_COMMON = """\
version: 1
vars: {samples: 8}
blocks:
  prove:
    - validate:
        samples: ${samples}
stages: [load]
"""

_SAMPLES = """\
vars: {samples: 4}
stages:
  - load
  - freeze
  - validate:
      samples: ${samples}
  - export: build/{model}.pb
"""

_LEVELS = """\
models: zoo/[br]*/saved
stages:
  - load
  - freeze
  - cast:
      to: ${precision}
  - validate:
      level: ${level}
  - export: build/{model}-{level}-{precision}.pb
"""


def many(tmp_path: Path, number: int, rest: str = "") -> dict[str, Recipe]:
    """By name what a recipe of the page about many models says, in a folder with what it names."""
    zoo = [f"zoo/{name}/saved" for name in ("resnet", "bert", "old1", "broken")]
    for name in ("models/special", "models/resnet", *zoo):
        (tmp_path / "project" / name).mkdir(parents=True)
        (tmp_path / "project" / name / "saved_model.pb").touch()
    (tmp_path / "common.yaml").write_text(_COMMON, encoding="utf-8")
    text = _YAML.findall(MANY_PAGE.read_text(encoding="utf-8"))[number]
    head = "" if text.startswith("version") else "version: 1\n"
    (tmp_path / "project" / "recipe.yaml").write_text(f"{head}{text}{rest}", encoding="utf-8")
    recipes = load_recipes(tmp_path / "project" / "recipe.yaml").recipes
    return {recipe.name: recipe for recipe in recipes}


def test_its_first_recipe_for_many(tmp_path: Path) -> None:
    assert set(many(tmp_path, 0)) == {"special", "resnet"}


def test_groups_and_overrides(tmp_path: Path) -> None:
    found = many(tmp_path, 1, _SAMPLES)
    assert set(found) == {"special", "resnet", "bert"}
    validate = {name: recipe.stages[2].params for name, recipe in found.items()}
    assert (validate["resnet"].samples, validate["resnet"].level) == (32, "served")
    assert (validate["bert"].samples, validate["bert"].level) == (4, "exact")
    assert found["resnet"].source.signatures == ("all",)
    assert found["bert"].source.signatures == ("predict",)
    assert found["special"].source.signatures is None


def test_a_matrix(tmp_path: Path) -> None:
    assert set(many(tmp_path, 2, _LEVELS)) == {
        "resnet-exact-bfloat16",
        "resnet-served-bfloat16",
        "resnet-served-float16",
        "bert-exact-bfloat16",
        "bert-served-bfloat16",
        "broken-exact-bfloat16",
        "broken-served-bfloat16",
        "broken-served-float16",
    }


def test_a_recipe_that_extends_another(tmp_path: Path) -> None:
    found = many(tmp_path, 3)
    assert [item.id for item in found["resnet"].stages] == ["load", "freeze", "validate", "export"]
    assert found["resnet"].stages[2].params.samples == 64
    assert set(found) == {"special", "resnet"}


@pytest.mark.parametrize("text", RECIPES, ids=range(len(RECIPES)))
def test_its_recipes_are_good(text: str, tmp_path: Path) -> None:
    shutil.copytree(DIGITS, tmp_path / "digits")
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    assert load_recipes(tmp_path / "recipe.yaml").recipes[0].stages[0].stage == "load"


def test_needs_on_the_page_mean_what_it_says(tmp_path: Path) -> None:
    shutil.copytree(DIGITS, tmp_path / "digits")
    (tmp_path / "recipe.yaml").write_text(RECIPES[1], encoding="utf-8")
    needs = {
        item.id: item.needs for item in load_recipes(tmp_path / "recipe.yaml").recipes[0].stages
    }
    assert needs["export"] == ("strip",)
    assert needs["folded"] == ("strip",)
    assert needs["proof"] == ("folded",)
    assert needs["served"] == ("folded", "proof")
