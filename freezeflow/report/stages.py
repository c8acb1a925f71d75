"""The stages and their parameters."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from freezeflow.params import schema_of, shorthand_of
from freezeflow.report.text import paint, table
from freezeflow.spec.schema import params_schema
from freezeflow.stages.stage import Choice, Stage
from freezeflow.values import Json

FORMAT = "freezeflow.stages/1"

_WIDTH = 88


def render_stages(stages: Sequence[Stage], *, color: bool = False) -> str:
    """A line for each stage."""
    return table([paint(stage.name, "bold", color=color), stage.summary] for stage in stages)


def render_stage(stage: Stage, *, color: bool = False) -> str:
    """One stage with its parameters: type, default, what it means."""
    lines = [f"{paint(stage.name, 'bold', color=color)}: {stage.summary}"]
    if stage.in_tensorflow:
        lines.append("It runs in a confined process with TensorFlow.")
    short = shorthand_of(stage.params)
    if short:
        lines.append(f"`- {stage.name}: VALUE` is short for `- {stage.name}: {{{short}: VALUE}}`.")
    common = schema_of(stage.params)["properties"]
    for name, found in common.items():
        lines += ["", *_parameter(name, found, color)]
    if stage.choice is not None:
        for name in stage.choice.names():
            lines += ["", *_chosen(stage.choice, name, common, color)]
    return "\n".join(lines)


def _chosen(choice: Choice, name: str, common: Mapping[str, Any], color: bool) -> Iterator[str]:
    """The parameters that one value of a choice brings."""
    yield f"With {choice.name} {paint(name, 'bold', color=color)}:"
    own = schema_of(choice.params(name))["properties"].keys() - common.keys()
    if not own:
        yield "  no further parameters"
    for parameter, found in schema_of(choice.params(name))["properties"].items():
        if parameter in own:
            yield from _parameter(parameter, found, color)


def _parameter(name: str, found: Mapping[str, Any], color: bool) -> Iterator[str]:
    default = f", default {json.dumps(found['default'])}" if "default" in found else ", required"
    yield f"  {paint(name, 'bold', color=color)}  {type_words(found)}{default}"
    yield textwrap.fill(
        found["description"], _WIDTH, initial_indent="      ", subsequent_indent="      "
    )


def type_words(schema: Mapping[str, Any]) -> str:
    """What a schema allows, in words: ``integer of at least 1``, ``list of strings``."""
    kinds = schema.get("type", "anything")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    words = [_kind(kind, schema) for kind in kinds]
    if "minimum" in schema:
        words[0] += f" of at least {schema['minimum']}"
    if "maximum" in schema:
        words[0] += f" of at most {schema['maximum']}"
    return " or ".join(words)


def _kind(kind: str, schema: Mapping[str, Any]) -> str:
    choices = [choice for choice in schema.get("enum", ()) if choice is not None]
    if kind == "string" and choices:
        return " | ".join(choices)
    if kind == "array":
        return f"list of ({type_words(schema['items'])})"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"mapping to ({type_words(schema['additionalProperties'])})"
    return kind


def stages_to_json(stages: Sequence[Stage]) -> Json:
    """``freezeflow.stages/1``."""
    return {
        "format": FORMAT,
        "stages": [
            {
                "name": stage.name,
                "summary": stage.summary,
                "version": stage.version,
                "role": stage.role,
                "in_tensorflow": stage.in_tensorflow,
                "params": params_schema(stage),
            }
            for stage in stages
        ],
    }
