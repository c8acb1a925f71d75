"""Which revision of a git repository something is built from."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

# What differs from the revision and is listed by name.
_LISTED = 5


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """A git repository's state.

    Args:
        commit: The commit that is checked out.
        changed: Files that differ from it, or that it does not have.
    """

    commit: str
    changed: tuple[str, ...]

    def changes(self) -> str:
        """The changed files, in words."""
        more = len(self.changed) - _LISTED
        return ", ".join(self.changed[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def revision_of(folder: Path, needed: Sequence[Path]) -> Revision | None:
    """The revision of the repository that a folder is in; None without git or a repository.

    Args:
        folder: The folder.
        needed: Files that the build depends on: one that git does not know counts as changed, where
            other untracked files do not.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    changed = _git(folder, "status", "--porcelain=v1", "-z", "--untracked-files=no") or ""
    names = [entry[3:] for entry in changed.split("\0") if len(entry) > 3]
    inside = [path for path in needed if path.is_file()]
    known = _git(folder, "ls-files", "-z", "--full-name", "--", *map(os.fspath, inside)) or ""
    tracked = {Path(name).name for name in known.split("\0")}
    names += [path.name for path in inside if path.name not in tracked]
    return Revision(commit=commit.strip(), changed=tuple(dict.fromkeys(names)))


def _git(folder: Path, *words: str) -> str | None:
    """What git says; None where it fails or is not there."""
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["git", "-C", os.fspath(folder), *words],
            env=environment,
            capture_output=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except OSError:
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None
