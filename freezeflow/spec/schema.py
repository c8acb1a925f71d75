"""The JSON schema of recipes, put together from the stages' own parameters.

Editors complete with it; `freezeflow.spec.recipe` checks with it. There is no ``oneOf`` in it: where
a value may have several forms, ``if`` tells which is meant, so that a mistake is reported for the
form that was written.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from freezeflow.params import schema_of, shorthand_of
from freezeflow.stages.registry import BUILTIN, stage_modules, stage_named
from freezeflow.stages.stage import Choice, Stage
from freezeflow.values import Json, SourceKind

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator

SCHEMA_FILE = Path(__file__).resolve().parent.parent.parent / "schemas" / "recipe.schema.json"

SOURCE_KEYS: tuple[SourceKind, ...] = ("saved_model", "keras", "checkpoint", "frozen_graph")

# What may stand beside the stage in an item of `stages`.
ITEM_KEYS = frozenset(("id", "needs"))

_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$"
_VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"


def recipe_schema(
    *,
    plugins: bool = True,
    detailed: Collection[str] | None = None,
    chosen: Collection[str] | None = None,
) -> dict[str, Json]:
    """The schema (draft 2020-12) of a recipe.

    Args:
        plugins: With the stages of installed plugins; the published file has only our own.
        detailed: Stages whose parameters it holds, by default all of them.
        chosen: Values of parameters that bring others (formats of an export) whose parameters it
            holds beside those of our own; by default all of them.

    Raises:
        UsageError: A plugin's stage cannot be had.
    """
    stages = {
        name: _stage_schema(name, plugins, chosen) if detailed is None or name in detailed else {}
        for name in (stage_modules() if plugins else BUILTIN)
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "freezeflow recipe",
        "type": "object",
        "properties": {
            "version": {"description": "Version of the recipe language.", "enum": [1]},
            "name": {
                "description": "What the recipe is called, and what {model} stands for in paths; by"
                " default the file's name.",
                "type": "string",
                "pattern": _NAME,
            },
            "model": _model_schema(),
            **_VARIABLES,
            "allow_outside": {
                "description": "Outputs may be written outside the project, which is the nearest"
                " folder with .git, pyproject.toml or freezeflow.toml, else the recipe's own.",
                "type": "boolean",
                "default": False,
            },
            "stages": {
                "description": "What is done, in order; each stage gets the model of the one before"
                " unless `needs` says otherwise.",
                "type": "array",
                "minItems": 1,
                "items": _item_schema(stages),
            },
        },
        "required": ["version", "model", "stages"],
        "additionalProperties": False,
    }


@functools.cache
def validator(used: frozenset[str], chosen: frozenset[str]) -> Draft202012Validator:
    """A validator of recipes that use certain stages and formats; others are known by name only.

    Raises:
        UsageError: A plugin's stage cannot be had.
    """
    import jsonschema

    return jsonschema.Draft202012Validator(recipe_schema(detailed=used, chosen=chosen))


def schema_text() -> str:
    """The text of the published schema file."""
    return json.dumps(recipe_schema(plugins=False), indent=2) + "\n"


_VARIABLES: dict[str, Json] = {
    "vars": {
        "description": "Variables for ${name} in any value, with their defaults (empty: it has to be"
        " given); --set name=value overrides one.",
        "type": "object",
        "propertyNames": {"pattern": _VARIABLE},
        "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
    },
    "env": {
        "description": "Environment variables that may be used as ${NAME}; they override `vars`.",
        "type": "array",
        "items": {"type": "string", "pattern": _VARIABLE},
    },
}


def _names(description: str) -> dict[str, Json]:
    """A name or a list of names."""
    return {
        "description": description,
        "type": ["array", "string"],
        "items": {"type": "string", "minLength": 1},
        "minLength": 1,
    }


def _model_schema() -> dict[str, Json]:
    def path(description: str) -> dict[str, Json]:
        return {"description": description, "type": "string", "minLength": 1}

    return {
        "description": "Where the model comes from: one of saved_model, keras, checkpoint and"
        " frozen_graph.",
        "type": "object",
        "properties": {
            "saved_model": path("Folder of a SavedModel."),
            "keras": path("A .keras or .h5 file."),
            "checkpoint": path(
                "Prefix of a checkpoint; its meta graph lies beside it. Beside saved_model or"
                " frozen_graph: the values that are taken for that graph's variables."
            ),
            "frozen_graph": path("A graph file, .pb or .pbtxt."),
            "meta_graph": path("The checkpoint's .meta file, if it has another name."),
            "tags": _names("Tag set of the meta graph; by default `serve`, else the only one."),
            "signatures": {
                **_names(
                    "Which signatures, or `all`; by default serving_default, else the only one."
                ),
                "minItems": 1,
            },
            "inputs": _names("For graphs without signatures: tensors to feed."),
            "outputs": _names("For graphs without signatures: tensors to fetch."),
            "custom_objects": _names("For Keras: modules with the model's own layers."),
            "averages": {
                "description": "Take the moving averages of the variables that have one.",
                "type": "boolean",
                "default": False,
            },
        },
        "additionalProperties": False,
    }


def _item_schema(stages: Mapping[str, Json]) -> dict[str, Json]:
    """A stage's name, or a mapping with the stage as a key beside `id` and `needs`."""
    properties: dict[str, Json] = {
        **stages,
        "id": {
            "description": "What `needs` calls this stage; by default the stage's name.",
            "type": "string",
            "pattern": _NAME,
        },
        "needs": {
            **_names("Ids of the stages that come before; the model comes from the first."),
            "minItems": 1,
        },
    }
    return {
        "if": {"type": "object"},
        "then": {"properties": properties, "additionalProperties": False},
        "else": {"enum": list(stages)},
    }


def params_schema(
    stage: Stage, *, plugins: bool = True, chosen: Collection[str] | None = None
) -> dict[str, Json]:
    """The schema of a stage's parameters as a mapping; `plugins` and `chosen` as for `recipe_schema`.

    Raises:
        UsageError: A plugin's export format cannot be had.
    """
    choice = stage.choice
    if choice is None:
        return schema_of(stage.params)
    names = choice.names() if plugins else choice.builtin
    told = [name for name in names if chosen is None or name in (*choice.builtin, *chosen)]
    field = schema_of(stage.params)["properties"][choice.name]
    return {
        "type": "object",
        "properties": {choice.name: {**field, "enum": list(names)}},
        "allOf": [_branch(stage, choice, name) for name in told],
    }


def _branch(stage: Stage, choice: Choice, name: str) -> dict[str, Json]:
    """The parameters that there are where the choice is `name`."""
    needed = [] if name == stage.usual_choice else [choice.name]
    return {
        "if": {"properties": {choice.name: {"const": name}}, "required": needed},
        "then": schema_of(choice.params(name)),
    }


def _stage_schema(name: str, plugins: bool, chosen: Collection[str] | None) -> dict[str, Json]:
    """A stage's parameters as a mapping, the one that may stand for itself, or nothing."""
    stage = stage_named(name)
    common = schema_of(stage.params)
    shorthand = shorthand_of(stage.params)
    other = {} if shorthand is None else common["properties"][shorthand]
    types = other.get("type", [])
    types = [types] if isinstance(types, str) else types
    return {
        "description": stage.summary,
        "if": {"type": "object"},
        "then": params_schema(stage, plugins=plugins, chosen=chosen),
        "else": {**other, **_or_empty(other, types, empty="required" not in common)},
    }


def _or_empty(other: Mapping[str, Json], types: list[str], *, empty: bool) -> dict[str, Json]:
    if not empty or "null" in types:
        return {"type": types}
    enum = {"enum": [*other["enum"], None]} if "enum" in other else {}
    return {"type": [*types, "null"], **enum}


def main() -> None:
    """Writes the published schema file."""
    SCHEMA_FILE.parent.mkdir(exist_ok=True)
    SCHEMA_FILE.write_text(schema_text(), encoding="utf-8")


if __name__ == "__main__":
    main()
