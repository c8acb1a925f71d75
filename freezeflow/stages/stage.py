"""What a stage is: its parameters, a plain function, and what the engine must know to run it."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

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
        files: What the steps that it needs have published, if it reads that (`Demands.reads_files`).
    """

    model: Model | None
    source: ModelSource
    files: tuple[WrittenFile, ...] = ()


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


class Demands(NamedTuple):
    """What running a stage takes.

    Args:
        in_tensorflow: A process of its own with TensorFlow, confined unless `confines_itself`.
        confines_itself: It starts the confined processes itself (`Context.confined`).
        reads_files: It reads what the steps that it needs have published.
        versions: Further versions that belong to the step's key, by name.
        tools: Packages whose versions belong to the key.
    """

    in_tensorflow: bool
    tools: tuple[str, ...] = ()
    versions: Mapping[str, str] = types.MappingProxyType({})
    confines_itself: bool = False
    reads_files: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """A parameter whose value decides which further parameters there are.

    Args:
        name: The parameter's name; it has a default.
        builtin: The values that freezeflow itself brings.
        names: Every value, those that plugins bring, too.
        params: The stage's ``Params`` with those that belong to a value, as a dataclass. Raises
            UsageError if a plugin's cannot be had.
        summary: One line on a value, for the reference page.
    """

    name: str
    builtin: tuple[str, ...]
    names: Callable[[], tuple[str, ...]]
    params: Callable[[str], type[Any]]
    summary: Callable[[str], str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage as the registry knows it.

    Args:
        name: Its name in recipes.
        summary: One line for ``freezeflow stages`` and the reference page.
        version: Raised whenever the same input and parameters give another result.
        params: The frozen dataclass of its parameters.
        choice: The one of them that brings further parameters, if there is one.
        run: The work itself.
        role: ``load`` starts a chain, ``transform`` changes a model, ``check`` and ``export`` hand it on.
        in_tensorflow: It needs TensorFlow, so it runs in a confined process of its own.
        reads_source: Its result depends on the original model, too (validate).
        tools: Packages whose versions belong to its key, e.g. ``("tensorflow",)``.
        demands: What running it takes, where that depends on the parameters.
        problems: Checks that need more than one parameter at once, for ``freezeflow check``:
            returns (parameter name or "", message) for each mistake.
        following: The same for a step with its parameters behind others: gets their stages' names and
            parameters, in the order of its needs.
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
    choice: Choice | None = None
    demands: Callable[[Any], Demands] | None = None
    problems: Callable[[Any], list[tuple[str, str]]] = lambda params: []
    following: Callable[[Any, Sequence[tuple[str, Any]]], list[tuple[str, str]]] = (
        lambda params, before: []
    )

    def params_for(self, values: Mapping[str, Json]) -> type[Any]:
        """The dataclass of the parameters that there are where they have these values."""
        if self.choice is None:
            return self.params
        chosen = values.get(self.choice.name, self.usual_choice)
        builtin, names = self.choice.builtin, self.choice.names
        known = isinstance(chosen, str) and (chosen in builtin or chosen in names())
        return self.choice.params(chosen) if known else self.params

    @property
    def usual_choice(self) -> str:
        """The default of the parameter that brings others; empty where there is none."""
        if self.choice is None:
            return ""
        default: str = self.params.__dataclass_fields__[self.choice.name].default
        return default

    def demands_of(self, params: Any, source: ModelSource) -> Demands:
        """What it takes to run it with these parameters on a model from this source."""
        if self.demands is not None:
            return self.demands(params)
        loads = self.role == "load" and source.needs_tensorflow
        return Demands(in_tensorflow=self.in_tensorflow or loads)
