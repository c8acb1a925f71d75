"""What failed steps left to explain themselves, one folder for each step, replaced by the next one."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from pathlib import Path
from typing import NamedTuple

from freezeflow.store.files import remove_tree, write_atomically, writing_failed
from freezeflow.values import Digest

_ABOUT = "step.json"


class Failure(NamedTuple):
    """What a failed step left.

    Args:
        path: The folder.
        recipe: The recipe file.
        key: The key of the step.
        nbytes: What its files take.
        modified_ns: When it was left.
    """

    path: Path
    recipe: str
    key: str
    nbytes: int
    modified_ns: int


class Failures:
    """The folders below a folder, by the step's name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, name: str, evidence: Path, *, recipe: str, step: str, key: Digest) -> Path:
        """Moves a folder of evidence in, in place of an earlier one of the same step.

        Args:
            name: What the folder is called.
            evidence: The folder, on the store's own disk.
            recipe: The recipe file.
            step: The step's id there.
            key: The key of the step that failed.

        Returns:
            Where it is now.

        Raises:
            FreezeflowError: It cannot be moved.
        """
        path = self.folder / name
        about = {"recipe": recipe, "step": step, "key": key.hex}
        try:
            # Never through a link that a confined process may have put there.
            write_atomically(evidence / _ABOUT, [json.dumps(about).encode()])
            self.folder.mkdir(exist_ok=True)
            self.forget(name)
            os.rename(evidence, path)
        except OSError as error:
            raise writing_failed(error, path) from error
        return path

    def find(self, name: str, key: Digest) -> Path | None:
        """The evidence of a step, if it failed with this key."""
        path = self.folder / name
        with contextlib.suppress(OSError, ValueError, KeyError):
            if json.loads((path / _ABOUT).read_text())["key"] == key.hex:
                return path
        return None

    def all(self) -> list[Failure]:
        """All that is there, the oldest first; a folder that does not say what it is counts, too."""
        found = []
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            about: dict[str, str] = {}
            with contextlib.suppress(OSError, ValueError):
                about = json.loads((path / _ABOUT).read_text())
            with contextlib.suppress(OSError):  # a run has just replaced it
                files = [each.lstat() for each in path.rglob("*")]
                nbytes = sum(status.st_size for status in files if stat.S_ISREG(status.st_mode))
                recipe, key = about.get("recipe", ""), about.get("key", "")
                found.append(Failure(path, recipe, key, nbytes, path.stat().st_mtime_ns))
        return sorted(found, key=lambda failure: (failure.modified_ns, failure.path))

    def forget(self, name: str) -> None:
        """Removes the evidence of a step, if there is some."""
        if (self.folder / name).exists():
            remove_tree(self.folder / name)
