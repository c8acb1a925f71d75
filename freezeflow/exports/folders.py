"""Folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from freezeflow.errors import StageFailed
from freezeflow.store import kernel
from freezeflow.store.background import settle
from freezeflow.store.files import new_beside, sync_folder, writing_failed

# An older folder on its way out, where two folders cannot change places in one step.
_OLD = "old"


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
        descriptor, aside = new_beside(target, "parts", _create, _remove_leftover(target))
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
        os.close(descriptor)  # last: its lock tells others that the folder is in use


def _create(path: Path) -> int:
    while True:
        os.mkdir(path, 0o700)
        with contextlib.suppress(FileNotFoundError):  # taken for a leftover before it was opened
            return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _remove_leftover(target: Path) -> Callable[[Path], None]:
    def remove(aside: Path) -> None:
        # Its process may have ended between the two steps that replace an older folder.
        if (aside / _OLD).exists() and not target.exists():
            os.rename(aside / _OLD, target)
        shutil.rmtree(aside)

    return remove


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
    if not target.exists():
        os.rename(made, target)
    elif not kernel.exchange(made, target):
        old = aside / _OLD
        os.rename(target, old)
        try:
            os.rename(made, target)
        except OSError:
            os.rename(old, target)
            raise
    sync_folder(target.parent)
