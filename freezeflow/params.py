"""How stages and export formats declare parameters: a frozen dataclass with fields made by `param`.

The dataclass is the only source: the recipe schema, the defaults, the reference page and the
command line's help all come from it. Field types that are understood: bool, int, float, str,
Literal, InputPath, InputTree, OutputPath, ``tuple[T, ...]``, ``tuple[A, B]``, ``Mapping[str, T]``, unions of
these that JSON can tell apart (``T | None``, ``float | Mapping[str, float]``), and nested
dataclasses made the same way.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, NewType, TypeVar, Union, cast

from freezeflow.values import Json

T = TypeVar("T")

# A file that the stage reads, in a recipe relative to the recipe's folder; its content's digest is
# part of the step's key.
InputPath = NewType("InputPath", str)

# A file or a folder that the stage reads, the same way; of a folder, every file below it counts.
InputTree = NewType("InputTree", str)

# A file that the stage writes, in a recipe relative to the recipe's folder; it may not leave the
# project unless the recipe says so.
OutputPath = NewType("OutputPath", str)


def param(
    doc: str,
    *,
    default: Any = dataclasses.MISSING,
    default_factory: Callable[[], Any] | Any = dataclasses.MISSING,
    minimum: float | None = None,
    maximum: float | None = None,
    shorthand: bool = False,
    affects_result: bool = True,
) -> Any:
    """A field of a stage's ``Params``.

    Args:
        doc: One or two sentences for the schema and the reference page.
        default: Value when the recipe leaves it out; without one the parameter is required.
        default_factory: As for ``dataclasses.field``.
        minimum: Smallest number allowed.
        maximum: Largest number allowed.
        shorthand: ``- stage: VALUE`` in a recipe fills this parameter. At most one per stage.
        affects_result: False for what cannot change the result (a number of threads); such a
            parameter is left out of the step's key.
    """
    metadata = {
        "doc": doc,
        "minimum": minimum,
        "maximum": maximum,
        "shorthand": shorthand,
        "affects_result": affects_result,
    }
    if default_factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=default_factory, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


# ---------------------------------------------------------------- what the dataclass says


class PathParam(NamedTuple):
    """A path among the parameters.

    Args:
        path: Where it stands: the parameter's name, and keys or numbers in it.
        output: Whether it is an OutputPath.
        text: What it says.
        tree: Whether it may be a folder.
    """

    path: tuple[str | int, ...]
    output: bool
    text: str
    tree: bool = False


@functools.cache
def _hints(params: Hashable) -> dict[str, Any]:
    """The types of a dataclass's fields, read once: that takes a while."""
    return typing.get_type_hints(params)


def fields_of(params: type[Any]) -> dict[str, tuple[dataclasses.Field[Any], Any]]:
    """Each parameter's field and its type, in order."""
    hints = _hints(cast(Any, params))
    return {field.name: (field, hints[field.name]) for field in dataclasses.fields(params)}


def shorthand_of(params: type[Any]) -> str | None:
    """The parameter that ``- stage: VALUE`` fills, if there is one."""
    for field in dataclasses.fields(params):
        if field.metadata["shorthand"]:
            return field.name
    return None


def is_required(field: dataclasses.Field[Any]) -> bool:
    """Whether a recipe has to give the parameter."""
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def unkeyed(params: type[Any]) -> tuple[str, ...]:
    """The parameters that cannot change the result."""
    return tuple(f.name for f in dataclasses.fields(params) if not f.metadata["affects_result"])


def schema_of(params: type[Any]) -> dict[str, Json]:
    """The JSON schema (draft 2020-12) of a stage's parameters.

    Raises:
        TypeError: A parameter is of a type that is not understood.
    """
    properties = {}
    for name, (field, kind) in fields_of(params).items():
        bounds = {
            bound: field.metadata[bound]
            for bound in ("minimum", "maximum")
            if field.metadata[bound] is not None
        }
        properties[name] = {"description": field.metadata["doc"], **_schema(kind, bounds)}
        if not is_required(field):
            properties[name]["default"] = _to_json(kind, _default(field))
    required = [name for name, (field, _) in fields_of(params).items() if is_required(field)]
    return {
        "type": "object",
        "properties": properties,
        **({"required": required} if required else {}),
        "additionalProperties": False,
    }


def params_from_json(params: type[T], data: Mapping[str, Json]) -> T:
    """The dataclass filled from JSON; what is left out gets its default.

    Raises:
        ValueError: Something is unknown, missing, or of another type; the message names it.
    """
    filled: T = _record(params, data, params.__qualname__)
    return filled


def params_to_json(params: Any) -> dict[str, Json]:
    """Every parameter as JSON, defaults filled in: equal parameters give equal JSON."""
    return {
        name: _to_json(kind, getattr(params, name))
        for name, (_, kind) in fields_of(type(params)).items()
    }


def paths_in(params: type[Any], data: Mapping[str, Json]) -> tuple[PathParam, ...]:
    """Every path in the parameters' JSON."""
    found: list[PathParam] = []

    def note(param: PathParam) -> str:
        found.append(param)
        return param.text

    with_paths(params, data, note)
    return tuple(found)


def with_paths(
    params: type[Any], data: Mapping[str, Json], change: Callable[[PathParam], str]
) -> dict[str, Json]:
    """The parameters' JSON with every path replaced."""
    kinds = fields_of(params)
    return {name: _walk(kinds[name][1], value, (name,), change) for name, value in data.items()}


# ---------------------------------------------------------------- one type of parameter

_PATHS: tuple[Any, ...] = (InputPath, InputTree, OutputPath)
_WORDS: Mapping[Any, str] = {bool: "boolean", int: "integer", float: "number", str: "string"}


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _members(kind: Any) -> tuple[Any, ...]:
    """The types of a union; none for another type."""
    is_union = typing.get_origin(kind) in (Union, types.UnionType)
    return typing.get_args(kind) if is_union else ()


def _schema(kind: Any, bounds: Mapping[str, float]) -> dict[str, Json]:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind in _PATHS:
        return {"type": "string", "minLength": 1}
    if kind is type(None):
        return {"type": "null"}
    if kind in _WORDS:
        return {"type": _WORDS[kind], **(bounds if kind in (int, float) else {})}
    if origin is Literal:
        return {"type": _WORDS[type(args[0])], "enum": list(args)}
    if origin is tuple:
        return _array_schema(args, bounds)
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _schema(args[1], bounds)}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return schema_of(kind)
    if _members(kind):
        return _union_schema(kind, bounds)
    raise TypeError(f"a parameter cannot be of type {kind}")


def _array_schema(args: tuple[Any, ...], bounds: Mapping[str, float]) -> dict[str, Json]:
    if len(args) == 2 and args[1] is Ellipsis:
        return {"type": "array", "items": _schema(args[0], bounds)}
    return {
        "type": "array",
        "prefixItems": [_schema(arg, bounds) for arg in args],
        "items": False,
        "minItems": len(args),
    }


def _member(kind: Any, value: Json) -> Any:
    """The type of a union that a JSON value is of; None if of none. 3 is an int before a float."""
    fitting = [member for member in _members(kind) if _fits(member, value)]
    return next((member for member in fitting if member is type(value)), next(iter(fitting), None))


def _union_schema(kind: Any, bounds: Mapping[str, float]) -> dict[str, Json]:
    """Every keyword bears on one JSON type only, so those of several types can stand together."""
    merged: dict[str, Json] = {}
    names: list[str] = []
    for schema in (_schema(member, bounds) for member in _members(kind)):
        names.append(schema.pop("type"))
        merged.update(schema)
    if len(set(names)) < len(names):
        raise TypeError(f"JSON cannot tell the types of {kind} apart")
    if "enum" in merged:
        if set(names) - {"string", "null"}:
            raise TypeError(f"a Literal goes with None only, not as in {kind}")
        merged["enum"] = [*merged["enum"], *([None] if "null" in names else [])]
    return {"type": names, **merged}


def _fits(kind: Any, value: Json) -> bool:
    """Whether a value is of a type's JSON type."""
    origin = typing.get_origin(kind)
    if kind is bool or isinstance(value, bool):
        return isinstance(value, bool) and (kind is bool or value in _choices(kind))
    if kind is int:
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if kind is float:
        return isinstance(value, (int, float)) and math.isfinite(value)
    if kind is str or kind in _PATHS:
        return isinstance(value, str)
    if kind is type(None):
        return value is None
    if origin is Literal:
        return value in _choices(kind)
    if origin is tuple:
        args = typing.get_args(kind)
        return isinstance(value, list) and (args[-1] is Ellipsis or len(args) == len(value))
    return isinstance(value, Mapping)


def _choices(kind: Any) -> tuple[Any, ...]:
    return typing.get_args(kind) if typing.get_origin(kind) is Literal else ()


def _from_json(kind: Any, value: Json, where: str) -> Any:
    if _members(kind):
        kind = _member(kind, value)
    if kind is None or not _fits(kind, value):
        raise ValueError(f"{where}: {value!r} is of another type")
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind in (int, float):
        return kind(value)
    if origin is tuple:
        return tuple(
            _from_json(_item_kind(args, i), item, f"{where}[{i}]") for i, item in enumerate(value)
        )
    if origin is Mapping:
        return {key: _from_json(args[1], item, f"{where}.{key}") for key, item in value.items()}
    return _record(kind, value, where) if dataclasses.is_dataclass(kind) else value


def _record(params: Any, data: Mapping[str, Json], where: str) -> Any:
    known = fields_of(params)
    for name in data:
        if name not in known:
            raise ValueError(f"{where} has no parameter {name!r}")
    for name, (field, _) in known.items():
        if is_required(field) and name not in data:
            raise ValueError(f"{where} needs {name!r}")
    values = {
        name: _from_json(known[name][1], value, f"{where}.{name}") for name, value in data.items()
    }
    return params(**values)


def _item_kind(args: tuple[Any, ...], index: int) -> Any:
    return args[0] if args[-1] is Ellipsis else args[index]


def _to_json(kind: Any, value: Any) -> Json:
    for member in _members(kind):
        if _is_a(member, value):
            return _to_json(member, value)
    args = typing.get_args(kind)
    if kind is float:
        return float(value)
    if dataclasses.is_dataclass(value):
        return params_to_json(value)
    if isinstance(value, Mapping):
        return {key: _to_json(args[1], value[key]) for key in sorted(value)}
    if isinstance(value, tuple):
        return [_to_json(_item_kind(args, i), item) for i, item in enumerate(value)]
    return value


def _is_a(kind: Any, value: Any) -> bool:
    """Whether a filled parameter's value belongs to one type of a union."""
    if isinstance(value, tuple):
        return typing.get_origin(kind) is tuple
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return isinstance(value, kind)
    # 3 is an int, and 3.0 a float, where both are possible.
    return type(value) is kind if kind in (int, float) else _fits(kind, value)


def _walk(
    kind: Any, value: Json, path: tuple[str | int, ...], change: Callable[[PathParam], str]
) -> Json:
    if _members(kind):
        kind = _member(kind, value)
    if kind in _PATHS:
        return change(PathParam(path, kind is OutputPath, value, kind is InputTree))
    args = typing.get_args(kind)
    if isinstance(value, list):
        return [_walk(_item_kind(args, i), v, (*path, i), change) for i, v in enumerate(value)]
    if isinstance(value, Mapping):
        return {key: _walk(k, v, (*path, key), change) for key, k, v in _entries(kind, value)}
    return value


def _entries(kind: Any, value: Mapping[str, Json]) -> Iterator[tuple[str, Any, Json]]:
    """Key, type and value of each entry of a mapping or a nested dataclass."""
    for key, item in value.items():
        is_record = dataclasses.is_dataclass(kind)
        yield key, fields_of(kind)[key][1] if is_record else typing.get_args(kind)[1], item
