"""Variables filled into a recipe's values: ``${name}`` from `vars`, `--set` and `env`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from freezeflow.spec.notes import Notes
from freezeflow.spec.problems import did_you_mean
from freezeflow.spec.tree import Path_, parse_scalar
from freezeflow.values import Json

# ``$$`` stands for a dollar sign.
_VARIABLE = re.compile(r"\$\$|\$\{([^}]*)\}")

# Blocks in which variables are declared, not used.
_DECLARING = ("vars", "env")


def fill_variables(data: Mapping[str, Json], set_vars: Mapping[str, str], notes: Notes) -> Json:
    """The recipe's values with every variable replaced.

    A value that is nothing but one variable gets the variable's own type.
    """
    values = _declared(data, set_vars, notes)
    return {
        key: value if key in _DECLARING else _filled(value, (key,), values, notes)
        for key, value in data.items()
    }


def _declared(
    data: Mapping[str, Json], set_vars: Mapping[str, str], notes: Notes
) -> dict[str, Json]:
    block = data.get("vars")
    values: dict[str, Json] = dict(block) if isinstance(block, dict) else {}
    for name, text in set_vars.items():
        if name not in values:
            hint = did_you_mean(name, values) or "Declare it under `vars`, with a default."
            notes.add(("vars",), f"--set {name}: the recipe has no variable {name!r}", hint, key=True)
        values[name] = parse_scalar(text)
    names = data.get("env")
    for index, name in enumerate(names if isinstance(names, list) else []):
        if not isinstance(name, str):
            continue
        notes.environment[name] = os.environ.get(name)
        if name not in os.environ:
            notes.add(("env", index), f"environment variable {name} is not set", "Set it, or drop it.")
        values.setdefault(name, os.environ.get(name, ""))
    return values


def _filled(value: Json, path: Path_, values: Mapping[str, Json], notes: Notes) -> Json:
    if isinstance(value, dict):
        return {k: _filled(v, (*path, k), values, notes) for k, v in value.items()}
    if isinstance(value, list):
        return [_filled(v, (*path, i), values, notes) for i, v in enumerate(value)]
    if not isinstance(value, str) or "$" not in value:
        return value

    def look_up(name: str) -> Json:
        if name in values:
            return values[name]
        hint = did_you_mean(name, values) or "Declare it under `vars`, or list it under `env`."
        notes.add(path, f"there is no variable {name!r}", hint)
        return ""

    whole = _VARIABLE.fullmatch(value)
    if whole and whole[1] is not None:
        return look_up(whole[1])
    return _VARIABLE.sub(lambda m: "$" if m[1] is None else str(look_up(m[1])), value)
