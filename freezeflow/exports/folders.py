"""Folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from freezeflow.errors import StageFailed
from freezeflow.store.background import settle
from freezeflow.store.files import sync_folder, writing_failed


@contextlib.contextmanager
def published_folder(target: Path, *, belongs: str) -> Iterator[Path]:
    """A folder to write into; it takes the place of `target` when the block ends without an error.

    Args:
        target: The folder's final path; folders above it are made.
        belongs: A file that tells that an older folder there is one of ours, which is replaced.

    Raises:
        StageFailed: Something else is there.
        FreezeflowError: The folder cannot be written.
    """
    _check_replaceable(target, belongs)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise writing_failed(error, target) from error
    try:
        made = aside / target.name
        made.mkdir()
        yield made
        settle()
        try:
            _publish(made, target, aside)
        except OSError as error:
            raise writing_failed(error, target) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _check_replaceable(target: Path, belongs: str) -> None:
    if not target.exists() or (target / belongs).is_file():
        return
    if target.is_dir() and not any(target.iterdir()):
        return
    raise StageFailed(
        "something else is there, so it is not replaced",
        where=str(target),
        hint="Choose another path, or move it away.",
    )


def _publish(made: Path, target: Path, aside: Path) -> None:
    for folder, _, _ in os.walk(made):
        os.chmod(folder, 0o755)
        sync_folder(folder)
    old = aside / "old"
    if target.exists():
        os.rename(target, old)
    try:
        os.rename(made, target)
    except OSError:
        if old.exists():
            os.rename(old, target)
        raise
    sync_folder(target.parent)
