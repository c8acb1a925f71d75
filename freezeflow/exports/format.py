"""What an export format is, and what it is given to write."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from freezeflow.context import Context
from freezeflow.graph.model import Model
from freezeflow.graph.original import Original
from freezeflow.installed import version_of
from freezeflow.params import param
from freezeflow.runtimes.runtime import Runtime
from freezeflow.store.files import Written


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoParams:
    """For a format without parameters of its own."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GraphForm:
    """Parameters of formats that hold TensorFlow's own graph."""

    devices: bool = param(
        "Keep the devices that the model's author asked for; without them it runs anywhere.",
        default=False,
    )
    drop_defaults: bool = param(
        "Leave out attributes that equal the op's default, for older versions of TensorFlow.",
        default=False,
    )
    target: str | None = param(
        'The release of TensorFlow that has to read it, as in "2.4" (1.15 or later): what came later is'
        " left out where it is at its default; a model that needs it is refused, with what it needs.",
        default=None,
    )


def form_problems(params: GraphForm) -> list[tuple[str, str]]:
    """A release that there never was."""
    if params.target is None:
        return []
    from freezeflow.graph.targets import releases

    if params.target in releases():
        return []
    known = ", ".join(releases())
    return [("target", f"{params.target!r} is no release of TensorFlow; known are {known}")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What is to be written.

    Args:
        model: A valid model in canonical form.
        to: The file or folder, absolute.
        recipe_digest: Digest of the recipe, for the manifest; None without one.
        params: The export's parameters, an instance of the format's ``params``.
        original: Reads what it takes to run the original model, which a check compares with; only a
            confined process may ask for it.
        context: What the step may use of the house.
        warmup: The source's file with TensorFlow Serving's warm-up requests, if it has one.
    """

    model: Model
    to: Path
    recipe_digest: str | None
    params: Any
    original: Callable[[], Original]
    context: Context
    warmup: Path | None = None


class ExportedFile(NamedTuple):
    """A file that was published: its absolute path, and what it holds."""

    path: Path
    written: Written


class Export(NamedTuple):
    """What a format gives back.

    Args:
        files: What was published, first the main file.
        facts: Figures and findings as JSON: the check's verdict, what varies between two runs.
    """

    files: tuple[ExportedFile, ...]
    facts: dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportFormat:
    """A format as the registry knows it.

    Args:
        name: Its name in recipes.
        summary: One line for the reference page.
        write: Publishes everything or nothing. Raises a FreezeflowError if the model cannot be
            written in this format.
        version: Raised whenever the same model and parameters give other bytes.
        suffixes: What the name of the file may end in; empty for a folder.
        params: The frozen dataclass of its own parameters; in a recipe they stand beside ``format``
            and ``to``. One named ``check`` says whether its runtime checks the export.
        extra: The extra of freezeflow that brings its packages: ``pip install 'freezeflow[EXTRA]'``.
        tools: Packages that writing takes; their versions belong to the key.
        runtimes: What runs it; the first checks an export, of a SavedModel all do.
        in_tensorflow: Writing takes a process with TensorFlow, which the format confines.
        versions: Further versions that belong to the key, by name.
        problems: Further checks of its parameters: (parameter's name or "", message) for each mistake.
        streams: It may copy weights that are still being checked: it publishes nothing but by
            `publication`, `write_atomically` or `published_folder`, which wait for the checks.
    """

    name: str
    summary: str
    write: Callable[[ExportRequest], Export]
    version: int = 1
    suffixes: tuple[str, ...] = ()
    params: type[Any] = NoParams
    extra: str = ""
    tools: tuple[str, ...] = ()
    runtimes: tuple[Runtime, ...] = ()
    in_tensorflow: bool = False
    versions: Callable[[Any], Mapping[str, str]] = lambda params: {}
    problems: Callable[[Any], list[tuple[str, str]]] = lambda params: []
    streams: bool = False

    def is_checked(self, params: Any) -> bool:
        """Whether the export is checked by the format's runtime."""
        return getattr(params, "check", False) is not False

    def needed_tools(self, params: Any) -> tuple[str, ...]:
        """Every package that an export with these parameters takes."""
        return (*self.tools, *(self.runtimes[0].tools if self.is_checked(params) else ()))

    def missing(self, params: Any) -> str:
        """Which packages are not installed and how to get them; empty if all are there."""
        return self.missing_of(self.needed_tools(params))

    def missing_of(self, tools: Iterable[str]) -> str:
        """The same for some packages."""
        gone = [name for name in dict.fromkeys(tools) if version_of(name) is None]
        if not gone:
            return ""
        are = "is" if len(gone) == 1 else "are"
        command = f"pip install 'freezeflow[{self.extra}]'" if self.extra else "install them"
        return f"{self.name} needs {' and '.join(gone)}, which {are} not installed: {command}"
