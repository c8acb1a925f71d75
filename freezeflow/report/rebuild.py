"""What came of a rebuild, for people and for programs."""

from __future__ import annotations

from freezeflow.release.rebuild import EXIT_CODES, Difference, Rebuilt
from freezeflow.report.diff import part_to_json, render_part
from freezeflow.report.text import count, paint
from freezeflow.values import Json

FORMAT = "freezeflow.rebuild/1"

# Digits of a digest that are shown.
_DIGITS = 16

_WORDS = {
    "failed": "The build failed.",
    "timeout": "The build took longer than it may.",
    "mismatch": "It is built otherwise than it was, in the same way each time.",
    "not_deterministic": "It is not deterministic: two builds from nothing differ.",
}


def render_rebuild(found: Rebuilt, *, color: bool = False) -> str:
    """The outcome; on a difference, which files, and how the models differ as graphs."""
    against = "the lock" if found.compared_with == "lock" else "the published files"
    if found.outcome == "same":
        head = paint("The same bytes:", "green", color=color)
        return f"{head} {count(found.files, 'file')} built from nothing, compared with {against}."
    lines = [paint(_WORDS[found.outcome], "red", color=color)]
    lines += [f"  {_line(difference)}" for difference in found.differences]
    if found.differences and not found.parts:
        lines.append("  As graphs they do not differ, or the earlier model is not there any more.")
    parts = [render_part(part, color=color) for part in found.parts]
    return "\n\n".join(["\n".join(lines), *parts])


def _line(difference: Difference) -> str:
    what = difference.file or "its model"
    shown = " → ".join(map(_short, (difference.expected, difference.found)))
    return f"{difference.model}/{difference.step}: {what}: {shown}"


def _short(digest: str) -> str:
    return digest.removeprefix("blake3:")[:_DIGITS] or "(nothing)"


def rebuild_to_json(found: Rebuilt) -> Json:
    """``freezeflow.rebuild/1``."""
    return {
        "format": FORMAT,
        "outcome": found.outcome,
        "exit_code": EXIT_CODES[found.outcome],
        "compared_with": found.compared_with,
        "files": found.files,
        "differences": [difference._asdict() for difference in found.differences],
        "models": [part_to_json(part) for part in found.parts],
    }
