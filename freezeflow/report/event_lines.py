"""A run's events as lines of JSON, one object each, written when they happen."""

from __future__ import annotations

import json
import time
from pathlib import Path

from freezeflow.engine.events import (
    Event,
    RunEnded,
    RunStarted,
    RunWarned,
    StepEnded,
    StepStarted,
    StepWarned,
)
from freezeflow.engine.results import StepRef
from freezeflow.report.run import step_to_json
from freezeflow.store.files import writing_failed
from freezeflow.values import Json

FORMAT = "freezeflow.events/1"


class EventFile:
    """Hears a run's events and writes them to a file; `close` closes it.

    Raises:
        FreezeflowError: The file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("w", encoding="utf-8", buffering=1)
        except OSError as error:
            raise writing_failed(error, path) from error

    def __call__(self, event: Event) -> None:
        data = event_to_json(event)
        if data is not None:
            self._file.write(f"{json.dumps({'time': round(time.time(), 6), **data})}\n")

    def close(self) -> None:
        self._file.close()


def event_to_json(event: Event) -> dict[str, Json] | None:
    """``{"event": "step_ended", "recipe": ..., "plan": ..., "step": ..., "status": ...}``."""
    match event:
        case RunStarted(steps=steps):
            return {"event": "run_started", "format": FORMAT, "steps": steps}
        case StepStarted(ref=ref, stage=stage):
            return {"event": "step_started", **_where(ref), "stage": stage}
        case StepWarned(ref=ref, message=message):
            return {"event": "step_warned", **_where(ref), "message": message}
        case RunWarned(message=message):
            return {"event": "run_warned", "message": message}
        case StepEnded(result=result):
            return {"event": "step_ended", **_where(result.ref), **step_to_json(result)}
        case RunEnded(result=result):
            seconds = round(result.seconds, 6)
            return {"event": "run_ended", "ok": result.ok, "seconds": seconds}
    return None


def _where(ref: StepRef) -> dict[str, Json]:
    return {"recipe": str(ref.recipe), "plan": ref.plan, "step": ref.step}
