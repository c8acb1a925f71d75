"""The progress of a run on a terminal: what runs now and for how long, below what has ended."""

from __future__ import annotations

import time

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from freezeflow.engine.events import Event, StepEnded, StepStarted
from freezeflow.engine.results import StepRef
from freezeflow.report.batch_progress import ModelLines, tally_line
from freezeflow.report.progress import Lines
from freezeflow.report.text import seconds


class LiveProgress:
    """Hears a run's events; `close` puts the terminal in order again.

    Args:
        lines: Prints a line for what has ended, by `print`; where it counts models, how far the run has
            come is shown, too.
        color: Whether with colours.
    """

    def __init__(self, lines: Lines | ModelLines, *, color: bool) -> None:
        self._console = Console(stderr=True, no_color=not color, highlight=False)
        self._running: dict[StepRef, tuple[str, float]] = {}
        self._spinner = Spinner("dots")
        self._live = Live(
            get_renderable=self._render,
            console=self._console,
            refresh_per_second=10,
            transient=True,
        )
        self._lines = lines
        self._live.start()

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepStarted):
            self._running[event.ref] = (event.stage, time.monotonic())
        elif isinstance(event, StepEnded):
            self._running.pop(event.result.ref, None)
        self._lines(event)

    def close(self) -> None:
        """Takes away the moving part; what has been printed stays."""
        self._live.stop()

    def print(self, line: str) -> None:
        """Prints a line that stays, above the moving part."""
        self._console.print(Text.from_ansi(line), soft_wrap=True)

    def _render(self) -> RenderableType:
        now = time.monotonic()
        running = [
            f"{ref.label} ({seconds(now - since)})" for ref, (_, since) in self._running.items()
        ]
        if not running:
            return Group()
        self._spinner.update(text=Text(", ".join(running), overflow="ellipsis", no_wrap=True))
        if not isinstance(self._lines, ModelLines):
            return self._spinner
        return Group(Text(tally_line(self._lines.tally, len(running))), self._spinner)
