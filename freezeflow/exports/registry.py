"""Which module writes which format; plugins add theirs as entry points ``freezeflow.exports``."""

from __future__ import annotations

import functools
import importlib
from importlib.metadata import EntryPoint

from freezeflow.errors import UsageError
from freezeflow.exports.format import ExportFormat
from freezeflow.runtimes.runtime import Runtime
from freezeflow.suggestions import near_miss

# Name in recipes -> the module that holds its FORMAT.
FORMATS = {
    "frozen_graph": "freezeflow.exports.frozen_graph",
    "saved_model": "freezeflow.exports.saved_model",
    "onnx": "freezeflow.exports.onnx",
    "tflite": "freezeflow.exports.tflite",
    "openvino": "freezeflow.exports.openvino",
    "tfjs": "freezeflow.exports.tfjs",
    "stablehlo": "freezeflow.exports.stablehlo",
    "xla_aot": "freezeflow.exports.xla_aot",
    "coreml": "freezeflow.exports.coreml",
}

# A runtime as `validate` names it -> the format that it runs.
RUNTIMES = {
    "tensorflow": "frozen_graph",
    "tf2_loader": "saved_model",
    "tf1_loader": "saved_model",
    "onnxruntime": "onnx",
    "litert": "tflite",
    "openvino": "openvino",
    "tfjs": "tfjs",
    "tfjs_browser": "tfjs",
    "xla": "stablehlo",
    "xla_aot": "xla_aot",
}

ENTRY_POINTS = "freezeflow.exports"


@functools.cache
def format_named(name: str) -> ExportFormat:
    """The format of that name.

    Raises:
        UsageError: There is none, or two packages bring one of that name, or a plugin's cannot be
            imported or is something else.
    """
    if name in FORMATS:
        found: ExportFormat = importlib.import_module(FORMATS[name]).FORMAT
        return found
    plugins = plugin_formats()
    if name not in plugins:
        raise UsageError(f"there is no export format {name!r}", hint=_suggestion(name, plugins))
    entry = plugins[name]
    try:
        made = entry.load()
    except (ImportError, AttributeError) as error:
        hint = "Install what it needs, or uninstall the package that brings it."
        raise UsageError(f"format {name!r} cannot be imported: {error}", hint=hint) from error
    if not isinstance(made, ExportFormat) or made.name != name:
        place = f"{name} = {entry.value}"
        raise UsageError(f"the entry point {place} of {ENTRY_POINTS} names no format {name!r}")
    return made


def runtime_named(name: str) -> tuple[ExportFormat, Runtime]:
    """A runtime of `RUNTIMES`, with the format that it runs."""
    chosen = format_named(RUNTIMES[name])
    (found,) = [runtime for runtime in chosen.runtimes if runtime.name == name]
    return chosen, found


def format_names() -> tuple[str, ...]:
    """Names of all formats, those of plugins too, sorted.

    Raises:
        UsageError: Two packages bring a format of one name.
    """
    return tuple(sorted({*FORMATS, *plugin_formats()}))


@functools.cache
def plugin_formats() -> dict[str, EntryPoint]:
    """Formats that other packages bring.

    Raises:
        UsageError: Two packages bring a format of one name, or one brings a name of freezeflow's.
    """
    from importlib.metadata import entry_points

    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=ENTRY_POINTS):
        other = found.get(entry.name)
        if other is not None or entry.name in FORMATS:
            owner = "freezeflow" if other is None else _owner(other)
            raise UsageError(
                f"export format {entry.name!r} is brought by both {owner} and {_owner(entry)}",
                hint="Uninstall one of the two packages.",
            )
        found[entry.name] = entry
    return found


def _owner(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.value


def _suggestion(name: str, plugins: dict[str, EntryPoint]) -> str:
    names = sorted({*FORMATS, *plugins})
    near = near_miss(name, names)
    meant = f"Did you mean {near!r}? " if near else ""
    return f"{meant}There are: {', '.join(names)}."
