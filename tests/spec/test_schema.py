"""The schema: published as it is now, itself valid, and telling editors all that they show."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from freezeflow.params import fields_of
from freezeflow.spec.schema import SCHEMA_FILE, recipe_schema, schema_text
from freezeflow.stages.registry import BUILTIN, stage_named

SCHEMA = recipe_schema(plugins=False)


def test_the_published_file_is_up_to_date() -> None:
    assert SCHEMA_FILE.read_text(encoding="utf-8") == schema_text(), "run `make docs`"


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_it_has_no_walls() -> None:
    """One form of a value is chosen by its type, so that a mistake is told for that form only."""
    text = json.dumps(SCHEMA)
    assert '"oneOf"' not in text
    assert '"anyOf"' not in text


def described(schema: Any, path: str = "") -> Iterator[tuple[str, str | None]]:
    """Every key that the schema knows, with its description."""
    if not isinstance(schema, dict):
        return
    for key, value in schema.get("properties", {}).items():
        yield f"{path}/{key}", value.get("description")
        yield from described(value, f"{path}/{key}")
    for part in ("then", "else", "items", "additionalProperties"):
        yield from described(schema.get(part), path)
    for part in schema.get("allOf", ()):
        yield from described(part, path)


def test_every_key_is_described() -> None:
    found = dict(described(SCHEMA))
    assert "/stages/export/to" in found
    assert "/stages/validate/random/low" in found
    assert [key for key, text in found.items() if not text or not text.endswith(".")] == []


@pytest.mark.parametrize("name", BUILTIN)
def test_every_parameter_is_there_with_its_default(name: str) -> None:
    stage = stage_named(name)
    item = SCHEMA["properties"]["stages"]["items"]["then"]["properties"][name]["then"]
    found = {"": item} if stage.choice is None else branches(item)
    for choice, schema in found.items():
        params = stage.params_for({stage.choice.name: choice} if stage.choice else {})
        assert list(schema["properties"]) == list(fields_of(params))
        without = {key for key, value in schema["properties"].items() if "default" not in value}
        assert without == set(schema.get("required", []))


def branches(schema: Any) -> dict[str, Any]:
    """The parameters for each value of the parameter that brings others."""
    return {
        branch["if"]["properties"]["format"]["const"]: branch["then"] for branch in schema["allOf"]
    }


def test_what_editors_complete() -> None:
    items = SCHEMA["properties"]["stages"]["items"]
    assert items["else"]["enum"] == list(BUILTIN)
    assert set(items["then"]["properties"]) == {*BUILTIN, "id", "needs", "use"}
    level = items["then"]["properties"]["validate"]["then"]["properties"]["level"]
    assert level["enum"] == ["exact", "served"]


@pytest.mark.parametrize(
    ("item", "fits"),
    [
        ("freeze", True),
        ({"freeze": None}, True),
        ({"freeze": {}}, True),
        ({"export": "x.pb"}, True),
        ({"export": None}, False),
        ({"export": {"to": "x.pb"}, "id": "a", "needs": "freeze"}, True),
        ({"export": {"to": "x.pb"}, "needs": ["freeze", "b"]}, True),
        ({"export": {"to": "x.pb"}, "needs": []}, False),
        ({"export": {"to": "x.pb", "devices": True}}, True),
        ({"export": {"to": "x", "format": "saved_model", "devices": True}}, True),
        ({"export": {"to": "x", "format": "melted"}}, False),
        ({"strip": ["Assert"]}, True),
        ({"strip": "Assert"}, False),
        ({"validate": "served"}, True),
        ({"validate": None}, True),
        ({"validate": "often"}, False),
        ({"validate": {"samples": None}}, True),
        ({"fold": 3}, False),
        ("melt", False),
        (3, False),
    ],
)
def test_forms_of_an_item(item: object, fits: bool) -> None:
    recipe = {"version": 1, "model": {"saved_model": "m"}, "stages": ["load", item]}
    assert jsonschema.Draft202012Validator(SCHEMA).is_valid(recipe) is fits
