"""Equations of `Einsum`, and such with an ellipsis written out: few runtimes take them.

An ellipsis stands for any number of dimensions, which are stretched to one another as arithmetic
does it. Where ranks and sizes tell which they are, they get letters of their own; a dimension of one element
that would be stretched is squeezed out of its operand. The products and sums are the same.

Source: upstream ``core/util/einsum_op_util.cc``.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from freezeflow.graph import attrs
from freezeflow.graph.graph import Node, control_inputs, data_inputs
from freezeflow.graph.shapes import Dim, Dims

ELLIPSIS = "..."


class Operand(NamedTuple):
    """An operand's dimensions by what its term says of them.

    Args:
        before: Letters before the ellipsis, or all of them.
        between: Sizes of those that the ellipsis stands for.
        after: Letters behind it.
        shape: All sizes.
    """

    before: str
    between: tuple[Dim, ...]
    after: str
    shape: tuple[Dim, ...]

    def sizes(self) -> Iterator[tuple[str, Dim]]:
        """Letters with their sizes."""
        yield from zip(self.before, self.shape, strict=False)
        if self.after:
            yield from zip(self.after, self.shape[-len(self.after) :], strict=True)


class Equation(NamedTuple):
    """An equation's terms."""

    inputs: tuple[str, ...]
    output: str

    @property
    def has_ellipsis(self) -> bool:
        return any(ELLIPSIS in term for term in (*self.inputs, self.output))

    def operands(self, shapes: Sequence[Dims]) -> tuple[Operand, ...] | None:
        """The operands; None where a rank is not known, or does not fit."""
        found = []
        for term, shape in zip(self.inputs, shapes, strict=True):
            before, dots, after = term.partition(ELLIPSIS)
            if shape is None:
                return None
            rest = len(shape) - len(before) - len(after)
            if rest < 0 or (rest and not dots):
                return None
            between = shape[len(before) : len(before) + rest]
            found.append(Operand(before, between, after, shape))
        return tuple(found)


def equation_of(node: Node) -> Equation | None:
    """An Einsum's equation; None where it does not fit, or leaves the output to its reader."""
    text = attrs.to_bytes(node.attrs["equation"]).decode()
    given, arrow, output = text.partition("->")
    inputs = tuple(given.split(","))
    if not arrow or len(inputs) != len(list(data_inputs(node))):
        return None
    return Equation(inputs, output)


def without_ellipsis(
    node: Node, shapes: Sequence[Dims], free: Callable[[str], str]
) -> Iterator[Node]:
    """An Einsum with letters in place of the ellipsis; nothing where it has none, or sizes do not tell.

    Args:
        node: The Einsum.
        shapes: Of its operands.
        free: Gives names.
    """
    equation = equation_of(node)
    if equation is None or not equation.has_ellipsis:
        return
    operands = equation.operands(shapes)
    if operands is None:
        return
    most = max(len(operand.between) for operand in operands)
    used = {letter for term in (*equation.inputs, equation.output) for letter in term}
    letters = [letter for letter in string.ascii_letters if letter not in used]
    if (most and ELLIPSIS not in equation.output) or most > len(letters):
        return
    kept = [_kept(place, operands) for place in range(most)]
    if None in kept:
        return
    terms, tensors = [], []
    for number, (tensor, operand) in enumerate(zip(data_inputs(node), operands, strict=True)):
        places = range(most - len(operand.between), most)
        stays = [place for place in places if number in (kept[place] or ())]
        gone = [
            len(operand.before) + axis for axis, place in enumerate(places) if place not in stays
        ]
        terms.append(operand.before + "".join(letters[p] for p in stays) + operand.after)
        if gone:
            name = free(f"{node.name}/operand{number}")
            values = {"T": node.attrs["T"], "squeeze_dims": attrs.of_ints(gone)}
            yield Node(name, "Squeeze", (tensor,), values, node.device)
            tensor = name
        tensors.append(tensor)
    output = equation.output.replace(ELLIPSIS, "".join(letters[:most]))
    waits = (f"^{name}" for name in control_inputs(node))
    yield node._replace(
        inputs=(*tensors, *waits),
        attrs={**node.attrs, "equation": attrs.of_bytes(f"{','.join(terms)}->{output}".encode())},
    )


def _kept(place: int, operands: Sequence[Operand]) -> frozenset[int] | None:
    """Which operands have a dimension of the ellipsis as it comes out; None where that is not certain.

    Args:
        place: The dimension, counted from the first of the longest.
        operands: All operands.
    """
    most = max(len(operand.between) for operand in operands)
    sizes = {
        number: operand.between[place - most]
        for number, operand in enumerate(operands)
        if place - most >= -len(operand.between)
    }
    wide = {number: size for number, size in sizes.items() if size != 1}
    if not wide:
        return frozenset(sizes)
    return frozenset(wide) if len(set(wide.values())) == 1 else None
