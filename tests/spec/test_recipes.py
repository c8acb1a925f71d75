"""Recipes, one situation a file: what a good one comes to, what is said about a bad one.

A first line ``# with: --set name=value`` gives values for variables. `--regenerate` writes the
``.expected`` files again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import jsonschema
import pytest
import yaml

from freezeflow.params import schema_of
from freezeflow.plan import encode_plans, make_plan
from freezeflow.spec import tree
from freezeflow.spec.problems import InvalidRecipe, Problem
from freezeflow.spec.recipe import Recipe, load_recipes
from freezeflow.spec.schema import recipe_schema
from freezeflow.stages.registry import stage_named
from freezeflow.values import Json

RECIPES = Path(__file__).parent / "recipes"
POSITIVE = sorted((RECIPES / "positive").glob("*.yaml"))
NEGATIVE = sorted((RECIPES / "negative").glob("*.yaml"))
FILES = (
    "pyproject.toml",
    "model/saved_model.pb",
    "data.npz",
    "digits.npz",
    "model.keras",
    "graph.pb",
    "ckpt/other.meta",
    "zoo/resnet18/saved_model.pb",
    "zoo/resnet50/saved_model.pb",
    "zoo/resnet50/keras_metadata.pb",
    "zoo/old/resnet18/saved_model.pb",
    "zoo/mlp.keras",
    "zoo/.hidden.keras",
    "zoo/notes.txt",
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the recipes speak of."""
    folder = tmp_path / "project"
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("FREEZEFLOW_TEST_SET", "env")
    monkeypatch.delenv("FREEZEFLOW_TEST_NOT_SET", raising=False)
    return folder


def placed(file: Path, project: Path) -> tuple[Path, dict[str, str]]:
    """The recipe copied into the project, and the variables that its first line sets."""
    text = file.read_text(encoding="utf-8")
    (project / file.name).write_text(text, encoding="utf-8")
    first = text.partition("\n")[0]
    words = first.removeprefix("# with:").split() if first.startswith("# with:") else []
    given = [word for word in words if word != "--set"]
    return Path(file.name), dict(word.split("=", 1) for word in given)


def compare(file: Path, text: str, project: Path, request: pytest.FixtureRequest) -> None:
    text = text.replace(str(project), "<project>").replace(str(project.parent), "<parent>")
    expected = file.with_suffix(".expected")
    if request.config.getoption("--regenerate"):
        expected.write_text(text, encoding="utf-8")
    assert text == expected.read_text(encoding="utf-8")


@pytest.mark.parametrize("file", POSITIVE, ids=lambda file: file.stem)
def test_good_recipe(file: Path, project: Path, request: pytest.FixtureRequest) -> None:
    """What it comes to, without what is left at its default."""
    recipe, set_vars = placed(file, project)
    found = [outcome(loaded) for loaded in load_recipes(recipe, set_vars=set_vars).recipes]
    text = json.dumps(found if len(found) > 1 else found[0], indent=1) + "\n"
    compare(file, text, project, request)


def outcome(loaded: Recipe) -> Json:
    source = {key: value for key, value in loaded.source.to_json().items() if value}
    steps = [
        {
            "id": step.id,
            "stage": step.stage,
            "needs": list(step.needs),
            "params": given(step.stage, step.params),
            "reads": {name: str(path) for name, path in step.input_files.items()},
            "writes": [str(path) for path in step.output_files],
        }
        for step in make_plan(loaded).steps
    ]
    return {"name": loaded.name, "source": source, "steps": steps}


def given(stage: str, params: Mapping[str, Json]) -> dict[str, Json]:
    known = schema_of(stage_named(stage).params_for(params))["properties"]
    return {
        k: v for k, v in params.items() if "default" not in known[k] or v != known[k]["default"]
    }


def mistakes(file: Path, project: Path) -> tuple[Problem, ...]:
    recipe, set_vars = placed(file, project)
    with pytest.raises(InvalidRecipe) as raised:
        load_recipes(recipe, set_vars=set_vars).recipes[0]
    return raised.value.problems


@pytest.mark.parametrize("file", NEGATIVE, ids=lambda file: file.stem)
def test_bad_recipe(file: Path, project: Path, request: pytest.FixtureRequest) -> None:
    problems = mistakes(file, project)
    compare(file, f"{InvalidRecipe(problems)}\n", project, request)


@pytest.mark.parametrize("file", NEGATIVE, ids=lambda file: file.stem)
def test_mistakes_have_a_place_and_are_told_once(file: Path, project: Path) -> None:
    problems = mistakes(file, project)
    lines = file.read_text(encoding="utf-8").split("\n")
    for problem in problems:
        assert 1 <= problem.mark.line <= len(lines)
        assert 1 <= problem.mark.column <= len(lines[problem.mark.line - 1]) + 1
        assert problem.source_line == lines[problem.mark.line - 1].rstrip("\n")
    assert len({(problem.mark, problem.message) for problem in problems}) == len(problems)


@pytest.mark.parametrize("file", [*POSITIVE, *NEGATIVE], ids=lambda file: file.stem)
def test_without_the_c_parser(file: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyYAML comes with libyaml's parser or without; nobody should notice."""
    recipe, set_vars = placed(file, project)

    def outcome() -> object:
        try:
            return encode_plans(
                list(map(make_plan, load_recipes(recipe, set_vars=set_vars).recipes))
            )
        except InvalidRecipe as error:
            return error.problems

    with_c = outcome()
    monkeypatch.setattr(tree, "Loader", yaml.SafeLoader)
    assert outcome() == with_c


class _CoreSchema(yaml.SafeLoader):
    """Reads plain scalars as an editor's language server does: by YAML 1.2's core schema."""


_CoreSchema.yaml_implicit_resolvers = {}
for _tag, _pattern in (
    ("null", r"~|null|Null|NULL|"),
    ("bool", r"true|True|TRUE|false|False|FALSE"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"),
):
    _CoreSchema.add_implicit_resolver(  # type: ignore[no-untyped-call]
        f"tag:yaml.org,2002:{_tag}", re.compile(f"({_pattern})$"), None
    )


@pytest.mark.parametrize("file", POSITIVE, ids=lambda file: file.stem)
def test_editors_accept_it(file: Path) -> None:
    """The published schema lets every good recipe pass, variables not filled in aside."""
    text = file.read_text(encoding="utf-8")
    if "${" in text:
        pytest.skip("an editor does not know variables")
    data = yaml.load(text, Loader=_CoreSchema)
    schema = recipe_schema()
    jsonschema.validators.validator_for(schema)(schema).validate(data)
