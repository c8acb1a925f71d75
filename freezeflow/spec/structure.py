"""A recipe against its schema, in words that a person needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from freezeflow.spec.notes import Notes
from freezeflow.spec.problems import did_you_mean
from freezeflow.spec.schema import validator
from freezeflow.spec.tree import Path_
from freezeflow.values import Json

# Keys that have moved or that people look for, and where they are.
_ELSEWHERE = {
    "inputs": "model",
    "outputs": "model",
    "signatures": "model",
    "tags": "model",
    "saved_model": "model",
}


def check_structure(data: Json, notes: Notes) -> None:
    """Notes every place where the recipe does not fit the schema."""
    for error in validator().iter_errors(data):
        for leaf in _leaves(error):
            _note(leaf, notes)
    stages = data.get("stages") if isinstance(data, dict) else None
    for index, item in enumerate(stages if isinstance(stages, list) else []):
        if isinstance(item, dict):
            _check_one_stage(item, ("stages", index), notes)


def _leaves(error: Any) -> Iterator[Any]:
    """The errors under an error; ``if`` descends without a level of its own."""
    if error.context:
        for inner in error.context:
            yield from _leaves(inner)
    else:
        yield error


def _note(error: Any, notes: Notes) -> None:
    path: Path_ = tuple(error.absolute_path)
    tell = _TELLERS.get(error.validator)
    if tell is None:
        notes.add(path, error.message)
    else:
        tell(error, path, notes)


def _unknown_keys(error: Any, path: Path_, notes: Notes) -> None:
    known = error.schema.get("properties", {})
    for key in error.instance:
        if key in known:
            continue
        hint = did_you_mean(key, known)
        if not hint.startswith("Did") and path == () and key in _ELSEWHERE:
            hint = f"It belongs under `{_ELSEWHERE[key]}`."
        notes.add((*path, key), f"unknown {_role(path)} {key!r}", hint, key=True)


def _role(path: Path_) -> str:
    if path == ("model",):
        return "key of model"
    if len(path) == 2 and path[0] == "stages":
        return "stage"
    if len(path) >= 3 and path[0] == "stages":
        return f"parameter of {path[2]}"
    return "key"


def _wrong_type(error: Any, path: Path_, notes: Notes) -> None:
    wanted = error.validator_value
    wanted = [wanted] if isinstance(wanted, str) else wanted
    words = " or ".join(_TYPE_WORDS[kind] for kind in wanted)
    message = f"{_named(path)} must be {words}, not {_shown(error.instance)}"
    hint = ""
    if error.instance is None and "null" not in wanted:
        hint = "Give it a value, or leave it out."
    notes.add(path, message, hint)


_TYPE_WORDS = {
    "object": "a mapping",
    "array": "a list",
    "string": "a string",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "empty",
}


def _shown(value: Json) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "empty"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return repr(value) if isinstance(value, str) else str(value)


def _named(path: Path_) -> str:
    for part in reversed(path):
        if isinstance(part, str):
            index = path[path.index(part) + 1 :]
            return part + "".join(f"[{i}]" for i in index)
    return f"item {path[-1]}" if path else "the recipe"


def _not_one_of(error: Any, path: Path_, notes: Notes) -> None:
    known = [str(word) for word in error.validator_value if word is not None]
    if len(path) == 2 and path[0] == "stages":
        if not isinstance(error.instance, str):
            notes.add(path, f"a stage is a name or a mapping, not {_shown(error.instance)}")
            return
        notes.add(path, f"unknown stage {error.instance!r}", did_you_mean(error.instance, known))
        return
    hint = did_you_mean(str(error.instance), known)
    listed = ", ".join(known)
    message = f"{_named(path)} must be {listed}" if len(known) == 1 else f"{_named(path)} must be one of {listed}"
    notes.add(path, f"{message}, not {_shown(error.instance)}", hint if hint.startswith("Did") else "")


def _missing_keys(error: Any, path: Path_, notes: Notes) -> None:
    for key in error.validator_value:
        if key not in error.instance:
            at_key = bool(path)
            what = f"{path[-1]} needs" if path and isinstance(path[-1], str) else "the recipe needs"
            doc = error.schema["properties"][key].get("description", "")
            notes.add(path, f"{what} {key!r}", doc, key=at_key)


def _out_of_range(error: Any, path: Path_, notes: Notes) -> None:
    words = {"minimum": "at least", "maximum": "at most"}[error.validator]
    notes.add(path, f"{_named(path)} must be {words} {error.validator_value}, not {error.instance}")


def _too_few(error: Any, path: Path_, notes: Notes) -> None:
    notes.add(path, f"{_named(path)} must not be empty")


def _bad_name(error: Any, path: Path_, notes: Notes) -> None:
    message = f"{_named(path)} {error.instance!r} is no name"
    notes.add(path, message, "Use letters, digits, '_', '.' and '-', a letter or digit first.")


_TELLERS: Mapping[str, Callable[[Any, Path_, Notes], None]] = {
    "additionalProperties": _unknown_keys,
    "type": _wrong_type,
    "enum": _not_one_of,
    "required": _missing_keys,
    "minimum": _out_of_range,
    "maximum": _out_of_range,
    "minItems": _too_few,
    "minLength": _too_few,
    "pattern": _bad_name,
}


def _check_one_stage(item: Mapping[str, Json], path: Path_, notes: Notes) -> None:
    stages = [key for key in item if key not in ("id", "needs")]
    if len(stages) > 1:
        first, second = stages[:2]
        message = f"one item holds one stage; here are {' and '.join(map(repr, stages))}"
        notes.add((*path, second), message, f"Start a new item with `- {second}`.", key=True)
    elif not stages:
        notes.add(path, "the item names no stage", "Write it as `- stage` or `- stage: {...}`.")


