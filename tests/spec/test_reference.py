"""The reference page: its generated parts are up to date, and its recipes are good ones."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from freezeflow.spec.recipe import load_recipes
from tools.make_reference import PAGE, page

TEXT = PAGE.read_text(encoding="utf-8")
RECIPES = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
DIGITS = PAGE.parent.parent / "pipelines" / "digits"


def test_the_page_is_up_to_date() -> None:
    assert page(TEXT) == TEXT, "run `make docs`"


def test_generated_parts_are_found_and_written_anew() -> None:
    emptied = re.sub(r"(generated -->\n).*?(<!-- end)", r"\1\2", TEXT, flags=re.DOTALL)
    assert emptied.count("generated -->") == 3
    assert "| `max_bytes` |" not in emptied
    assert page(emptied) == TEXT


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
