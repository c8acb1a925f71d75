"""What a run tells while it goes on: a line for each step that ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

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
from freezeflow.report.text import count, paint, seconds, size

if TYPE_CHECKING:
    from freezeflow.report.batch_progress import ModelLines
    from freezeflow.report.live import LiveProgress

_MARKS = {"ran": ("done", "green"), "failed": ("FAILED", "red"), "skipped": ("skipped", "yellow")}


def step_line(result: StepResult, *, color: bool = False) -> str:
    """``digits: fold    done    1.20 s``."""
    word, style = _MARKS[result.status]
    took = seconds(result.facts["seconds"]) if result.status == "ran" else ""
    mark = paint(f"{word:<7}", style, color=color)
    return f"{result.ref.plan}: {result.ref.step:<12} {mark} {took}".rstrip()


def shared_line(event: CacheShared) -> str:
    """``shared cache: 3 results fetched (1.2 MB), 2 pushed (40 KB)``."""
    parts = []
    if event.fetched:
        parts.append(f"{count(event.fetched, 'result')} fetched ({size(event.fetched_bytes)})")
    if event.pushed:
        parts.append(f"{count(event.pushed, 'result')} pushed ({size(event.pushed_bytes)})")
    return f"shared cache: {', '.join(parts)}"


class Lines:
    """Hears a run's events and prints a line for each step that ends.

    Steps that are cached are counted and told in one line, and only where something runs.

    Args:
        write: Prints a line.
        color: Whether with colours.
    """

    def __init__(self, write: Callable[[str], None], *, color: bool = False) -> None:
        self._write = write
        self._color = color
        self._cached = 0

    def __call__(self, event: Event) -> None:
        match event:
            case StepStarted():
                self._tell_cached()
            case StepWarned(ref=ref, message=message):
                word = paint("warning:", "yellow", color=self._color)
                self._write(f"{ref.label}: {word} {message}")
            case RunWarned(message=message):
                self._write(f"{paint('warning:', 'yellow', color=self._color)} {message}")
            case CacheShared():
                self._write(shared_line(event))
            case StepEnded(result=result) if result.status == "cached":
                self._cached += 1
            case StepEnded(result=result):
                self._tell_cached()
                self._write(step_line(result, color=self._color))
            case RunStarted() | PlanEnded() | RunEnded():
                pass

    def _tell_cached(self) -> None:
        if self._cached:
            self._write(f"{count(self._cached, 'step is', 'steps are')} cached")
            self._cached = 0


class LiveWhenRunning:
    """Hears a run's events; from the first step that runs, shows what runs now, below the lines.

    Until then nothing is loaded that shows it: where everything is cached there is nothing to see.

    Args:
        lines: Makes what prints a line for what has ended, from what writes a line.
        write: Writes a line as long as nothing runs.
        color: Whether with colours.
    """

    def __init__(
        self,
        lines: Callable[[Callable[[str], None]], Lines | ModelLines],
        write: Callable[[str], None],
        *,
        color: bool,
    ) -> None:
        self._lines = lines(self._write_line)
        self._write = write
        self._color = color
        self._live: LiveProgress | None = None

    def __call__(self, event: Event) -> None:
        if self._live is None and isinstance(event, StepStarted):
            from freezeflow.report.live import LiveProgress

            self._live = LiveProgress(self._lines, color=self._color)
        (self._live or self._lines)(event)

    def close(self) -> None:
        """Puts the terminal in order again."""
        if self._live is not None:
            self._live.close()

    def _write_line(self, line: str) -> None:
        (self._live.print if self._live else self._write)(line)
