"""Publishes the model in a format: a frozen graph, a SavedModel."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from freezeflow.context import Context
from freezeflow.errors import StageFailed, UsageError
from freezeflow.exports.format import ExportRequest
from freezeflow.exports.registry import format_named
from freezeflow.graph.canonical import canonical
from freezeflow.graph.verify import check, unknown_ops
from freezeflow.stages.params import OutputPath, param
from freezeflow.stages.stage import Outcome, Stage, StageInput, WrittenFile


@dataclasses.dataclass(frozen=True, kw_only=True)
class Params:
    """Parameters of ``export``."""

    to: OutputPath = param(
        "The file or folder to write. A frozen graph ends in .pb, or in .pbtxt for people to read.",
        shorthand=True,
    )
    format: str = param(
        "What to write: frozen_graph, saved_model, or a format that a plugin brings.",
        default="frozen_graph",
    )
    devices: bool = param(
        "Keep the devices that the model's author asked for; without them it runs anywhere.",
        default=False,
    )
    drop_defaults: bool = param(
        "Leave out attributes that equal the op's default, for older versions of TensorFlow.",
        default=False,
    )


def problems(params: Params) -> list[tuple[str, str]]:
    """An unknown format, or a file name that does not suit it."""
    try:
        suffixes = format_named(params.format).suffixes
    except UsageError as error:
        return [("format", f"{error.message}. {error.hint}")]
    if not suffixes or params.to.endswith(suffixes):
        return []
    return [("to", f"a {params.format} ends in {' or '.join(suffixes)}, not as {params.to!r}")]


def run(given: StageInput, params: Params, context: Context) -> Outcome:
    """Writes the canonical form of the model, once more verified, and hands on what it got.

    Raises:
        StageFailed: There is no model, it is not valid, or the path does not suit the format.
        ModelRefused: The format cannot hold the model.
        FreezeflowError: The files cannot be written.
    """
    if given.model is None:
        raise StageFailed("export has no model to write", hint="put `load` before it")
    for name, message in problems(params):
        raise StageFailed(message, where=f"export.{name}")
    model = canonical(given.model, keep_devices=params.devices, drop_defaults=params.drop_defaults)
    check(model, stage="export")
    request = ExportRequest(
        model=model, to=Path(context.base, params.to), recipe_digest=context.recipe_digest
    )
    published = format_named(params.format).write(request)
    files = tuple(
        WrittenFile(path=path, sha256=written.sha256, nbytes=written.nbytes)
        for path, written in published
    )
    return Outcome(
        model=given.model,
        files=files,
        facts={
            "format": params.format,
            "bytes": sum(file.nbytes for file in files),
            "nodes": len(model.graph.nodes),
            "functions": len(model.graph.functions),
            "unknown_ops": unknown_ops(model),
        },
    )


STAGE = Stage(
    name="export",
    summary="Publish the model in canonical form: a frozen graph with its manifest, a SavedModel.",
    version=1,
    params=Params,
    run=run,
    role="export",
    problems=problems,
)
