"""Writes what is generated from the stages' parameters: the recipe schema and the reference pages.

Run it as ``python -m tools.make_reference`` (``make docs``). In the pages only what stands between the
marks is written; the rest is prose.
"""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from freezeflow.params import fields_of, is_required, shorthand_of
from freezeflow.spec import schema
from freezeflow.stages.registry import BUILTIN, stage_named
from freezeflow.stages.stage import Stage

_DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = _DOCS / "recipes.md"
MANY_PAGE = _DOCS / "batch.md"
PAGES = (PAGE, MANY_PAGE)

_PART = re.compile(r"(<!-- begin (\w+), generated -->\n).*?(<!-- end \2 -->)", re.DOTALL)

_TYPES = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "null": "empty",
}


def page(before: str) -> str:
    """A reference page with its generated parts as they should be."""

    def part(match: re.Match[str]) -> str:
        return f"{match[1]}\n{_PARTS[match[2]]()}\n{match[3]}"

    return _PART.sub(part, before)


def _top() -> str:
    return _table(schema.recipe_schema(plugins=False))


def _model() -> str:
    return _table(schema.recipe_schema(plugins=False)["properties"]["model"])


def _models() -> str:
    models = schema.recipe_schema(plugins=False)["properties"]["models"]
    return _table(models["else"]["then"])


def _stages() -> str:
    return "\n".join(_stage(stage_named(name)) for name in BUILTIN)


_PARTS: Mapping[str, Callable[[], str]] = {
    "top": _top,
    "model": _model,
    "models": _models,
    "stages": _stages,
}


def _stage(stage: Stage) -> str:
    found = schema.schema_of(stage.params)
    lines = [f"### {stage.name}", "", stage.summary, ""]
    notes = list(_notes(stage))
    if notes:
        lines += [" ".join(notes), ""]
    lines.append(_table(found))
    lines += _nested(stage.params, ())
    if stage.choice is not None:
        for name in stage.choice.builtin:
            lines += _chosen(stage, name)
    return "\n".join(lines)


def _nested(params: type[Any], known: Collection[str]) -> list[str]:
    """The tables of what stands inside parameters, but for the known ones."""
    lines = []
    for name, (_, kind) in fields_of(params).items():
        for record in [] if name in known else _records(kind):
            whose = "Each value of" if typing.get_origin(kind) is Mapping else "Inside"
            lines += [f"{whose} `{name}`:", "", _table(schema.schema_of(record))]
            lines += _nested(record, ())
    return lines


def _chosen(stage: Stage, name: str) -> list[str]:
    """What one value of a stage's choice brings: an export format's own parameters."""
    assert stage.choice is not None
    params = stage.choice.params(name)
    common = fields_of(stage.params)
    found = schema.schema_of(params)
    own = {key: value for key, value in found["properties"].items() if key not in common}
    title = f"#### {stage.name}: {stage.choice.name} {name}"
    table = _table({**found, "properties": own}) if own else "No further parameters.\n"
    return [title, "", stage.choice.summary(name), "", table, *_nested(params, common)]


def _notes(stage: Stage) -> Iterator[str]:
    short = shorthand_of(stage.params)
    if short is not None:
        yield f"`- {stage.name}: VALUE` is short for `- {stage.name}: {{{short}: VALUE}}`."
    if any(is_required(field) for field, _ in fields_of(stage.params).values()):
        required = [n for n, (field, _) in fields_of(stage.params).items() if is_required(field)]
        yield f"It needs {', '.join(f'`{name}`' for name in required)}."
    if stage.in_tensorflow:
        yield "Runs TensorFlow, in a confined process of its own."
    if stage.role in ("check", "export"):
        yield "It hands on the model that it got."


def _records(kind: Any) -> Iterator[Any]:
    """Nested parameter classes inside a type."""
    for part in typing.get_args(kind):
        if hasattr(part, "__dataclass_fields__"):
            yield part
        yield from _records(part)


def _table(found: Mapping[str, Any]) -> str:
    if not found["properties"]:
        return "It has no parameters.\n"
    lines = ["| key | value | default | |", "|---|---|---|---|"]
    for name, value in found["properties"].items():
        needed = name in found.get("required", ())
        default = "needed" if needed else _default(value)
        lines.append(f"| `{name}` | {_type(value)} | {default} | {value['description']} |")
    return "\n".join(lines) + "\n"


def _default(value: Mapping[str, Any]) -> str:
    default = value.get("default")
    return "" if default is None else f"`{json.dumps(default)}`"


def _type(value: Mapping[str, Any]) -> str:
    """A schema's type in words; what may be left empty is not said, that is what a default means."""
    if "enum" in value:
        choices = [choice for choice in value["enum"] if choice is not None]
        return " or ".join(f"`{choice}`" for choice in choices)
    types = [value["type"]] if isinstance(value["type"], str) else value["type"]
    if "number" in types:
        types = [name for name in types if name != "integer"]
    words = " or ".join(_word(name, value) for name in types if name != "null")
    bounds = [
        f"{sign} {value[bound]}"
        for bound, sign in (("minimum", "≥"), ("maximum", "≤"))
        if bound in value
    ]
    return " ".join([words, *bounds])


def _word(name: str, value: Mapping[str, Any]) -> str:
    if name == "array":
        items = value.get("items")
        return f"list of {_type(items)}" if items and "type" in items else "list"
    if name == "object":
        values = value.get("additionalProperties")
        inner = values if isinstance(values, dict) and "type" in values else {}
        nested = inner.get("type") == "object" or not inner
        return "mapping" if nested else f"mapping to {_type(inner)}"
    return _TYPES[name]


def main() -> None:
    """Writes the schema file and the pages."""
    schema.main()
    for path in PAGES:
        path.write_text(page(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
