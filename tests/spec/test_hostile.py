"""Recipes that mean harm, or are no recipes: refused with a place, soon, and by nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from freezeflow.spec import tree
from freezeflow.spec.problems import InvalidRecipe, Problem, render_problems
from freezeflow.spec.recipe import load_recipes
from freezeflow.spec.tree import parse_document

# A hang is a failure; each of these takes well under a second.
pytestmark = pytest.mark.timeout(30)


@pytest.fixture(params=["libyaml", "python"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Both parsers that PyYAML may have."""
    if request.param == "python":
        monkeypatch.setattr(tree, "Loader", yaml.SafeLoader)
    return request.param


def refused(text: str) -> Problem:
    with pytest.raises(InvalidRecipe) as raised:
        parse_document(text, "recipe.yaml")
    assert str(raised.value)
    return raised.value.problems[-1]


def laughs(levels: int, width: int) -> str:
    lines = ["a0: &a0 [lol]"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * width)}]")
    return "\n".join(lines)


def test_a_billion_laughs(parser: str) -> None:
    assert "aliases make this recipe larger" in refused(laughs(10, 10)).message


def test_a_few_laughs_are_fine(parser: str) -> None:
    data = parse_document(laughs(4, 3), "recipe.yaml").data
    assert str(data["a3"]).count("lol") == 27


@pytest.mark.parametrize(
    "text",
    [
        "[" * 1000,
        "[" * 1000 + "]" * 1000,
        "{a: " * 1000 + "}" * 1000,
        "- " * 1000 + "x",
        "\n".join(" " * i + "a:" for i in range(1000)),
        "[" * 200_000,
        "? " * 1000,
    ],
    ids=["open", "lists", "mappings", "dashes", "indented", "huge", "keys"],
)
def test_deep_nesting(text: str, parser: str) -> None:
    assert refused(text).message == "nested over 50 levels deep"


def test_deep_nesting_by_aliases(parser: str) -> None:
    """No line of it is deep."""
    text = "a0: &a0 x\n" + "\n".join(f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 2000))
    problem = refused(text)
    assert problem.message == "nested over 50 levels deep"


@pytest.mark.parametrize("text", ["&a [*a]", "a: &a {b: *a}", "a: &a [{b: [*a]}]", "&a {*a : b}"])
def test_an_alias_into_itself(text: str, parser: str) -> None:
    problem = refused(text)
    assert problem.message == "alias *a refers to what it stands in"
    assert text[problem.mark.column - 1 :].startswith("*a")


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.system [echo]",
        "!!python/name:os.system",
        "!!str 12",
        "!!int '12'",
        "!own x",
        "! 12",
        "!!binary aGk=",
        "!!set {a}",
        "!!omap []",
        "!<tag:yaml.org,2002:int> 1",
    ],
)
@pytest.mark.parametrize("place", ["a: {}", "{{{} : a}}", "- {}", "{}"])
def test_tags(tag: str, place: str, parser: str) -> None:
    problems = parse_document(place.format(tag), "recipe.yaml").problems
    messages = [problem.message for problem in problems]
    assert messages[0].startswith("tags (")
    assert messages[1:] in ([], ["a key must be plain text"])


@pytest.mark.parametrize("text", ["", "\n", "# only a comment\n", "---\n", "--- # nothing\n...\n"])
def test_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(InvalidRecipe) as raised:
        load_recipes(tmp_path / "recipe.yaml").recipes[0]
    assert len(raised.value.problems) == 1


def test_a_long_number_costs_nothing() -> None:
    data = parse_document(f"a: {'9' * 900_000}\nb: 1{'0' * 300}", "recipe.yaml").data
    assert isinstance(data["a"], str)
    assert data["b"] == 10**300


def test_long_lines_are_shown_in_part() -> None:
    line = f"{{x: {'x' * 5000}, a: 1, a: {'x' * 500}}}"
    (problem,) = parse_document(line, "recipe.yaml").problems
    shown = render_problems([problem]).split("\n")
    assert all(len(part) < 130 for part in shown)
    assert "^" in shown[2]
    assert shown[1][shown[2].index("^")] == "a"


RECIPE = """\
version: 1
name: digits
vars: {n: 3}
env: []
model: {frozen_graph: graph.pb, inputs: [x]}
stages:
  - load
  - freeze: {names: graph}
    id: frozen
  - validate: {samples: 3, random: {x: {low: 0.5}}}
    needs: frozen
  - export: "{model}.pb"
"""

PIECES = "- : [ ] { } &a *a ! ' | > # null ${n} ${ {model} load id needs to 1e3 -0 .nan é 💡 ~"
pieces = st.sampled_from(PIECES.split(" "))
spaced = st.sampled_from(["- ", ": ", "\n", "  ", "&a ", "\t"])


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """The recipe with some places cut out and other things put in."""
    text = RECIPE
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 12)))
        text = text[:start] + draw(st.lists(pieces | spaced, max_size=3).map("".join)) + text[end:]
    return text


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "graph.pb").touch()
    (folder / "pyproject.toml").touch()
    return folder


@settings(max_examples=300, deadline=None)
@given(text=damaged() | st.text(max_size=60) | st.lists(pieces | spaced, max_size=30).map("".join))
@example(text=RECIPE)
@example(text="stages: [{load: {}, id: {}}, {needs: 3}, null, [], 4.5, {? [a] : b}]")
@example(text="{version: 1, model: {saved_model: ''}, stages: []}")
@example(text='{version: 1, model: {saved_model: "\\0"}, stages: [load, {export: "a\\0.pb"}]}')
def test_whatever_comes_is_read_or_told(text: str, project: Path) -> None:
    """Never another error, and every place that is told lies in the file."""
    file = project / "recipe.yaml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        load_recipes(file).recipes[0]
    except InvalidRecipe as error:
        assert error.problems
        for problem in error.problems:
            assert problem.mark.line >= 1
            assert problem.mark.column >= 1
            assert problem.mark.length >= 1
            assert "^" in render_problems([problem]) or not problem.source_line
            assert "\x1b" not in render_problems([problem])


def test_the_recipe_that_is_damaged_is_a_good_one(project: Path) -> None:
    (project / "recipe.yaml").write_text(RECIPE)
    assert [item.id for item in load_recipes(project / "recipe.yaml").recipes[0].stages] == [
        "load",
        "frozen",
        "validate",
        "export",
    ]
