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
                "description": "What the recipe is called, and what {model} stands for in paths"
                " where there is one model; by default the file's name.",
                "type": "string",
                "pattern": _NAME,
            },
            "model": _model_schema(),
            "models": _models_schema(),
            "matrix": _MATRIX,
            **_VARIABLES,
            "allow_outside": {
                "description": "Outputs may be written outside the project, which is the nearest"
                " folder with .git, pyproject.toml or freezeflow.toml, else the recipe's own.",
                "type": "boolean",
                "default": False,
            },
            "extends": {
                **_names(
                    "Another recipe, or several, of which this one says only what differs. Entries of"
                    " vars, override and blocks are put together; other keys take the place of theirs."
                ),
                "minItems": 1,
            },
            "blocks": {
                "description": "Lists of stages by name; `- use: NAME` in `stages` stands for one.",
                "type": "object",
                "propertyNames": {"pattern": _NAME},
                "additionalProperties": {"type": "array"},
            },
            "override": _override("Stage id to parameters that go before those in `stages`."),
            "stages": {
                "description": "What is done, in order; each stage gets the model of the one before"
                " unless `needs` says otherwise.",
                "type": "array",
                "minItems": 1,
                "items": _item_schema(stages),
            },
        },
        "required": ["version"],
        "additionalProperties": False,
    }


@functools.cache
def validator(used: frozenset[str], chosen: frozenset[str]) -> Draft202012Validator:
    """A validator of recipes that use certain stages and formats; others are known by name only.

    Raises:
        UsageError: A plugin's stage cannot be had.
    """
    import jsonschema

    schema = recipe_schema(detailed=used, chosen=chosen)
    # Parts of recipes are checked, too; `freezeflow.spec.structure` tells what a whole one lacks.
    del schema["required"]
    return jsonschema.Draft202012Validator(schema)


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


_MATRIX: Json = {
    "description": "Names with lists of values: each model is done with every combination of them;"
    " ${name} in any value and {name} in a path stand for the value.",
    "type": "object",
    "propertyNames": {"pattern": _VARIABLE},
    "properties": {
        "exclude": {
            "description": "Combinations to leave out: names with a value each; `model` is a pattern"
            " of models' names.",
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "additionalProperties": {"type": ["string", "number", "boolean"]},
            },
        },
    },
    "additionalProperties": {
        "type": "array",
        "minItems": 1,
        "items": {"type": ["string", "number", "boolean"]},
    },
}


def _override(description: str) -> dict[str, Json]:
    return {"description": description, "type": "object"}


def _names(description: str) -> dict[str, Json]:
    """A name or a list of names."""
    return {
        "description": description,
        "type": ["array", "string"],
        "items": {"type": "string", "minLength": 1},
        "minLength": 1,
    }


def _path(description: str) -> dict[str, Json]:
    return {"description": description, "type": "string", "minLength": 1}


def _paths(description: str) -> dict[str, Json]:
    return {**_names(description), "minItems": 1}


def _model_schema() -> dict[str, Json]:
    return {
        "description": "Where the model comes from: one of saved_model, keras, checkpoint and"
        " frozen_graph.",
        "type": "object",
        "properties": {
            "saved_model": _path("Folder of a SavedModel."),
            "keras": _path("A .keras or .h5 file."),
            "checkpoint": _path(
                "Prefix of a checkpoint; its meta graph lies beside it. Beside saved_model or"
                " frozen_graph: the values that are taken for that graph's variables."
            ),
            "frozen_graph": _path("A graph file, .pb or .pbtxt."),
            **_about_a_model(),
        },
        "additionalProperties": False,
    }


def _about_a_model() -> dict[str, Json]:
    """What may be said of a model wherever it comes from."""
    return {
        "meta_graph": _path("The checkpoint's .meta file, if it has another name."),
        "tags": _names("Tag set of the meta graph; by default `serve`, else the only one."),
        "signatures": {
            **_names("Which signatures, or `all`; by default serving_default, else the only one."),
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
    }


def _models_schema() -> dict[str, Json]:
    """A path or pattern, a group of them with what is said of its models, or a list of these."""
    settings: dict[str, Json] = {
        **_about_a_model(),
        "checkpoint": _path(
            "Prefix of a checkpoint whose values are taken for the variables of the graph."
        ),
        "vars": {
            "description": "Values of variables for these models.",
            "type": "object",
            "additionalProperties": {"type": ["string", "number", "boolean"]},
        },
        "override": _override("Stage id to parameters for these models."),
    }
    group = {
        "include": _paths("Paths of models, or patterns (*, ?, [...], ** for any folders)."),
        "exclude": _paths("Paths or patterns of what is left out of that."),
        "kind": {
            "description": "What they are, where their names do not say it.",
            "enum": list(SOURCE_KEYS),
        },
        "name": {
            "description": "What {model} stands for, made of {match} (what the pattern's wildcards"
            " stand for, the default), {stem}, {parent} and {grandparent}.",
            "type": "string",
            "minLength": 1,
        },
        **settings,
        "overrides": {
            "description": "Pattern of models' names to what holds for those, and goes before what"
            " the group says.",
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "properties": settings,
                "additionalProperties": False,
            },
        },
    }
    item: dict[str, Json] = {
        "if": {"type": "object"},
        "then": {"properties": group, "required": ["include"], "additionalProperties": False},
        "else": {"minLength": 1},
    }
    return {
        "description": "Many models in place of one: a path or a pattern, a mapping, or a list of"
        " these.",
        "type": ["array", "object", "string"],
        "if": {"type": "array"},
        "then": {"items": {"type": ["object", "string"], **item}, "minItems": 1},
        "else": item,
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
        "use": {
            "description": "In place of a stage: the stages of one of the `blocks`.",
            "type": "string",
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
