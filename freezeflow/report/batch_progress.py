"""What a run of many models tells while it goes on: a line for each model, and how far it has come."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from freezeflow.engine.events import (
    CacheShared,
    Event,
    PlanEnded,
    RunEnded,
    RunStarted,
    RunWarned,
    StepEnded,
    StepStarted,
    StepWarned,
)
from freezeflow.engine.results import StepResult
from freezeflow.report.progress import shared_line
from freezeflow.report.text import count, paint, seconds


class Tally:
    """Hears a run's events and counts.

    Attributes:
        plans: How many there are.
        done: How many are over, those in which nothing ran among them.
        failed: In how many of these a step has failed.
        skipped: How many of the others were not reached.
    """

    def __init__(self) -> None:
        self.plans = 0
        self.done = 0
        self.failed = 0
        self.skipped = 0
        self._steps_left = 0
        self._steps_ran = 0
        self._began: float | None = None

    def __call__(self, event: Event) -> None:
        """Counts."""
        match event:
            case RunStarted(steps=steps, plans=plans):
                self.plans, self._steps_left = plans, steps
            case StepStarted() if self._began is None:
                self._began = time.monotonic()
            case StepEnded(result=result):
                # One whose result was lost ends twice.
                self._steps_left = max(0, self._steps_left - 1)
                self._steps_ran += result.status == "ran"
            case PlanEnded(results=results):
                self.done += 1
                statuses = {step.status for step in results}
                self.failed += "failed" in statuses
                self.skipped += "skipped" in statuses and "failed" not in statuses
            case _:
                pass

    def seconds_left(self) -> float | None:
        """About how long it will take yet; None where nothing has run."""
        if self._began is None or self._steps_ran == 0:
            return None
        return (time.monotonic() - self._began) / self._steps_ran * self._steps_left


class ModelLines:
    """Hears a run's events and prints a line for each model that is over.

    Models in which nothing ran, and those in which nothing more ran, are counted and told in one line.

    Args:
        write: Prints a line.
        color: Whether with colours.
    """

    def __init__(self, write: Callable[[str], None], *, color: bool = False) -> None:
        self.tally = Tally()
        self._write = write
        self._color = color
        self._cached = 0
        self._skipped = 0

    def __call__(self, event: Event) -> None:
        self.tally(event)
        match event:
            case StepWarned(ref=ref, message=message):
                self._write(f"{ref.label}: {self._warning()} {message}")
            case RunWarned(message=message):
                self._write(f"{self._warning()} {message}")
            case CacheShared():
                self._write(shared_line(event))
            case StepStarted():
                self._tell_cached()
            case PlanEnded(results=results) if all(step.status == "cached" for step in results):
                self._cached += 1
            case PlanEnded(results=results) if not any(_has_run(step) for step in results):
                self._skipped += 1
            case PlanEnded(results=results):
                self._tell_cached()
                self._write(self._line(results))
            case RunEnded():
                self._cached = 0
                self._tell_skipped()
            case _:
                pass

    def _line(self, results: Sequence[StepResult]) -> str:
        """``[ 12/1000] resnet50  done  1.20 s``."""
        width = len(str(self.tally.plans))
        head = f"[{self.tally.done:>{width}}/{self.tally.plans}] {results[0].ref.plan}"
        failed = [step for step in results if step.status == "failed"]
        if failed:
            error = failed[0].error
            message = error.message.partition("\n")[0] if error else ""
            mark = paint("FAILED", "red", color=self._color)
            return f"{head}  {mark} {failed[0].ref.step}: {message}"
        if any(step.status == "skipped" for step in results):
            return f"{head}  {paint('skipped', 'yellow', color=self._color)}"
        took = sum(step.facts["seconds"] for step in results if step.status == "ran")
        return f"{head}  {paint('done', 'green', color=self._color)}  {seconds(took)}"

    def _warning(self) -> str:
        return paint("warning:", "yellow", color=self._color)

    def _tell_cached(self) -> None:
        if self._cached:
            self._write(f"{count(self._cached, 'model is', 'models are')} cached")
            self._cached = 0

    def _tell_skipped(self) -> None:
        if self._skipped:
            word = paint("skipped", "yellow", color=self._color)
            self._write(f"{count(self._skipped, 'model was', 'models were')} {word}")
            self._skipped = 0


def _has_run(step: StepResult) -> bool:
    return step.status in ("ran", "failed")


def tally_line(tally: Tally, running: int) -> str:
    """``312 of 1,000 models done, 3 failed, 2 steps running, about 3 min 20 s left``."""
    parts = [f"{tally.done:,} of {count(tally.plans, 'model')} done"]
    if tally.failed:
        parts.append(f"{tally.failed:,} failed")
    if tally.skipped:
        parts.append(f"{tally.skipped:,} skipped")
    parts.append(f"{count(running, 'step')} running")
    left = tally.seconds_left()
    if left is not None:
        parts.append(f"about {seconds(left)} left")
    return ", ".join(parts)
