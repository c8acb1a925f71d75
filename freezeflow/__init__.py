"""freezeflow turns TensorFlow models into frozen, self-contained graphs by version-controlled recipes.

What is listed here is stable; `freezeflow.api` documents it. Nothing is imported before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from freezeflow.version import VERSION as __version__

if TYPE_CHECKING:
    from freezeflow.api import (
        FrozenFiles,
        cached_log,
        cached_model,
        forecast,
        freeze,
        freeze_to,
        inspect,
        load_graph,
        load_plans,
        load_recipes,
        run,
    )
    from freezeflow.api.releases import check_lock, diff, lock, rebuild, release, sign, verify
    from freezeflow.engine.results import RunResult, StepResult
    from freezeflow.errors import (
        FreezeflowError,
        MissingExtra,
        ModelRefused,
        RecipeError,
        StageFailed,
        UsageError,
        ValidationFailed,
    )
    from freezeflow.graph.inspection import Inspection
    from freezeflow.graph.model import Model

__all__ = [
    "FreezeflowError",
    "FrozenFiles",
    "Inspection",
    "MissingExtra",
    "Model",
    "ModelRefused",
    "RecipeError",
    "RunResult",
    "StageFailed",
    "StepResult",
    "UsageError",
    "ValidationFailed",
    "__version__",
    "cached_log",
    "cached_model",
    "check_lock",
    "diff",
    "forecast",
    "freeze",
    "freeze_to",
    "inspect",
    "load_graph",
    "load_plans",
    "load_recipes",
    "lock",
    "rebuild",
    "release",
    "run",
    "sign",
    "verify",
]

# Each name and the module that it comes from; the others are from `freezeflow.api`.
_HOMES = {
    **dict.fromkeys(
        (
            "FreezeflowError",
            "MissingExtra",
            "ModelRefused",
            "RecipeError",
            "StageFailed",
            "UsageError",
            "ValidationFailed",
        ),
        "freezeflow.errors",
    ),
    **dict.fromkeys(("RunResult", "StepResult"), "freezeflow.engine.results"),
    **dict.fromkeys(
        ("check_lock", "diff", "lock", "rebuild", "release", "sign", "verify"),
        "freezeflow.api.releases",
    ),
    "Inspection": "freezeflow.graph.inspection",
    "Model": "freezeflow.graph.model",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value: object = getattr(importlib.import_module(_HOMES.get(name, "freezeflow.api")), name)
    globals()[name] = value
    return value
