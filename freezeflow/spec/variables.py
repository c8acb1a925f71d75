"""Variables filled into a recipe's values: ``${name}`` from `vars`, `--set` and `env`."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from freezeflow.spec.notes import Notes
from freezeflow.spec.problems import shown
from freezeflow.spec.scalars import Scalar, parse_scalar
from freezeflow.spec.tree import MAX_BYTES, Path_, value_at, walk
from freezeflow.suggestions import did_you_mean
from freezeflow.values import Json

# ``$$`` stands for a dollar sign; a ``${`` that is never closed is found, too.
_VARIABLE = re.compile(r"\$\$|\$\{([^}]*)(\}?)")

# Blocks in which variables are declared, not used.
_DECLARING = ("vars", "env")


class Variable(NamedTuple):
    """A variable's value, and the text that stands for it inside a longer text."""

    value: Scalar
    text: str


Variables = Mapping[str, Variable | None]


def fill_variables(
    data: Mapping[str, Json],
    variables: Variables,
    notes: Notes,
    *,
    unknown: Collection[str] = (),
) -> dict[str, Json]:
    """Some of the recipe's values with every variable replaced.

    A plain value that is nothing but one variable becomes the variable's value, with its type, as if
    that were written there; in quotes, or beside other text, it becomes text.

    Args:
        data: Top-level keys of the recipe with their values.
        variables: Every variable with its value, None for one that has none.
        notes: Gets unknown variables, and ones without a value.
        unknown: Names that are variables, too, but whose values have mistakes.
    """
    filling = _Filling(variables, unknown, notes)
    return {
        key: value if key in _DECLARING else filling.fill(value, (key,))
        for key, value in data.items()
    }


def check_settings(
    data: Mapping[str, Json], set_vars: Mapping[str, str], matrix: Collection[str], notes: Notes
) -> None:
    """Notes settings of variables that there are not.

    Args:
        data: The recipe's values.
        set_vars: The settings.
        matrix: Names of the matrix.
        notes: Gets the mistakes.
    """
    known = _block(data).keys() | set(_names(data))
    for name in set_vars.keys() - known - _used(data):
        hint = did_you_mean(name, known) or "Declare it under `vars`."
        message = f"--set {name}: the recipe has no variable {shown(name)}"
        if name in matrix:
            message = f"--set {name}: the matrix gives {name} its values"
            hint = "--select chooses from what the matrix makes."
        notes.add(("vars",), message, hint, key=True)


def _used(data: Mapping[str, Json]) -> set[str]:
    """Names of the variables that stand in some value."""
    texts = [value for _, value in walk(data) if isinstance(value, str) and "${" in value]
    return {match[1] for text in texts for match in _VARIABLE.finditer(text) if match[1]}


def _block(data: Mapping[str, Json]) -> dict[str, Json]:
    block = data.get("vars")
    return block if isinstance(block, dict) else {}


def _names(data: Mapping[str, Json]) -> list[str]:
    names = data.get("env")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def declared(
    data: Mapping[str, Json],
    set_vars: Mapping[str, str],
    notes: Notes,
    *,
    own: Sequence[Path_] = (),
) -> dict[str, Variable | None]:
    """Every variable with its value, None for one that has none.

    Args:
        data: The recipe's values.
        set_vars: Values that go before all others.
        notes: Gets the mistakes.
        own: Places of `vars` blocks that go before the environment's and the recipe's own values;
            the last one most.
    """
    found: dict[str, Variable | None] = dict.fromkeys(_names(data))
    for name, value in _block(data).items():
        found[name] = _default(("vars", name), value, notes)
    for name in _names(data):
        notes.looked.environment[name] = text = os.environ.get(name)
        if text is not None:
            found[name] = _given(text, found[name])
    for place in own:
        block = value_at(data, place)
        for name, value in block.items() if isinstance(block, dict) else ():
            if name in found:
                found[name] = _default((*place, name), value, notes)
            else:
                hint = did_you_mean(name, found) or "Declare it under `vars`."
                message = f"there is no variable {shown(name)}"
                notes.add((*place, name), message, hint, key=True)
    for name, text in set_vars.items():
        found[name] = _given(text, found.get(name))
    return found


def _default(place: Path_, value: Json, notes: Notes) -> Variable | None:
    written = notes.document.scalars.get(place)
    if value is None or written is None:
        return None
    if _VARIABLE.search(written.text):
        notes.add(place, "a variable's value cannot hold another variable")
    return Variable(value, written.text)


def _given(text: str, before: Variable | None) -> Variable:
    """A value from outside: text where the recipe's own value is text, else read as YAML."""
    is_text = before is not None and isinstance(before.value, str)
    return Variable(text if is_text else parse_scalar(text), text)


class _Filling:
    """Replaces variables by their values."""

    def __init__(self, variables: Variables, unknown: Collection[str], notes: Notes) -> None:
        self._unknown = unknown
        self._failed: set[Path_] = set()
        self._length = 0
        self._variables = variables
        self._notes = notes

    def fill(self, value: Json, path: Path_) -> Json:
        if isinstance(value, dict):
            return {k: self.fill(v, (*path, k)) for k, v in value.items()}
        if isinstance(value, list):
            return [self.fill(v, (*path, i)) for i, v in enumerate(value)]
        if not isinstance(value, str) or "$" not in value:
            return value
        filled = self._filled(value, path)
        if path in self._failed:
            self._notes.spoil(path)
        return filled

    def _filled(self, value: str, path: Path_) -> Json:
        whole = _VARIABLE.fullmatch(value)
        if whole and whole[2] and not self._notes.document.scalars[path].quoted:
            return self._look_up(whole[1], path).value
        return _VARIABLE.sub(lambda match: self._text(match, path), value)

    def _text(self, match: re.Match[str], path: Path_) -> str:
        if match[1] is None:
            return "$"
        if not match[2]:
            hint = "Write `$$` for a dollar sign."
            self._notes.add(path, "a variable `${` is not closed by `}`", hint)
            self._failed.add(path)
            return ""
        text = self._look_up(match[1], path).text
        self._length += len(text)
        if self._length > MAX_BYTES:
            self._notes.add(path, f"variables make this recipe longer than {MAX_BYTES} characters")
            self._failed.add(path)
            return ""
        return text

    def _look_up(self, name: str, path: Path_) -> Variable:
        variable = self._variables.get(name)
        if variable is not None:
            return variable
        if name in self._unknown:
            pass  # what is wrong with it is told where it stands
        elif name in self._variables:
            message = f"variable {shown(name)} has no value"
            hint = f"Give it one with --set {name}=VALUE"
            on = (
                f", or in the environment variable {name}"
                if name in self._notes.looked.environment
                else ""
            )
            self._notes.add(path, message, f"{hint}{on}.")
        else:
            hint = did_you_mean(name, self._variables) or "Declare it under `vars`, or under `env`."
            self._notes.add(path, f"there is no variable {shown(name)}", hint)
        self._failed.add(path)
        return Variable("", "")
