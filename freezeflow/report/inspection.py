"""A model at a glance."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from freezeflow.graph.inspection import (
    CheckpointFacts,
    Inspection,
    SignatureFacts,
    VariableFacts,
)
from freezeflow.report.errors import error_to_json, render_error
from freezeflow.report.text import count, paint, shape_text, short_path, size, table
from freezeflow.values import Json, TensorSpec

FORMAT = "freezeflow.inspect/1"

_KINDS = {
    "saved_model": "SavedModel",
    "keras": "Keras file",
    "checkpoint": "checkpoint with its meta graph",
    "frozen_graph": "graph file",
}

# What is said of a variable that was, or was not, or may have been trained.
_NOTES = {True: "", False: " (not trainable)", None: ""}

# Ops and variables that are listed without --all.
_SHOWN_OPS = 12
_SHOWN_VARIABLES = 8
_SHOWN_WRITES = 6


def render_inspection(found: Inspection, *, everything: bool = False, color: bool = False) -> str:
    """The model, its signatures with what would stop a freeze, its largest variables, its ops.

    Args:
        found: The model.
        everything: List all variables and ops.
        color: Whether with colours.
    """
    parts = [_head(found, color)]
    parts += ["\n".join(_signature(signature, color)) for signature in found.signatures]
    variables = {v.name: v for signature in found.signatures for v in signature.variables}
    if variables:
        parts.append(_variables(list(variables.values()), everything, color))
    parts.append(_ops(found, everything, color))
    return "\n\n".join(parts)


def _head(found: Inspection, color: bool) -> str:
    rows = [
        ["kind", _KINDS[found.kind]],
        ["size", f"{size(found.nbytes)} in {count(found.files, 'file')}"],
        ["graph", _graph(found)],
    ]
    if found.written_by:
        rows.append(["written by", f"TensorFlow {found.written_by}"])
    if len(found.tag_sets) > 1:
        sets = "; ".join(_tags(tags) for tags in found.tag_sets)
        rows.append(["tag sets", f"{sets} (looked at: {_tags(found.tags)})"])
    if found.checkpoint is not None and found.checkpoint.tensors:
        rows.append(["checkpoint", _checkpoint(found.checkpoint)])
    if found.graph.tables:
        rows.append(["tables", str(found.graph.tables)])
    if found.graph.custom_ops:
        rows.append(["custom ops", ", ".join(found.graph.custom_ops)])
    if found.graph.python_calls:
        rows.append(["calls Python", ", ".join(found.graph.python_calls)])
    return f"{paint(short_path(found.path), 'bold', color=color)}\n{table(rows, indent='  ')}"


def _graph(found: Inspection) -> str:
    nodes = count(found.graph.nodes, "node")
    return f"{nodes}, {count(found.graph.functions, 'function')}"


def _checkpoint(found: CheckpointFacts) -> str:
    text = f"{count(found.tensors, 'tensor')}, {size(found.nbytes)}"
    if found.duplicates:
        again = f"{size(found.duplicate_bytes)} in {count(found.duplicates, 'tensor')}"
        text += f" ({again} stored more than once)"
    return text


def _tags(tags: tuple[str, ...]) -> str:
    return ",".join(tags) or "(none)"


def _signature(found: SignatureFacts, color: bool) -> Iterator[str]:
    yield f"signature {paint(found.name, 'bold', color=color)}"
    if found.signature is not None:
        ends = [
            *(["input", key, *_spec(spec)] for key, spec in found.signature.inputs.items()),
            *(["output", key, *_spec(spec)] for key, spec in found.signature.outputs.items()),
        ]
        yield table(ends, indent="  ")
    if found.variables:
        yield f"  {count(len(found.variables), 'variable')}, {size(found.variable_bytes)}{_trained(found)}"
    for table_found in found.tables:
        kinds = f"{table_found.key.tf_name} to {table_found.value.tf_name}"
        yield f"  table {table_found.name}, {kinds} ({table_found.op})"
    for name, nbytes in found.assets.items():
        yield f"  asset {name}, {size(nbytes)}"
    yield from _writes(found)
    if found.random_ops:
        used = ", ".join(f"{op} ({number})" for op, number in found.random_ops.items())
        yield f"  random from call to call: {used}"
    if found.obstacle is None:
        nodes = count(found.frozen_nodes or 0, "node")
        yield f"  {paint('freezes', 'green', color=color)} into {nodes}, {size(found.frozen_bytes or 0)}"
    else:
        yield f"  {paint('does not freeze', 'red', color=color)}"
        yield from (f"    {line}" for line in render_error(found.obstacle).splitlines())


def _trained(found: SignatureFacts) -> str:
    """How many of a signature's variables were trained, where the model says it."""
    known = [variable for variable in found.variables if variable.trainable is not None]
    if not known:
        return ""
    trained = [variable for variable in known if variable.trainable]
    nbytes = sum(variable.nbytes for variable in trained)
    return f", {len(trained)} of them trainable ({size(nbytes)})"


def _writes(found: SignatureFacts) -> Iterator[str]:
    for write in found.writes[:_SHOWN_WRITES]:
        seen = (
            f"seen by an output through {' > '.join(write.read)}"
            if write.read
            else "seen by no output"
        )
        yield f"  writes {write.variable} ({write.op} at {' > '.join(write.path)}), {seen}"
    if len(found.writes) > _SHOWN_WRITES:
        yield f"  and {len(found.writes) - _SHOWN_WRITES} more writes"


def _spec(spec: TensorSpec) -> list[str]:
    return [spec.dtype.tf_name, shape_text(spec.shape), spec.tensor]


def _variables(variables: Sequence[VariableFacts], everything: bool, color: bool) -> str:
    largest = sorted(variables, key=lambda variable: (-variable.nbytes, variable.name))
    shown = largest if everything else largest[:_SHOWN_VARIABLES]
    rows = [
        [size(v.nbytes), v.dtype.tf_name, shape_text(v.shape), v.name + _NOTES[v.trainable]]
        for v in shown
    ]
    lines = [paint("variables", "bold", color=color), table(rows, indent="  ", right=(0,))]
    if len(shown) < len(largest):
        lines.append(f"  and {len(largest) - len(shown)} more (--all lists them)")
    return "\n".join(lines)


def _ops(found: Inspection, everything: bool, color: bool) -> str:
    ops = list(found.graph.ops.items())
    shown = ops if everything else ops[:_SHOWN_OPS]
    rows = [[str(number), op] for op, number in shown]
    lines = [paint("ops", "bold", color=color), table(rows, indent="  ", right=(0,))]
    if len(shown) < len(ops):
        lines.append(f"  and {len(ops) - len(shown)} other ops (--all lists them)")
    return "\n".join(lines)


def inspection_to_json(found: Inspection) -> Json:
    """``freezeflow.inspect/1``."""
    return {
        "format": FORMAT,
        "path": str(found.path),
        "kind": found.kind,
        "files": found.files,
        "bytes": found.nbytes,
        "tag_sets": [list(tags) for tags in found.tag_sets],
        "tags": list(found.tags),
        "written_by": found.written_by,
        "freezes": found.freezes,
        "graph": {
            "nodes": found.graph.nodes,
            "functions": found.graph.functions,
            "ops": dict(found.graph.ops),
            "custom_ops": list(found.graph.custom_ops),
            "python_calls": list(found.graph.python_calls),
            "tables": found.graph.tables,
        },
        "checkpoint": None if found.checkpoint is None else dataclasses.asdict(found.checkpoint),
        "signatures": {s.name: _signature_to_json(s) for s in found.signatures},
    }


def _signature_to_json(found: SignatureFacts) -> Json:
    ends = {} if found.signature is None else found.signature.to_json()
    return {
        **ends,
        "variables": [
            {
                "name": variable.name,
                "dtype": variable.dtype.tf_name,
                "shape": None if variable.shape is None else list(variable.shape),
                "bytes": variable.nbytes,
                "trainable": variable.trainable,
            }
            for variable in found.variables
        ],
        "variable_bytes": found.variable_bytes,
        "assets": dict(found.assets),
        "tables": [
            {
                "name": found_table.name,
                "op": found_table.op,
                "key": found_table.key.tf_name,
                "value": found_table.value.tf_name,
            }
            for found_table in found.tables
        ],
        "writes": [
            {
                "variable": write.variable,
                "op": write.op,
                "path": list(write.path),
                "seen": bool(write.read),
                "read": list(write.read),
            }
            for write in found.writes
        ],
        "random_ops": dict(found.random_ops),
        "frozen_nodes": found.frozen_nodes,
        "frozen_bytes": found.frozen_bytes,
        "obstacle": error_to_json(found.obstacle) if found.obstacle else None,
    }
