"""A recipe against its schema, in words that a person needs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from freezeflow.params import fields_of
from freezeflow.spec.notes import Notes
from freezeflow.spec.problems import shown
from freezeflow.spec.scalars import parse_scalar
from freezeflow.spec.schema import ITEM_KEYS, recipe_schema, validator
from freezeflow.spec.tree import Path_, walk
from freezeflow.stages.registry import stage_modules, stage_named
from freezeflow.stages.stage import Stage
from freezeflow.suggestions import did_you_mean, near_miss
from freezeflow.values import Json

# Keys that people look for at the top, and where they are.
_UNDER_MODEL = frozenset(
    (
        "inputs",
        "outputs",
        "signatures",
        "tags",
        "saved_model",
        "keras",
        "checkpoint",
        "frozen_graph",
    )
)

_NAME_HINT = "Use at most 100 letters, digits, '_', '.' and '-', a letter or digit first."

# What YAML 1.1 took for booleans.
_OLD_BOOLEANS = frozenset(("yes", "no", "on", "off", "y", "n"))

_TYPE_WORDS = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "empty",
}


def check_required(data: Mapping[str, Json], notes: Notes) -> None:
    """Notes what a recipe lacks at its top."""
    known = recipe_schema(detailed=())["properties"]
    meant = {near_miss(name, known) for name in data if name not in known}
    for key in ("version", "model", "stages"):
        other = "models" if key == "model" else key
        if not {key, other} & (data.keys() | meant):
            notes.add((), f"the recipe needs {shown(key)}", known[key]["description"])
    if "model" in data and "models" in data:
        message = "a recipe has one `model` or many `models`, not both"
        notes.add(("models",), message, "Take one of them out.", key=True)


def check_structure(data: Json, notes: Notes) -> None:
    """Notes every place where a recipe, or a part of its top-level keys, does not fit the schema."""
    _check_numbers(data, notes)
    used = used_stages(data)
    errors = list(validator(used, _chosen(data, used)).iter_errors(data))
    # A value of the wrong type breaks other rules, too; one mistake is told once.
    mistyped = {tuple(error.absolute_path) for error in errors if error.validator == "type"}
    for error in errors:
        path: Path_ = tuple(error.absolute_path)
        if error.validator == "type" or path not in mistyped:
            _TELLERS[str(error.validator)](error, path, notes)
    for index, item in enumerate(_items(data)):
        if isinstance(item, dict):
            _check_one_stage(item, ("stages", index), notes)


def used_stages(data: Json) -> frozenset[str]:
    """Names of the stages that a recipe uses; unknown ones are left out."""
    named: set[str] = set()
    for item in _items(data):
        named.update([item] if isinstance(item, str) else item if isinstance(item, dict) else [])
    return frozenset(named & stage_modules().keys())


def _chosen(data: Json, used: Collection[str]) -> frozenset[str]:
    """What a recipe says for parameters that bring others: the formats of its exports."""
    choices = [(name, choice) for name in used if (choice := stage_named(name).choice)]
    bodies = [
        (item.get(name), choice.name)
        for item in _items(data)
        if isinstance(item, dict)
        for name, choice in choices
    ]
    values = [body.get(key) for body, key in bodies if isinstance(body, dict)]
    return frozenset(value for value in values if isinstance(value, str))


def _items(data: Json) -> list[Json]:
    items = data.get("stages") if isinstance(data, dict) else None
    return items if isinstance(items, list) else []


def _check_numbers(data: Json, notes: Notes) -> None:
    for path, value in walk(data):
        if isinstance(value, float) and not math.isfinite(value):
            notes.add(path, f"{_named(path)} must be a finite number")
        elif type(value) is int and not -(2**63) <= value < 2**63:
            notes.add(path, f"{_named(path)} is a number of more than 64 bits")


def _check_one_stage(item: Mapping[str, Json], path: Path_, notes: Notes) -> None:
    stages = [key for key in item if key in stage_modules()]
    if len(stages) > 1:
        first, second = stages[:2]
        message = f"an item holds one stage; this one has {shown(first)} and {shown(second)}"
        notes.add((*path, second), message, f"Begin a new item: `- {second}`.", key=True)
    elif not item.keys() - ITEM_KEYS:
        notes.add(path, "the item names no stage", "Write `- stage` or `- stage: {...}`.")


# ---------------------------------------------------------------- what each rule says


def _unknown_keys(error: Any, path: Path_, notes: Notes) -> None:
    for key in error.instance:
        if key not in error.schema["properties"]:
            what, hint = _unknown_key(key, error, path)
            notes.add((*path, key), f"unknown {what} {shown(key)}", hint, key=True)


def _unknown_key(key: str, error: Any, path: Path_) -> tuple[str, str]:
    """What an unknown key was meant as, and a hint."""
    known = error.schema["properties"]
    if path == ():
        under_model = key in _UNDER_MODEL and not near_miss(key, known)
        return "key", "It belongs under `model`." if under_model else did_you_mean(key, known)
    if path[0] != "stages":
        return f"key of {_named(path)}", did_you_mean(key, known)
    if len(path) > 2:
        nested = "" if len(path) == 3 else f"{_named(path[2:])} of "
        hint = did_you_mean(key, known)
        if not nested:
            hint = _belongs(key, error.instance, stage_named(str(path[2]))) or hint
        return f"parameter of {nested}{path[2]}", hint
    stage = next((name for name in error.instance if name in stage_modules()), None)
    if stage is None:
        return "stage", did_you_mean(key, known.keys() - ITEM_KEYS)
    if key in {field.name for field in dataclasses.fields(stage_named(stage).params)}:
        return "key", f"It is a parameter of {stage}: indent it further, under `{stage}:`."
    return f"key beside {stage}", did_you_mean(key, ITEM_KEYS)


def _belongs(key: str, body: Mapping[str, Json], stage: Stage) -> str:
    """A hint at the other choices that the parameter belongs to; empty where there are none."""
    choice = stage.choice
    if choice is None:
        return ""
    owners = [name for name in choice.builtin if key in fields_of(choice.params(name))]
    if not owners:
        return ""
    chosen = body.get(choice.name, stage.usual_choice)
    return f"It belongs to {choice.name} {' and '.join(owners)}; this is {chosen}."


def _wrong_type(error: Any, path: Path_, notes: Notes) -> None:
    wanted = error.validator_value
    wanted = [wanted] if isinstance(wanted, str) else wanted
    value = error.instance
    is_stage = len(path) == 3 and path[0] == "stages" and path[2] not in ITEM_KEYS
    if is_stage and value is None:
        return  # what a stage without parameters lacks is told when they are filled in
    if is_stage:
        wanted = [*wanted, "object"]
    words = " or ".join(_TYPE_WORDS[kind] for kind in wanted if kind != "null") or "empty"
    what = f"parameters of {path[2]}" if is_stage else _named(path)
    hint = _type_hint(value, wanted, notes.document.scalars.get(path))
    notes.add(path, f"{what} must be {words}, not {_described(value)}", hint)


def _type_hint(value: Json, wanted: list[str], written: Any) -> str:
    if written is None:
        return ""
    if "${" in written.text:
        in_quotes = written.quoted and "string" not in wanted
        return (
            "In quotes it is text: write ${...} without them, on its own line." if in_quotes else ""
        )
    if value is None:
        return "Give it a value, or leave it out."
    if "boolean" in wanted and str(value).lower() in _OLD_BOOLEANS:
        return "YAML 1.2 knows only true and false."
    if "string" in wanted and not isinstance(value, str):
        return f'Write it in quotes: "{written.text}".'
    if {"integer", "number"} & set(wanted) and isinstance(value, str) and written.quoted:
        is_number = isinstance(parse_scalar(value), (int, float))
        return "Take the quotes away." if is_number else ""
    if "array" in wanted:
        return f"Write it as a list: [{written.text}]." if len(written.text) < 40 else ""
    return ""


def _not_one_of(error: Any, path: Path_, notes: Notes) -> None:
    known = [str(word) for word in error.validator_value if word is not None]
    value = error.instance
    if len(path) == 2 and path[0] == "stages":
        if isinstance(value, str):
            notes.add(path, f"unknown stage {shown(value)}", did_you_mean(value, known))
        else:
            message = f"a stage is a name or a mapping, not {_described(value)}"
            notes.add(path, message, "Write `- stage` or `- stage: {...}`.")
        return
    is_text = isinstance(value, str)
    near = near_miss(value, known) if is_text and value not in known else None
    choice = known[0] if len(known) == 1 else f"one of {', '.join(known)}"
    hint = f"Did you mean {near!r}?" if near else ""
    if is_text and parse_scalar(value) in error.validator_value:
        hint = "Take the quotes away."
    if path == ("version",) and type(value) is int:
        hint = "Newer versions of the language need a newer freezeflow."
    notes.add(path, f"{_named(path)} must be {choice}, not {_described(value)}", hint)


def _missing_keys(error: Any, path: Path_, notes: Notes) -> None:
    what = next((str(part) for part in reversed(path) if isinstance(part, str)), "the recipe")
    known = error.schema["properties"]
    misspelt = {near_miss(key, known) for key in error.instance if key not in known}
    for key in error.validator_value:
        if key not in error.instance and key not in misspelt:
            doc = error.schema["properties"][key].get("description", "")
            notes.add(path, f"{what} needs {shown(key)}", doc, key=bool(path))


def _out_of_range(error: Any, path: Path_, notes: Notes) -> None:
    words = {"minimum": "at least", "maximum": "at most"}[error.validator]
    bound = error.validator_value
    notes.add(path, f"{_named(path)} must be {words} {bound}, not {error.instance}")


def _wrong_count(error: Any, path: Path_, notes: Notes) -> None:
    count = len(error.schema.get("prefixItems", ()))
    if count:
        message = f"{_named(path)} must have {count} values, not {len(error.instance)}"
        notes.add(path, message)
    else:
        notes.add(path, f"{_named(path)} must not be empty")


def _bad_name(error: Any, path: Path_, notes: Notes) -> None:
    if "propertyNames" in error.absolute_schema_path:
        message = f"{shown(error.instance)} is no name of a variable"
        hint = "Use letters, digits and '_', a letter or '_' first."
        notes.add((*path, error.instance), message, hint, key=True)
        return
    message = f"{_named(path)} {shown(error.instance)} is no name"
    notes.add(path, message, _NAME_HINT)


_TELLERS: Mapping[str, Callable[[Any, Path_, Notes], None]] = {
    "additionalProperties": _unknown_keys,
    "type": _wrong_type,
    "enum": _not_one_of,
    "required": _missing_keys,
    "minimum": _out_of_range,
    "maximum": _out_of_range,
    "minItems": _wrong_count,
    "items": _wrong_count,
    "minLength": _wrong_count,
    "pattern": _bad_name,
}


# ---------------------------------------------------------------- words


def _named(path: Path_) -> str:
    """What a value is called: its key, with the numbers of lists behind."""
    keys = [place for place, part in enumerate(path) if isinstance(part, str)]
    if not keys:
        return "the recipe"
    return f"{path[keys[-1]]}{''.join(f'[{number}]' for number in path[keys[-1] + 1 :])}"


def _described(value: Json) -> str:
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (Mapping, list)):
        return "a mapping" if isinstance(value, Mapping) else "a list"
    return shown(value) if isinstance(value, str) else str(value)
