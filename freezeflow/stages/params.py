"""How a stage declares its parameters: a frozen dataclass whose fields are made by `param`.

The dataclass is the only source: the recipe schema, the defaults, the reference page and the
command line's help all come from it. Field types that are understood: bool, int, float, str,
Literal, InputPath, OutputPath, ``tuple[T, ...]``, ``Mapping[str, T]``, ``T | None``, and nested
dataclasses made the same way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NewType

# A file that the stage reads, in a recipe relative to the recipe's folder; its content's digest is
# part of the step's key.
InputPath = NewType("InputPath", str)

# A file that the stage writes, in a recipe relative to the recipe's folder; it may not leave the
# project unless the recipe says so.
OutputPath = NewType("OutputPath", str)


def param(
    doc: str,
    *,
    default: Any = dataclasses.MISSING,
    default_factory: Callable[[], Any] | Any = dataclasses.MISSING,
    minimum: float | None = None,
    maximum: float | None = None,
    shorthand: bool = False,
    affects_result: bool = True,
) -> Any:
    """A field of a stage's ``Params``.

    Args:
        doc: One or two sentences for the schema and the reference page.
        default: Value when the recipe leaves it out; without one the parameter is required.
        default_factory: As for ``dataclasses.field``.
        minimum: Smallest number allowed.
        maximum: Largest number allowed.
        shorthand: ``- stage: VALUE`` in a recipe fills this parameter. At most one per stage.
        affects_result: False for what cannot change the result (a number of threads); such a
            parameter is left out of the step's key.
    """
    metadata = {
        "doc": doc,
        "minimum": minimum,
        "maximum": maximum,
        "shorthand": shorthand,
        "affects_result": affects_result,
    }
    if default_factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=default_factory, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)
