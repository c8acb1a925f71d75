"""How two models differ, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from freezeflow.graph.diff import ConstantChange, FieldChange, ModelDiff, NodeChange, NodeRef
from freezeflow.graph.signature_diff import SignatureChange
from freezeflow.release.compare import Comparison, PartDiff
from freezeflow.report.text import count, paint, shape_text, size
from freezeflow.values import DType, Json, Shape

FORMAT = "freezeflow.diff/1"

# Lines of each kind that are shown without --all.
_SHOWN = 12
# Longer texts of attributes and inputs are cut.
_WIDTH = 120


def render_diff(found: Comparison, *, everything: bool = False, color: bool = False) -> str:
    """Each model's sizes, then signatures, nodes, constants, and what else differs.

    Args:
        found: The comparison.
        everything: All lines of long lists.
        color: Whether with colours.
    """
    parts = [
        *(f"{paint('- model', 'red', color=color)} {name}" for name in found.only_before),
        *(f"{paint('+ model', 'green', color=color)} {name}" for name in found.only_after),
        *(render_part(part, everything=everything, color=color) for part in found.parts),
        *_files(found, everything, color),
    ]
    return "\n\n".join(parts) if parts else "There is nothing to compare."


def _files(found: Comparison, everything: bool, color: bool) -> Iterator[str]:
    """Artifacts of releases that differ in a byte."""
    if not found.files:
        return
    lines = [
        f"  {'~' if file.before and file.after else '-' if file.before else '+'} {file.path}"
        for file in found.files
    ]
    shown = lines if everything else lines[:_SHOWN]
    more = len(lines) - len(shown)
    tail = [f"  and {more:,} more (--all lists them)"] if more else []
    head = paint(f"files: {len(lines):,} differ", "bold", color=color)
    yield "\n".join([head, *shown, *tail])


def render_part(part: PartDiff, *, everything: bool = False, color: bool = False) -> str:
    """How one model differs."""
    name = paint(part.name, "bold", color=color)
    if part.diff.same:
        nodes = count(part.diff.after.nodes, "node")
        return f"{name}: no difference ({nodes}, {size(part.diff.after.constant_bytes)})"
    return "\n".join([name, *_lines(part, everything, color)])


def _lines(part: PartDiff, everything: bool, color: bool) -> Iterator[str]:
    diff = part.diff
    yield from _sizes(part)
    for section in _sections(diff, color):
        if section.lines:
            yield f"  {paint(section.title, 'bold', color=color)}"
            shown = section.lines if everything else section.lines[:_SHOWN]
            yield from (f"    {line}" for line in shown)
            if len(shown) < len(section.lines):
                yield f"    and {len(section.lines) - len(shown):,} more (--all lists them)"


class _Section(NamedTuple):
    title: str
    lines: Sequence[str]


def _sections(diff: ModelDiff, color: bool) -> Iterator[_Section]:
    yield _Section("signatures", [_signature(change, color) for change in diff.signatures])
    nodes = [
        *(f"{paint('-', 'red', color=color)} {_node(node)}" for node in diff.removed),
        *(f"{paint('+', 'green', color=color)} {_node(node)}" for node in diff.added),
        *(line for change in diff.changed for line in _changed(change, color)),
    ]
    yield _Section(
        f"nodes: {len(diff.removed):,} removed, {len(diff.added):,} added,"
        f" {len(diff.changed):,} changed",
        nodes,
    )
    yield _Section(
        f"constants: {len(diff.constants):,} changed",
        [_constant(change, color) for change in diff.constants],
    )
    yield _Section("besides", [_field(change) for change in diff.others])


def _sizes(part: PartDiff) -> Iterator[str]:
    before, after = part.diff.before, part.diff.after
    yield f"  nodes      {_pair(f'{before.nodes:,}', f'{after.nodes:,}')}"
    if before.functions or after.functions:
        yield f"  functions  {_pair(str(before.functions), str(after.functions))}"
    constants = _pair(size(before.constant_bytes), size(after.constant_bytes))
    yield f"  constants  {constants}"
    if part.before_bytes is not None and part.after_bytes is not None:
        yield f"  files      {_pair(size(part.before_bytes), size(part.after_bytes))}"


def _pair(before: str, after: str) -> str:
    return before if before == after else f"{before} → {after}"


def _signature(change: SignatureChange, color: bool) -> str:
    word = (
        paint("breaking", "red", color=color)
        if change.breaking
        else paint("compatible", "green", color=color)
    )
    values = f": {_pair(change.before, change.after)}" if change.before and change.after else ""
    if not values and (change.before or change.after):
        values = f" ({change.before or change.after})"
    place = f"{change.signature} {change.end}".rstrip()
    return f"{word}  {place}: {change.what}{values}"


def _node(node: NodeRef) -> str:
    return f"{_place(node)} ({node.op})"


def _place(node: NodeRef) -> str:
    return f"{node.function}: {node.name}" if node.function else node.name


def _changed(change: NodeChange, color: bool) -> Iterator[str]:
    mark = paint("~", "yellow", color=color)
    yield f"{mark} {_node(change.node)}: {'; '.join(map(_field, change.fields))}"


def _field(change: FieldChange) -> str:
    return f"{change.field} {_cut(change.before) or '(none)'} → {_cut(change.after) or '(none)'}"


def _cut(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]}..."


def _constant(change: ConstantChange, color: bool) -> str:
    mark = paint("~", "yellow", color=color)
    before = _typed(change.before)
    if change.value is None:
        return f"{mark} {_place(change.node)}: {_pair(before, _typed(change.after))}"
    value = change.value
    parts = [f"{value.differing:,} of {count(value.elements, 'element')} differ"]
    if value.largest is not None:
        parts.append(f"largest difference {value.largest:.3g}")
    if value.special:
        parts.append(f"{value.special:,} where NaN or infinity differ")
    return f"{mark} {_place(change.node)} {before}: {', '.join(parts)}"


def _typed(found: tuple[DType, Shape]) -> str:
    return f"{found[0].tf_name}{shape_text(found[1])}"


# ---------------------------------------------------------------- JSON


def diff_to_json(found: Comparison) -> Json:
    """``freezeflow.diff/1``."""
    return {
        "format": FORMAT,
        "before": found.before,
        "after": found.after,
        "same": found.same,
        "breaking": found.breaking,
        "only_before": list(found.only_before),
        "only_after": list(found.only_after),
        "models": [part_to_json(part) for part in found.parts],
        "files": [file._asdict() for file in found.files],
    }


def part_to_json(part: PartDiff) -> Json:
    """How one model differs."""
    diff = part.diff
    sides = ((diff.before, part.before_bytes), (diff.after, part.after_bytes))
    before, after = ({**sizes._asdict(), "file_bytes": nbytes} for sizes, nbytes in sides)
    return {
        "name": part.name,
        "same": diff.same,
        "breaking": diff.breaking,
        "before": before,
        "after": after,
        "added": _nodes(diff.added),
        "removed": _nodes(diff.removed),
        "changed": [
            {**change.node._asdict(), "fields": _fields(change.fields)} for change in diff.changed
        ],
        "constants": [_constant_to_json(change) for change in diff.constants],
        "signatures": [change._asdict() for change in diff.signatures],
        "others": _fields(diff.others),
    }


def _nodes(nodes: Iterable[NodeRef]) -> Json:
    return [node._asdict() for node in nodes]


def _fields(changes: Iterable[FieldChange]) -> Json:
    return [change._asdict() for change in changes]


def _constant_to_json(change: ConstantChange) -> Json:
    (dtype, shape), (new_dtype, new_shape) = change.before, change.after
    return {
        "function": change.node.function,
        "name": change.node.name,
        "before": {"dtype": dtype.tf_name, "shape": None if shape is None else list(shape)},
        "after": {
            "dtype": new_dtype.tf_name,
            "shape": None if new_shape is None else list(new_shape),
        },
        "elements": None if change.value is None else change.value.elements,
        "differing": None if change.value is None else change.value.differing,
        "largest": None if change.value is None else change.value.largest,
        "special": None if change.value is None else change.value.special,
    }
