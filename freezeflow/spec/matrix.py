"""The ``matrix`` of a recipe: every combination of its values, but for those that it excludes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from freezeflow.spec.notes import Notes
from freezeflow.spec.problems import shown
from freezeflow.spec.scalars import Scalar
from freezeflow.spec.tree import Path_
from freezeflow.suggestions import did_you_mean
from freezeflow.values import Json

# The key of the matrix that is none of its names, and the name that models have in it.
EXCLUDE = "exclude"
MODEL = "model"


class Value(NamedTuple):
    """A value, and the text that stands for it in paths and names."""

    value: Scalar
    text: str


class Exclusion(NamedTuple):
    """Combinations that are left out: those with these values, for models whose name fits."""

    place: Path_
    values: Mapping[str, Scalar]
    model: str

    def leaves_out(self, point: Mapping[str, Value], model: str) -> bool:
        return fnmatchcase(model, self.model) and all(
            _same(point[name].value, value) for name, value in self.values.items()
        )


class Matrix(NamedTuple):
    """The combinations, each name with its value.

    Args:
        points: All of them, the last name's values turning fastest; one empty point without matrix.
        exclusions: Which of them are left out.
        unknown: Names whose values have mistakes.
    """

    points: Sequence[Mapping[str, Value]]
    exclusions: Sequence[Exclusion]
    unknown: frozenset[str]


def read_matrix(block: Json, taken: Mapping[str, str], notes: Notes) -> Matrix:
    """The matrix of a recipe.

    Args:
        block: The `matrix` block.
        taken: Names that are something else, and what.
        notes: Gets the mistakes.
    """
    names = [name for name in block if name != EXCLUDE] if isinstance(block, dict) else []
    axes = {name: _values(block[name], name, notes) for name in names}
    for name in names:
        what = "what models are called" if name == MODEL else taken.get(name)
        if what:
            message = f"the matrix's name {shown(name)} is already {what}"
            notes.add(("matrix", name), message, "Choose another name.", key=True)
    unknown = {name for name in names if notes.broken(("matrix", name))}
    points = [
        dict(zip(axes, point, strict=True))
        for point in itertools.product(*(values or [Value("", "")] for values in axes.values()))
    ]
    exclusions = list(_exclusions(block, axes, notes)) if names and not unknown else []
    return Matrix(points, exclusions, frozenset(unknown))


def _values(given: Json, name: str, notes: Notes) -> list[Value]:
    values: list[Value] = []
    for number, value in enumerate(given if isinstance(given, list) else []):
        path = ("matrix", name, number)
        if notes.broken(path):
            continue
        if any(_same(value, other.value) for other in values):
            notes.add(path, f"{name} has the value {value} twice", "Take one of them out.")
        values.append(Value(value, _text(value, path, notes)))
    return values


def _text(value: Scalar, path: Path_, notes: Notes) -> str:
    written = notes.document.scalars.get(path)
    if written is not None and "${" not in written.text:
        return written.text
    return str(value).lower() if isinstance(value, bool) else str(value)


def _same(one: Scalar, other: Scalar) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _exclusions(
    block: Mapping[str, Json], axes: Mapping[str, Sequence[Value]], notes: Notes
) -> Iterator[Exclusion]:
    given = block.get(EXCLUDE)
    for number, item in enumerate(given if isinstance(given, list) else []):
        path = ("matrix", EXCLUDE, number)
        if not isinstance(item, dict) or notes.broken(path):
            continue
        values = {name: value for name, value in item.items() if name != MODEL}
        for name, value in values.items():
            _check_excluded(name, value, (*path, name), axes, notes)
        if not notes.broken(path):
            yield Exclusion(path, values, str(item.get(MODEL, "*")))


def _check_excluded(
    name: str, value: Scalar, path: Path_, axes: Mapping[str, Sequence[Value]], notes: Notes
) -> None:
    if name not in axes:
        hint = did_you_mean(name, [*axes, MODEL])
        notes.add(path, f"the matrix has no name {shown(name)}", hint, key=True)
    elif not any(_same(value, known.value) for known in axes[name]):
        hint = did_you_mean(str(value), [known.text for known in axes[name]])
        notes.add(path, f"{name} has no value {shown(str(value))}", hint)
