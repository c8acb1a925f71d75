"""Variables filled into a recipe's values: ``${name}`` from `vars`, `--set` and `env`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from freezeflow.spec.notes import Notes
from freezeflow.spec.problems import did_you_mean, shown
from freezeflow.spec.scalars import Scalar, parse_scalar
from freezeflow.spec.tree import MAX_BYTES, Path_
from freezeflow.values import Json

# ``$$`` stands for a dollar sign; a ``${`` that is never closed is found, too.
_VARIABLE = re.compile(r"\$\$|\$\{([^}]*)(\}?)")

# Blocks in which variables are declared, not used.
_DECLARING = ("vars", "env")


class _Variable(NamedTuple):
    """A variable's value, and the text that stands for it inside a longer text."""

    value: Scalar
    text: str


def fill_variables(data: Mapping[str, Json], set_vars: Mapping[str, str], notes: Notes) -> Json:
    """The recipe's values with every variable replaced.

    A plain value that is nothing but one variable becomes the variable's value, with its type, as if
    that were written there; in quotes, or beside other text, it becomes text.

    Args:
        data: The recipe's values.
        set_vars: Values that go before the environment's and the recipe's own.
        notes: Gets unknown variables, ones without a value, and settings that nothing uses.
    """
    filling = _Filling(_declared(data, set_vars, notes), notes)
    filled = {
        key: value if key in _DECLARING else filling.fill(value, (key,))
        for key, value in data.items()
    }
    for name in set_vars.keys() - filling.used - _block(data).keys() - set(_names(data)):
        hint = did_you_mean(name, _block(data).keys() | set(_names(data)))
        message = f"--set {name}: the recipe has no variable {shown(name)}"
        notes.add(("vars",), message, hint or "Declare it under `vars`.", key=True)
    return filled


def _block(data: Mapping[str, Json]) -> dict[str, Json]:
    block = data.get("vars")
    return block if isinstance(block, dict) else {}


def _names(data: Mapping[str, Json]) -> list[str]:
    names = data.get("env")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _declared(
    data: Mapping[str, Json], set_vars: Mapping[str, str], notes: Notes
) -> dict[str, _Variable | None]:
    """Every variable with its value, None for one that has none."""
    found: dict[str, _Variable | None] = dict.fromkeys(_names(data))
    for name, value in _block(data).items():
        found[name] = _default(name, value, notes)
    for name in _names(data):
        notes.environment[name] = text = os.environ.get(name)
        if text is not None:
            found[name] = _given(text, found[name])
    for name, text in set_vars.items():
        found[name] = _given(text, found.get(name))
    return found


def _default(name: str, value: Json, notes: Notes) -> _Variable | None:
    written = notes.document.scalars.get(("vars", name))
    if value is None or written is None:
        return None
    if _VARIABLE.search(written.text):
        notes.add(("vars", name), "a variable's value cannot hold another variable")
    return _Variable(value, written.text)


def _given(text: str, before: _Variable | None) -> _Variable:
    """A value from outside: text where the recipe's own value is text, else read as YAML."""
    is_text = before is not None and isinstance(before.value, str)
    return _Variable(text if is_text else parse_scalar(text), text)


class _Filling:
    """Replaces variables by their values; `used` has the names of those that were met."""

    def __init__(self, variables: Mapping[str, _Variable | None], notes: Notes) -> None:
        self.used: set[str] = set()
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

    def _look_up(self, name: str, path: Path_) -> _Variable:
        self.used.add(name)
        variable = self._variables.get(name)
        if variable is not None:
            return variable
        if name in self._variables:
            message = f"variable {shown(name)} has no value"
            hint = f"Give it one with --set {name}=VALUE"
            on = (
                f", or in the environment variable {name}"
                if name in self._notes.environment
                else ""
            )
            self._notes.add(path, message, f"{hint}{on}.")
        else:
            hint = did_you_mean(name, self._variables) or "Declare it under `vars`, or under `env`."
            self._notes.add(path, f"there is no variable {shown(name)}", hint)
        self._failed.add(path)
        return _Variable("", "")
