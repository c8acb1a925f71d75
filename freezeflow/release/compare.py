"""How two operands differ: model by model."""

from __future__ import annotations

import dataclasses

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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How two operands differ.

    Args:
        before: The earlier one, as it was named.
        after: The later one.
        parts: The models that both have.
        only_before: Names of models that only the earlier one has.
        only_after: Names of models that only the later one has.
    """

    before: str
    after: str
    parts: tuple[PartDiff, ...]
    only_before: tuple[str, ...] = ()
    only_after: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Nothing differs."""
        return not (self.only_before or self.only_after) and all(p.diff.same for p in self.parts)

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
    )


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
