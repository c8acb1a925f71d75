"""Files that cannot be read, or stand in for others: pointers of Git LFS and git-annex, pages of a server.

Source of the formats: the Git LFS specification (``docs/spec.md``), git-annex's ``pointer file``.
"""

from __future__ import annotations

from pathlib import Path

from freezeflow.errors import ModelRefused

# Longer than the head of any of them.
_HEAD_BYTES = 256

_LFS = b"version https://git-lfs.github.com/spec/"
_ANNEX = b"/annex/objects/"
_PAGES = (b"<!doctype html", b"<html")


def pointer(path: Path) -> ModelRefused | None:
    """The refusal of a file that is only a pointer to the wanted one; None for any other file."""
    head = _head(path)
    if head.startswith(_LFS):
        return ModelRefused(
            "this is a Git LFS pointer, not the file itself",
            where=str(path),
            hint="Fetch the files that such pointers stand for: git lfs pull.",
        )
    if head.startswith(_ANNEX):
        return ModelRefused(
            "this is a git-annex pointer, not the file itself",
            where=str(path),
            hint="Fetch the file: git annex get, and unlock it.",
        )
    return None


def stand_in(path: Path) -> ModelRefused | None:
    """The same for a file that can be no text: a page is none, either."""
    if _head(path).lstrip().lower().startswith(_PAGES):
        return ModelRefused(
            "this is an HTML page, not the file itself",
            where=str(path),
            hint="Download it again: the server sent a page instead, as for a login or an error.",
        )
    return pointer(path)


def unreadable(error: OSError, where: Path) -> ModelRefused:
    """The refusal of a file that the system does not let us read."""
    return ModelRefused(
        f"cannot be read: {error.strerror}",
        where=str(where),
        hint="Check that it is a file, and that you may read it.",
    )


def _head(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError:
        return b""
