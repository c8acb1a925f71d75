"""What a run tells while it goes on: one frozen value for each thing that happens."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

from freezeflow.engine.results import RunResult, StepRef, StepResult


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """A run begins.

    Args:
        steps: How many steps it has.
        plans: Recipe and name of each plan, to how many of the steps are its.
    """

    steps: int
    plans: Mapping[tuple[Path, str], int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StepStarted:
    """A step is not cached and begins to run."""

    ref: StepRef
    stage: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StepWarned:
    """A step has something to say to the user, or the cache has lost what it gave."""

    ref: StepRef
    message: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunWarned:
    """Something that all steps use does not work as it should."""

    message: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CacheShared:
    """So many results came from the shared cache, and so many went to it, with their bytes."""

    fetched: int
    fetched_bytes: int
    pushed: int
    pushed_bytes: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StepEnded:
    """A step has a result: cached, ran, failed or skipped."""

    result: StepResult


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded:
    """A run is over."""

    result: RunResult


Event = RunStarted | StepStarted | StepWarned | RunWarned | CacheShared | StepEnded | RunEnded
OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Hears nothing."""
