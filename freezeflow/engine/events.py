"""What a run tells while it goes on: one frozen value for each thing that happens."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from freezeflow.engine.results import RunResult, StepRef, StepResult


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """A run begins.

    Args:
        steps: How many steps it has.
        plans: How many plans they belong to.
    """

    steps: int
    plans: int


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
class PlanEnded:
    """All steps of a plan have ended, in this way; in the plan's order."""

    results: Sequence[StepResult]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded:
    """A run is over."""

    result: RunResult


Event = (
    RunStarted
    | StepStarted
    | StepWarned
    | RunWarned
    | CacheShared
    | StepEnded
    | PlanEnded
    | RunEnded
)
OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Hears nothing."""
