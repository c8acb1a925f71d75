"""What a stage's parameter class says: schema, JSON there and back, paths."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any, Literal

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freezeflow.params import (
    InputPath,
    OutputPath,
    PathParam,
    param,
    params_from_json,
    params_to_json,
    paths_in,
    schema_of,
    shorthand_of,
    unkeyed,
    with_paths,
)
from freezeflow.stages.registry import BUILTIN, stage_named


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    file: InputPath | None = param("A file.", default=None)
    low: float = param("A bound.", default=0.0, maximum=10)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Params:
    to: OutputPath = param("Where to.", shorthand=True)
    count: int = param("How many.", default=1, minimum=1)
    level: Literal["a", "b"] = param("Which.", default="a")
    choice: Literal["x", "y"] | None = param("Perhaps one.", default=None)
    names: tuple[str, ...] = param("Names.", default=())
    pair: tuple[int, float] = param("Two.", default=(1, 2.0))
    files: tuple[InputPath, ...] = param("Files.", default=())
    inner: Inner = param("Nested.", default_factory=Inner)
    table: Mapping[str, Inner] = param("Nested, by name.", default_factory=dict)
    tolerance: float | Mapping[str, float] = param("One or one each.", default=0.5)
    bind: Mapping[str, bool | int | float | str] = param("Values.", default_factory=dict)
    threads: int = param("No matter.", default=1, affects_result=False)


floats = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(max_size=5)
inners = st.builds(Inner, file=st.none() | texts, low=floats)
filled = st.builds(
    Params,
    to=texts,
    count=st.integers(),
    level=st.sampled_from(["a", "b"]),
    choice=st.sampled_from(["x", "y", None]),
    names=st.lists(texts, max_size=3).map(tuple),
    pair=st.tuples(st.integers(), floats),
    files=st.lists(texts, max_size=3).map(tuple),
    inner=inners,
    table=st.dictionaries(texts, inners, max_size=3),
    tolerance=floats | st.dictionaries(texts, floats, max_size=3),
    bind=st.dictionaries(texts, st.booleans() | st.integers() | floats | texts, max_size=4),
    threads=st.integers(),
)


@given(filled)
def test_json_there_and_back(params: Params) -> None:
    data = json.loads(json.dumps(params_to_json(params)))
    assert data == params_to_json(params)
    back = params_from_json(Params, data)
    assert back == params
    # Equality takes True, 1 and 1.0 for the same; the types have to come back, too.
    assert repr(params_to_json(back)) == repr(params_to_json(params))


@given(filled)
def test_the_order_of_mappings_does_not_matter(params: Params) -> None:
    turned = dataclasses.replace(
        params,
        table=dict(reversed(params.table.items())),
        bind=dict(reversed(params.bind.items())),
    )
    assert json.dumps(params_to_json(turned)) == json.dumps(params_to_json(params))


def test_defaults_are_filled_in() -> None:
    assert params_to_json(params_from_json(Params, {"to": "x"})) == {
        "to": "x",
        "count": 1,
        "level": "a",
        "choice": None,
        "names": [],
        "pair": [1, 2.0],
        "files": [],
        "inner": {"file": None, "low": 0.0},
        "table": {},
        "tolerance": 0.5,
        "bind": {},
        "threads": 1,
    }


def test_numbers_get_the_type_of_their_parameter() -> None:
    data = {"to": "x", "count": 3.0, "tolerance": 1, "pair": [2.0, 3], "bind": {"a": 1, "b": 1.0}}
    params = params_from_json(Params, data)
    found = [params.count, params.tolerance, *params.pair, *params.bind.values()]
    assert [(type(value), value) for value in found] == [
        (int, 3),
        (float, 1.0),
        (int, 2),
        (float, 3.0),
        (int, 1),
        (float, 1.0),
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "Params needs 'to'"),
        ({"to": "x", "cuont": 1}, "Params has no parameter 'cuont'"),
        ({"to": 3}, "Params.to: 3 is of another type"),
        ({"to": None}, "Params.to: None is of another type"),
        ({"to": "x", "count": True}, "Params.count: True is of another type"),
        ({"to": "x", "count": 1.5}, "Params.count: 1.5 is of another type"),
        ({"to": "x", "count": "1"}, "Params.count: '1' is of another type"),
        ({"to": "x", "level": "c"}, "Params.level: 'c' is of another type"),
        ({"to": "x", "names": "a"}, "Params.names: 'a' is of another type"),
        ({"to": "x", "names": ["a", 1]}, "Params.names[1]: 1 is of another type"),
        ({"to": "x", "pair": [1]}, "Params.pair: [1] is of another type"),
        ({"to": "x", "inner": {"low": "0"}}, "Params.inner.low: '0' is of another type"),
        ({"to": "x", "table": {"k": {"lwo": 0}}}, "Params.table.k has no parameter 'lwo'"),
        ({"to": "x", "tolerance": float("nan")}, "Params.tolerance: nan is of another type"),
        ({"to": "x", "bind": {"a": None}}, "Params.bind.a: None is of another type"),
    ],
)
def test_what_does_not_fit_is_refused(data: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        params_from_json(Params, data)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | floats | st.sampled_from(["a", "x", "c", "", "z"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
VALIDATOR = jsonschema.Draft202012Validator(schema_of(Params))
fields = [field.name for field in dataclasses.fields(Params)]


@given(st.sampled_from(fields), values)
def test_the_schema_and_the_reader_agree(name: str, value: Any) -> None:
    """What the schema takes can be read, and what it refuses cannot, or is out of bounds."""
    data = {"to": "x", name: value}
    errors = list(VALIDATOR.iter_errors(data))
    try:
        params_from_json(Params, data)
    except ValueError:
        assert errors
    else:
        assert all(e.validator in ("minimum", "maximum", "minLength") for e in errors)


def test_schema() -> None:
    found = schema_of(Params)
    properties = found["properties"]
    assert found["required"] == ["to"]
    assert found["additionalProperties"] is False
    assert properties["count"] == {
        "description": "How many.",
        "type": "integer",
        "minimum": 1,
        "default": 1,
    }
    assert properties["choice"]["enum"] == ["x", "y", None]
    assert properties["choice"]["type"] == ["string", "null"]
    assert properties["inner"]["properties"]["low"]["maximum"] == 10
    assert properties["inner"]["default"] == {"file": None, "low": 0.0}
    assert properties["tolerance"]["type"] == ["number", "object"]
    jsonschema.Draft202012Validator.check_schema(found)


@pytest.mark.parametrize(
    "kind", [bytes, set[str], list[int], tuple[int, ...] | tuple[str, ...], Literal["a"] | int, Any]
)
def test_types_that_are_not_understood(kind: Any) -> None:
    made = dataclasses.make_dataclass("Made", [("field", kind, param("Doc."))])
    with pytest.raises(TypeError, match=r"type|Literal"):
        schema_of(made)


def test_paths_are_found_wherever_they_stand() -> None:
    data = {
        "to": "out.pb",
        "names": ["no/path"],
        "files": ["a", "b"],
        "inner": {"file": "c"},
        "table": {"k": {"file": "d"}, "l": {"file": None}},
    }
    assert paths_in(Params, data) == (
        PathParam(("to",), True, "out.pb"),
        PathParam(("files", 0), False, "a"),
        PathParam(("files", 1), False, "b"),
        PathParam(("inner", "file"), False, "c"),
        PathParam(("table", "k", "file"), False, "d"),
    )
    changed = with_paths(Params, data, lambda found: found.text.upper())
    assert changed == {
        "to": "OUT.PB",
        "names": ["no/path"],
        "files": ["A", "B"],
        "inner": {"file": "C"},
        "table": {"k": {"file": "D"}, "l": {"file": None}},
    }


def test_marks_of_fields() -> None:
    assert shorthand_of(Params) == "to"
    assert shorthand_of(Inner) is None
    assert unkeyed(Params) == ("threads",)


@pytest.mark.parametrize("name", BUILTIN)
def test_conformance_of_every_stage(name: str) -> None:
    """A stage's parameters have a schema, sound defaults, and one shorthand that is no mapping."""
    params = stage_named(name).params
    assert dataclasses.is_dataclass(params)
    schema = schema_of(params)
    jsonschema.Draft202012Validator.check_schema(schema)
    defaults = {
        key: value["default"] for key, value in schema["properties"].items() if "default" in value
    }
    given = {**dict.fromkeys(schema.get("required", ()), "x.pb"), **defaults}
    jsonschema.Draft202012Validator(schema).validate(given)
    assert params_to_json(params_from_json(params, given)) == given
    shorthands = [f.name for f in dataclasses.fields(params) if f.metadata["shorthand"]]
    assert len(shorthands) <= 1
    assert all("object" not in schema["properties"][key]["type"] for key in shorthands)
