"""How signatures differ, and whether that breaks those who call them.

A caller names a signature's keys, feeds every input, and takes the outputs that it wants. So it
breaks when something that it names is gone, when it has to feed more, when an input takes less than
before, and when an output promises less than before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from freezeflow.values import Shape, Signature, TensorSpec


class SignatureChange(NamedTuple):
    """One change of one signature.

    Args:
        signature: Its name.
        end: ``input KEY`` or ``output KEY``; empty where the whole signature came or went.
        what: ``added``, ``removed``, ``dtype``, ``shape``, ``tensor``.
        before: The earlier value as text; empty where there was none.
        after: The later one.
        breaking: Whether it breaks callers.
    """

    signature: str
    end: str
    what: str
    before: str
    after: str
    breaking: bool


def signature_changes(
    before: Mapping[str, Signature], after: Mapping[str, Signature], *, by_tensor_name: bool
) -> tuple[SignatureChange, ...]:
    """Every change, in the order of signatures and keys.

    Args:
        before: The earlier signatures by name.
        after: The later ones.
        by_tensor_name: Another tensor behind a key breaks callers.
    """
    return tuple(
        change
        for name in sorted(before.keys() | after.keys())
        for change in _changes(name, before.get(name), after.get(name), by_tensor_name)
    )


def _changes(
    name: str, before: Signature | None, after: Signature | None, by_tensor_name: bool
) -> Iterator[SignatureChange]:
    if before is None or after is None:
        what = "added" if before is None else "removed"
        yield SignatureChange(name, "", what, "", "", after is None)
        return
    for side, old, new in (
        ("input", before.inputs, after.inputs),
        ("output", before.outputs, after.outputs),
    ):
        for key in sorted(old.keys() | new.keys()):
            end = f"{side} {key}"
            one, other = old.get(key), new.get(key)
            if one is None:
                # An input that has to be fed as well.
                yield SignatureChange(name, end, "added", "", _text(other), side == "input")
            elif other is None:
                yield SignatureChange(name, end, "removed", _text(one), "", True)
            else:
                yield from _end_changes(name, end, one, other, by_tensor_name)


def _end_changes(
    name: str, end: str, before: TensorSpec, after: TensorSpec, by_tensor_name: bool
) -> Iterator[SignatureChange]:
    if before.dtype is not after.dtype:
        old, new = before.dtype.tf_name, after.dtype.tf_name
        yield SignatureChange(name, end, "dtype", old, new, True)
    if before.shape != after.shape:
        wide, narrow = (
            (after.shape, before.shape) if end.startswith("input") else (before.shape, after.shape)
        )
        old, new = _shape(before.shape), _shape(after.shape)
        yield SignatureChange(name, end, "shape", old, new, not _holds(wide, narrow))
    if _tensor(before) != _tensor(after):
        old, new = _tensor(before), _tensor(after)
        yield SignatureChange(name, end, "tensor", old, new, by_tensor_name)


def _holds(wide: Shape, narrow: Shape) -> bool:
    """Whether every shape that `narrow` stands for is one that `wide` stands for."""
    if wide is None:
        return True
    if narrow is None or len(wide) != len(narrow):
        return False
    return all(size is None or size == other for size, other in zip(wide, narrow, strict=True))


def _text(spec: TensorSpec | None) -> str:
    return "" if spec is None else f"{spec.dtype.tf_name}{_shape(spec.shape)}"


def _shape(shape: Shape) -> str:
    if shape is None:
        return "[...]"
    return f"[{','.join('?' if size is None else str(size) for size in shape)}]"


def _tensor(spec: TensorSpec) -> str:
    return spec.tensor if ":" in spec.tensor else f"{spec.tensor}:0"
