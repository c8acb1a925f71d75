"""How a stage declares its parameters: a frozen dataclass whose fields are made by `param`.

The dataclass is the only source: the recipe schema, the defaults, the reference page and the
command line's help all come from it. Field types that are understood: bool, int, float, str,
Literal, InputPath, OutputPath, ``tuple[T, ...]``, ``Mapping[str, T]``, ``T | None``, and nested
dataclasses made the same way.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, NewType, TypeVar

from freezeflow.values import Json

T = TypeVar("T")

# A file that the stage reads, in a recipe relative to the recipe's folder; its content's digest is
# part of the step's key.
InputPath = NewType("InputPath", str)

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


def fields_of(params: type[Any]) -> dict[str, tuple[dataclasses.Field[Any], Any]]:
    """Each parameter's field and its type, in order."""
    types = typing.get_type_hints(params)
    return {field.name: (field, types[field.name]) for field in dataclasses.fields(params)}


def shorthand_of(params: type[Any]) -> str | None:
    """The parameter that ``- stage: VALUE`` fills; without a marked one, the only required one."""
    for field in dataclasses.fields(params):
        if field.metadata.get("shorthand"):
            return field.name
    return None


def schema_of(params: type[Any]) -> dict[str, Json]:
    """The JSON schema (draft 2020-12) of a stage's parameters."""
    properties = {}
    required = []
    for name, (field, kind) in fields_of(params).items():
        found = {**_schema(kind), "description": field.metadata["doc"]}
        for bound in ("minimum", "maximum"):
            if field.metadata.get(bound) is not None:
                found[bound] = field.metadata[bound]
        if _is_required(field):
            required.append(name)
        else:
            found["default"] = _to_json(_default(field))
        properties[name] = found
    schema: dict[str, Json] = {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }
    return {**schema, "required": required} if required else schema


def params_from_json(params: type[T], data: Mapping[str, Json]) -> T:
    """The dataclass filled from JSON that its schema allows; what is left out gets its default."""
    known = fields_of(params)
    values = {name: _from_json(known[name][1], value) for name, value in data.items()}
    return params(**values)


def params_to_json(params: Any) -> dict[str, Json]:
    """Every parameter as JSON, defaults filled in, keys in the dataclass's order."""
    return {
        field.name: _to_json(getattr(params, field.name)) for field in dataclasses.fields(params)
    }


def unkeyed(params: type[Any]) -> tuple[str, ...]:
    """The parameters that cannot change the result."""
    fields = dataclasses.fields(params)
    return tuple(f.name for f in fields if not f.metadata.get("affects_result", True))


def paths_in(params: type[Any], data: Mapping[str, Json], marker: Any) -> dict[str, str]:
    """Parameters whose type is `marker` (InputPath, OutputPath) and that are given."""
    return {
        name: data[name]
        for name, (_, kind) in fields_of(params).items()
        if data.get(name) is not None and (kind is marker or marker in typing.get_args(kind))
    }


def _is_required(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


_SIMPLE = {bool: "boolean", int: "integer", float: "number", str: "string"}


def _schema(kind: Any) -> dict[str, Json]:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, NewType):
        return _schema(kind.__supertype__)
    if kind in _SIMPLE:
        return {"type": _SIMPLE[kind]}
    if origin is Literal:
        return {"type": "string", "enum": list(args)}
    if origin is tuple:
        return {"type": "array", "items": _schema(args[0])}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _schema(args[1])}
    if dataclasses.is_dataclass(kind):
        assert isinstance(kind, type)
        return schema_of(kind)
    if type(None) in args:
        (inner,) = (_schema(arg) for arg in args if arg is not type(None))
        if "enum" in inner:
            inner["enum"] = [*inner["enum"], None]
        return {**inner, "type": [inner["type"], "null"]}
    raise TypeError(f"a parameter cannot be of type {kind}")


def _from_json(kind: Any, value: Json) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if value is None:
        return None
    if origin is tuple:
        return tuple(_from_json(args[0], item) for item in value)
    if origin is Mapping:
        return {key: _from_json(args[1], item) for key, item in value.items()}
    if dataclasses.is_dataclass(kind):
        assert isinstance(kind, type)
        return params_from_json(kind, value)
    if type(None) in args:
        return _from_json(next(arg for arg in args if arg is not type(None)), value)
    return float(value) if kind is float else value


def _to_json(value: Any) -> Json:
    if dataclasses.is_dataclass(value):
        return params_to_json(value)
    if isinstance(value, Mapping):
        return {key: _to_json(value[key]) for key in sorted(value)}
    if isinstance(value, tuple):
        return [_to_json(item) for item in value]
    return value
