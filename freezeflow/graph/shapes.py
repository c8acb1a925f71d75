"""Static shapes: what is certain of the size of each tensor before anything runs.

A dimension is a number, or a symbol: the unknown size of some tensor along some axis, which is the
same wherever the symbol stands. So ``reshape(x, [shape(x)[0], 4])`` is known to keep ``x`` of shape
(n, 4) as it is, though nobody knows n. Beside shapes, the elements of small integer tensors that are
computed from shapes are followed in the same way.

Sound rather than complete: what no rule claims is unknown. Where two sizes must agree for an op to
succeed, nothing is concluded from its success. A symbol is born at the tensor whose size it is; TF1
control flow gives birth to new ones, since a loop's tensor has another size each time round.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from freezeflow.graph.graph import data_inputs, join, node_of

if TYPE_CHECKING:
    from freezeflow.graph.rewrites.body import Body

# A size: known, or the symbol (tensor, axis).
Dim = int | tuple[str, int]
Dims = tuple[Dim, ...] | None

# Vectors over this many elements are no shapes.
MAX_ELEMENTS = 64

# Ops that look at the shape of their input only.
READS_SHAPE = frozenset({"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike"})

# Arithmetic on shapes that cannot fail where its value is followed here.
_ARITHMETIC = """
    Add AddV2 Cast ConcatV2 Const ExpandDims GatherV2 Identity Maximum Minimum Mul Pack Prod Reshape Slice
    Squeeze StridedSlice Sub Unpack
"""


class Shapes:
    """Shapes and shape-like values of one scope; filled by `freezeflow.graph.shape_rules.infer`."""

    def __init__(self) -> None:
        self._shapes: dict[str, Dims] = {}
        self._values: dict[str, tuple[Dim, ...]] = {}

    def of(self, tensor: str) -> Dims:
        """A tensor's shape; None where not even its rank is known."""
        return self._shapes.get(tensor)

    def value(self, tensor: str) -> tuple[Dim, ...] | None:
        """The elements of an integer scalar or vector; None where they are not known."""
        return self._values.get(tensor)

    def set_shape(self, tensor: str, shape: Dims) -> None:
        self._shapes[tensor] = shape

    def set_value(self, tensor: str, value: tuple[Dim, ...]) -> None:
        if len(value) <= MAX_ELEMENTS:
            self._values[tensor] = value

    def may_go(self, body: Body, tensor: str) -> bool:
        """Whether a tensor may be left out without an op that could refuse an input going with it.

        Constants may, and arithmetic on the shapes of tensors that are there without it.
        """
        stack, seen = [tensor], {tensor}
        while stack:
            name = node_of(stack.pop())
            node = body.nodes.get(name)
            if node is None:  # a function's argument, which its caller computes anyway
                continue
            if node.op in READS_SHAPE:
                if not all(stays(body, source) for source in data_inputs(node)):
                    return False
                continue
            if node.op != "Const" and (
                node.op not in _ARITHMETIC.split() or self.value(join(name, 0)) is None
            ):
                return False
            for source in data_inputs(node):
                if source not in seen:
                    seen.add(source)
                    stack.append(source)
        return True


def stays(body: Body, tensor: str) -> bool:
    """Whether a tensor is computed even if nobody asks for its shape."""
    name = node_of(tensor)
    node = body.nodes.get(name)
    if node is None or not node.inputs or name in body.known:
        return True
    users = body.users_of(name)
    return any(user.op not in READS_SHAPE and tensor in user.inputs for user in users)


def count(shape: tuple[Dim, ...]) -> tuple[int, tuple[Dim, ...]]:
    """How many elements a shape has: the product of its numbers, and its symbols, sorted."""
    numbers = [size for size in shape if isinstance(size, int)]
    symbols = [size for size in shape if not isinstance(size, int)]
    return math.prod(numbers), tuple(sorted(symbols, key=str))


def all_known(value: tuple[Dim, ...] | None) -> tuple[int, ...] | None:
    """The numbers, if all are known and none is negative."""
    if value is None:
        return None
    numbers = tuple(size for size in value if isinstance(size, int))
    return numbers if len(numbers) == len(value) else None


def fresh(tensor: str, rank: int) -> tuple[Dim, ...]:
    """A shape of which only the rank is known."""
    return tuple((tensor, axis) for axis in range(rank))


def named(tensor: str, shape: tuple[int | None, ...] | None) -> Dims:
    """A shape with a symbol for each size that is not known."""
    if shape is None:
        return None
    return tuple((tensor, axis) if size is None else size for axis, size in enumerate(shape))
