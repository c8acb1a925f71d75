"""Locks, for people and for programs."""

from __future__ import annotations

from freezeflow.release.lock_check import LockReport, Mismatch
from freezeflow.release.locking import LockWritten
from freezeflow.report.text import count, short_path
from freezeflow.values import Json

WRITTEN = "freezeflow.lock-written/1"
CHECKED = "freezeflow.lock-check/1"

# Names of models that are listed.
_LISTED = 10


def render_written(written: LockWritten) -> str:
    """What became of a lock."""
    where = f"{short_path(written.path)}: {count(written.models, 'model')}"
    if not (written.changed or written.dropped):
        return f"{where}, as before"
    parts = [
        f"{word} {_names(names)}"
        for word, names in (("locked", written.changed), ("dropped", written.dropped))
        if names
    ]
    return f"{where}; {'; '.join(parts)}"


def _names(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{', '.join(names[:_LISTED])}{more}"


def render_check(report: LockReport) -> str:
    """A lock that holds, and what could not be told."""
    lines = [f"{short_path(report.lock.path)} holds: {count(len(report.lock.models), 'model')}"]
    if report.absent:
        what = count(len(report.absent), "locked file is", "locked files are")
        lines.append(f"  {what} not there, so not compared; the run makes them")
    for name, (before, now) in sorted(report.built_with.items()):
        lines.append(f"  built with {name} {before}, now {now}; no byte depends on that")
    return "\n".join(lines)


def written_to_json(written: LockWritten) -> Json:
    """``freezeflow.lock-written/1``."""
    return {
        "format": WRITTEN,
        "lock": str(written.path),
        "models": written.models,
        "changed": list(written.changed),
        "dropped": list(written.dropped),
    }


def check_to_json(report: LockReport) -> Json:
    """``freezeflow.lock-check/1``."""
    return {
        "format": CHECKED,
        "lock": str(report.lock.path),
        "holds": not report.mismatches,
        "mismatches": [mismatch_to_json(found) for found in report.mismatches],
        "absent": [str(path) for path in report.absent],
        "built_with": {name: list(pair) for name, pair in sorted(report.built_with.items())},
    }


def mismatch_to_json(found: Mismatch) -> Json:
    """A line that does not hold."""
    return {**found._asdict(), "field": list(found.field)}
