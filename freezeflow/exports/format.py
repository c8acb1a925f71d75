"""What an export format is, and what it is given to write."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from freezeflow.graph.model import Model
from freezeflow.store.files import Written


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What is to be written.

    Args:
        model: A valid model in canonical form.
        to: The file or folder, absolute.
        recipe_digest: Digest of the recipe, for the manifest; None without one.
    """

    model: Model
    to: Path
    recipe_digest: str | None


class ExportedFile(NamedTuple):
    """A file that was published: its absolute path, and what it holds."""

    path: Path
    written: Written


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportFormat:
    """A format as the registry knows it.

    Args:
        name: Its name in recipes.
        summary: One line for the reference page.
        write: Publishes everything or nothing; gives what was published, first the main file.
            Raises a FreezeflowError if the model cannot be written in this format.
        suffixes: What the name of the file may end in; empty for a folder.
    """

    name: str
    summary: str
    write: Callable[[ExportRequest], tuple[ExportedFile, ...]]
    suffixes: tuple[str, ...] = ()
