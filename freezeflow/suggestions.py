"""What was probably meant by a name that is not there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

# Among more names than these none is suggested: comparing takes time.
_COMPARED = 300

# As many names are listed where none is near.
_LISTED = 12


def near_miss(word: str, known: Iterable[str]) -> str | None:
    """The known word that was most likely meant."""
    import difflib

    names = sorted(known)
    if len(names) > _COMPARED:
        return None
    by_lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(word.lower(), by_lower, n=3, cutoff=0.6)
    if not near:
        return None

    def likeness(name: str) -> tuple[float, bool]:
        # Of two that are as near, the one with the same letters was mistyped: flod is fold, not load.
        ratio = difflib.SequenceMatcher(None, name, word.lower()).ratio()
        return round(ratio, 2), sorted(name) == sorted(word.lower())

    return by_lower[max(near, key=likeness)]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint with the nearest known word, or with all of them where there are few.

    They are listed in their order if they have one, else sorted.
    """
    names = list(known) if isinstance(known, Sequence) else sorted(known)
    near = near_miss(word, names)
    if near:
        return f"Did you mean {near!r}?"
    return f"There are: {', '.join(names)}." if 0 < len(names) <= _LISTED else ""


def near_path(path: Path) -> Path | None:
    """What was probably meant by a path at which there is nothing: one that is there, or None."""
    if path.parts[:1] == ("~",):
        expanded = path.expanduser()
        return expanded if expanded.exists() else near_path(expanded)
    for part in (path, *path.parents):
        if part.parent.is_dir():
            try:
                near = near_miss(part.name, os.listdir(part.parent))
            except OSError:
                return None
            meant = part.parent / (near or "") / path.relative_to(part)
            return meant if near not in (None, part.name) and meant.exists() else None
    return None
