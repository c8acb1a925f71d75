"""The JSON schema of recipes, put together from the stages' own parameters.

Editors complete with it; `freezeflow.spec.recipe` checks with it. There is no ``oneOf`` in it: where
a value may have several forms, ``if`` tells which is meant, so that a mistake is reported for the
form that was written.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING

from freezeflow.stages.params import schema_of, shorthand_of
from freezeflow.stages.registry import BUILTIN, stage_modules, stage_named
from freezeflow.values import Json, SourceKind

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator

SCHEMA_FILE = Path(__file__).resolve().parent.parent.parent / "schemas" / "recipe.schema.json"

SOURCE_KEYS: tuple[SourceKind, ...] = ("saved_model", "keras", "checkpoint", "frozen_graph")
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"


def recipe_schema(*, plugins: bool = True) -> dict[str, Json]:
    """The schema (draft 2020-12) of a recipe.

    Args:
        plugins: With the stages of installed plugins; the published file has only our own.
    """
    names = list(stage_modules()) if plugins else list(BUILTIN)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "freezeflow recipe",
        "type": "object",
        "properties": {
            "version": {"description": "Version of the recipe language.", "enum": [1]},
            "name": {
                "description": "What the recipe is called, and {model} in paths; by default the"
                " file's name.",
                "type": "string",
                "pattern": NAME,
            },
            "model": _model_schema(),
            "vars": {
                "description": "Variables for ${name} in any value, with their defaults; --set"
                " name=value overrides one.",
                "type": "object",
                "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
            },
            "env": {
                "description": "Environment variables that may be used as ${NAME}.",
                "type": "array",
                "items": {"type": "string"},
            },
            "allow_outside": {
                "description": "Outputs may be written outside the project.",
                "type": "boolean",
                "default": False,
            },
            "stages": {
                "description": "What is done, in order; each stage gets the model of the one before"
                " unless `needs` says otherwise.",
                "type": "array",
                "minItems": 1,
                "items": _item_schema(names),
            },
        },
        "required": ["version", "model", "stages"],
        "additionalProperties": False,
    }


@functools.cache
def validator() -> Draft202012Validator:
    """A compiled validator of `recipe_schema`."""
    import jsonschema

    return jsonschema.Draft202012Validator(recipe_schema())


def schema_text() -> str:
    """The text of the published schema file."""
    return json.dumps(recipe_schema(plugins=False), indent=2) + "\n"


def _strings(description: str) -> dict[str, Json]:
    return {"description": description, "type": "array", "items": {"type": "string"}}


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
            "checkpoint": path("Prefix of a checkpoint; its meta graph lies beside it."),
            "frozen_graph": path("A graph file, .pb or .pbtxt."),
            "meta_graph": path("The checkpoint's .meta file, if it has another name."),
            "tags": _strings("Tag set of the meta graph; by default [serve], else the only one."),
            "signatures": {
                "description": "Which signatures, or [all]; by default serving_default, else the"
                " only one.",
                "type": "array",
                "items": {"type": "string"},
                "minItems": 1,
            },
            "inputs": _strings("For graphs without signatures: tensors to feed."),
            "outputs": _strings("For graphs without signatures: tensors to fetch."),
            "custom_objects": _strings("For Keras: modules with the model's own layers."),
        },
        "additionalProperties": False,
    }


def _item_schema(names: list[str]) -> dict[str, Json]:
    """A stage's name, or a mapping with the stage as a key beside `id` and `needs`."""
    properties: dict[str, Json] = {name: _stage_schema(name) for name in names}
    properties["id"] = {
        "description": "What `needs` calls this stage; by default the stage's name.",
        "type": "string",
        "pattern": NAME,
    }
    properties["needs"] = {
        "description": "Ids of the stages that come before; the model comes from the first.",
        "if": {"type": "array"},
        "then": {"items": {"type": "string"}, "minItems": 1},
        "else": {"type": "string"},
    }
    return {
        "if": {"type": "object"},
        "then": {"properties": properties, "additionalProperties": False},
        "else": {"enum": names},
    }


def _stage_schema(name: str) -> dict[str, Json]:
    stage = stage_named(name)
    whole = schema_of(stage.params)
    shorthand = shorthand_of(stage.params)
    other: dict[str, Json] = {"type": "null"}
    if shorthand is not None:
        short = whole["properties"][shorthand]
        other = short if "required" in whole else {**short, "type": [short["type"], "null"]}
    if "enum" in other and "required" not in whole:
        other = {**other, "enum": [*other["enum"], None]}
    return {
        "description": stage.summary,
        "if": {"type": "object"},
        "then": whole,
        "else": {key: value for key, value in other.items() if key != "default"},
    }
