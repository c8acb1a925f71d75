"""Large recipes, and ones that would become large: read or refused in a time that grows with them."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from freezeflow.spec.problems import InvalidRecipe, Problem
from freezeflow.spec.recipe import load_recipes

HEAD = "version: 1\nmodel: {saved_model: model}\nstages:\n  - load\n"

# What grows with the square of a recipe hangs here; measured: 2 s at most.
pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").touch()
    (tmp_path / "pyproject.toml").touch()
    return tmp_path


def mistakes(project: Path, text: str) -> tuple[Problem, ...]:
    (project / "recipe.yaml").write_text(text)
    try:
        load_recipes(project / "recipe.yaml").recipes[0]
        found: tuple[Problem, ...] = ()
    except InvalidRecipe as error:
        found = error.problems
    return found


@pytest.mark.parametrize(
    ("item", "count", "wrong"),
    [
        ("strip", 5000, 0),
        ("strp", 5000, 5000),
        ("{{strip: , id: s{n}, needs: t{n}}}", 2000, 2000),
        ("export: build/{n}.pb", 2000, 0),
        ("export: build/x.pb", 2000, 1999),
        ("fold: {{max_bites: {n}}}", 2000, 2000),
    ],
)
def test_many_stages(project: Path, item: str, count: int, wrong: int) -> None:
    items = "".join(f"  - {item.format(n=n)}\n" for n in range(count))
    assert len(mistakes(project, HEAD + items)) == wrong


def test_variables_that_hold_much(project: Path) -> None:
    text = f"vars: {{a: {'x' * 400_000}}}\nenv: [{'${a}' * 100_000}]\n{HEAD}"
    assert len(mistakes(project, text)) == 1
    text = f'vars: {{a: {"x" * 400_000}}}\n{HEAD}  - export: "{"${a}" * 100_000}.pb"\n'
    (problem,) = mistakes(project, text)
    assert problem.message == "variables make this recipe longer than 1048576 characters"


def test_a_name_that_stands_in_many_places(project: Path) -> None:
    text = f'name: {"n" * 400_000}\n{HEAD}  - export: "{"{model}" * 50_000}.pb"\n'
    assert [problem.mark.line for problem in mistakes(project, text)] == [1]


def test_models_take_little_memory(project: Path) -> None:
    """Of each only what tells it from the others: 0.9 KB; with every stage of every model it were 2.5."""
    exports = (
        "[load, freeze, export: 'a/{model}.pb', export: 'b/{model}.pb', export: 'c/{model}.pb']"
    )
    for number in range(500):
        folder = project / "models" / ("few" if number < 100 else "many") / f"m{number:03}"
        folder.mkdir(parents=True)
        (folder / "saved_model.pb").touch()
    held = []
    for pattern in ("models/few/*", "models/few/*", "models/*/*"):
        (project / "recipe.yaml").write_text(
            f"version: 1\nmodels: {pattern!r}\nstages: {exports}\n"
        )
        tracemalloc.start()
        loaded = load_recipes(project / "recipe.yaml").recipes
        held.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
    assert [len(recipe.stages) for recipe in loaded[498:]] == [5, 5]
    _, few, many = held
    assert (many - few) / (500 - 100) < 1500
