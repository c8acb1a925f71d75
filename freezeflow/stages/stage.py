"""What a stage is: its parameters, a plain function, and what the engine must know to run it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from freezeflow.context import Context
from freezeflow.graph.model import Model
from freezeflow.values import Json, ModelSource


@dataclasses.dataclass(frozen=True, kw_only=True)
class WrittenFile:
    """A file that a stage published outside the cache.

    Args:
        path: Absolute path of the file.
        sha256: SHA-256 of its bytes, 64 hex digits.
        nbytes: Its size in bytes.
    """

    path: Path
    sha256: str
    nbytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageInput:
    """What a stage gets to work on.

    Args:
        model: The model that the stage before handed on; None for ``load``.
        source: Where the recipe's model comes from (``load`` reads it, ``validate`` compares with it).
    """

    model: Model | None
    source: ModelSource


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a stage gives back; it never prints.

    Args:
        model: The model for the next stage (validate and export hand on the one they got).
        files: What was published, first the main file.
        facts: Figures and findings as JSON: ``nodes_removed``, ``bytes_folded``, a verdict.
    """

    model: Model
    files: tuple[WrittenFile, ...] = ()
    facts: Mapping[str, Json] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage as the registry knows it.

    Args:
        name: Its name in recipes.
        summary: One line for ``freezeflow stages`` and the reference page.
        version: Raised whenever the same input and parameters give another result.
        params: The frozen dataclass of its parameters.
        run: The work itself.
        role: ``load`` starts a chain, ``transform`` changes a model, ``check`` and ``export`` hand it on.
        in_tensorflow: It needs TensorFlow, so it runs in a confined process of its own.
        reads_source: Its result depends on the original model, too (validate).
        tools: Packages whose versions belong to its key, e.g. ``("tensorflow",)``.
        problems: Checks that need more than one parameter at once, for ``freezeflow check``:
            returns (parameter name or "", message) for each mistake.
    """

    name: str
    summary: str
    version: int
    params: type[Any]
    run: Callable[[StageInput, Any, Context], Outcome]
    role: Literal["load", "transform", "check", "export"] = "transform"
    in_tensorflow: bool = False
    reads_source: bool = False
    tools: tuple[str, ...] = ()
    problems: Callable[[Any], list[tuple[str, str]]] = lambda params: []

    def runs_apart(self, source: ModelSource) -> bool:
        """Whether it runs in a confined process with TensorFlow, for this source."""
        return self.in_tensorflow or (self.role == "load" and source.needs_tensorflow)
