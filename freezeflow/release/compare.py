"""How two operands differ: model by model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from freezeflow.graph.diff import ModelDiff, diff_models
from freezeflow.release.operands import Operand


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PartDiff:
    """How one model differs.

    Args:
        name: Its name; that of the later side where they differ.
        diff: How.
        before_bytes: Bytes of the earlier side's files; None where it has none of its own.
        after_bytes: The same of the later side.
    """

    name: str
    diff: ModelDiff
    before_bytes: int | None
    after_bytes: int | None


class FileChange(NamedTuple):
    """An artifact of a release that differs: its path, and both SHA-256 (empty: not there)."""

    path: str
    before: str
    after: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How two operands differ.

    Args:
        before: The earlier one, as it was named.
        after: The later one.
        parts: The models that both have.
        only_before: Names of models that only the earlier one has.
        only_after: Names of models that only the later one has.
        files: Artifacts that differ, where both are releases.
    """

    before: str
    after: str
    parts: tuple[PartDiff, ...]
    only_before: tuple[str, ...] = ()
    only_after: tuple[str, ...] = ()
    files: tuple[FileChange, ...] = ()

    @property
    def same(self) -> bool:
        """Nothing differs."""
        apart = self.only_before or self.only_after or self.files
        return not apart and all(part.diff.same for part in self.parts)

    @property
    def breaking(self) -> bool:
        """Callers of the earlier one cannot call the later one."""
        return bool(self.only_before) or any(part.diff.breaking for part in self.parts)


def compare(before: Operand, after: Operand) -> Comparison:
    """Compares the models that have the same name, or the only ones.

    Raises:
        FreezeflowError: A model cannot be read, or a step is not cached.
    """
    names = {name: name for name in before.parts if name in after.parts}
    if len(before.parts) == len(after.parts) == 1:
        names = {next(iter(before.parts)): next(iter(after.parts))}
    return Comparison(
        before=before.text,
        after=after.text,
        parts=tuple(_part(before, old, after, new) for old, new in names.items()),
        only_before=tuple(name for name in before.parts if name not in names),
        only_after=tuple(name for name in after.parts if name not in names.values()),
        files=tuple(_file_changes(before.files, after.files)),
    )


def _file_changes(
    before: Mapping[str, str] | None, after: Mapping[str, str] | None
) -> Iterator[FileChange]:
    if before is None or after is None:
        return
    for path in sorted(before.keys() | after.keys()):
        one, other = before.get(path, ""), after.get(path, "")
        if one != other:
            yield FileChange(path, one, other)


def _part(before: Operand, old: str, after: Operand, new: str) -> PartDiff:
    one, other = before.parts[old], after.parts[new]
    # A graph file is called by its tensors, whatever it was made from.
    by_tensor_name = one.by_tensor_name and other.by_tensor_name
    return PartDiff(
        name=new,
        diff=diff_models(one.load(), other.load(), by_tensor_name=by_tensor_name),
        before_bytes=one.nbytes,
        after_bytes=other.nbytes,
    )
