"""Publishes the model in a format; the format brings further parameters."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

from freezeflow.context import Context
from freezeflow.errors import StageFailed, UsageError
from freezeflow.exports.format import ExportRequest, GraphForm
from freezeflow.exports.registry import FORMATS, format_named, format_names
from freezeflow.graph.canonical import canonical
from freezeflow.graph.original import WARMUP_REQUESTS, Original
from freezeflow.graph.verify import check, unknown_ops
from freezeflow.params import OutputPath, param
from freezeflow.stages.stage import Choice, Demands, Outcome, Stage, StageInput, WrittenFile
from freezeflow.store.background import settle
from freezeflow.values import ModelSource


@dataclasses.dataclass(frozen=True, kw_only=True)
class Params:
    """Parameters of ``export`` that every format has."""

    to: OutputPath = param(
        "The file or folder to write. A frozen graph ends in .pb, or in .pbtxt for people to read.",
        shorthand=True,
    )
    format: str = param(
        "What to write: a format of freezeflow's, or one that a plugin brings.",
        default="frozen_graph",
    )


@functools.cache
def params_of(name: str) -> type[Any]:
    """The parameters of an export in a format: those of ``export``, then the format's own.

    Raises:
        UsageError: A plugin's format cannot be had.
    """
    own = format_named(name).params
    return dataclasses.make_dataclass(
        f"{name}.Params", [], bases=(own, Params), frozen=True, kw_only=True, namespace={}
    )


def filled(params: Params) -> Any:
    """The parameters with those of the format; defaults where only the common ones were given."""
    own = format_named(params.format).params
    if isinstance(params, own):
        return params
    return params_of(params.format)(to=params.to, format=params.format)


def problems(params: Params) -> list[tuple[str, str]]:
    """What is missing to write the format, and what in the parameters does not suit it."""
    try:
        found = format_named(params.format)
    except UsageError as error:
        return [("format", f"{error.message}. {error.hint}")]
    params = filled(params)
    missing = found.missing(params)
    if missing:
        return [("format", missing)]
    mistakes = list(found.problems(params))
    if found.suffixes and not params.to.endswith(found.suffixes):
        endings = " or ".join(found.suffixes)
        mistakes.append(("to", f"a {found.name} ends in {endings}, not as {params.to!r}"))
    return mistakes


def demands(params: Params) -> Demands:
    """What it takes to write the format; a check runs models, so it takes a process of its own."""
    found, params = format_named(params.format), filled(params)
    apart = found.in_tensorflow or found.is_checked(params)
    return Demands(
        in_tensorflow=apart,
        confines_itself=apart,
        tools=found.needed_tools(params),
        versions={f"format {found.name}": str(found.version), **found.versions(params)},
    )


def run(given: StageInput, params: Params, context: Context) -> Outcome:
    """Writes the canonical form of the model, once more verified, and hands on what it got.

    Raises:
        StageFailed: There is no model, it is not valid, or the path does not suit the format.
        ModelRefused: The format cannot hold the model.
        ValidationFailed: What was written does not mean the same in the format's runtime.
        FreezeflowError: The files cannot be written.
    """
    if given.model is None:
        raise StageFailed("export has no model to write", hint="Put `load` before it.")
    for name, message in problems(params):
        raise StageFailed(message, where=f"export.{name}")
    params = filled(params)
    form = params if isinstance(params, GraphForm) else GraphForm()
    from freezeflow.graph.targets import for_release

    model = canonical(given.model, keep_devices=form.devices, drop_defaults=form.drop_defaults)
    if form.target is not None:
        model = for_release(model, form.target)
    check(model, stage="export")
    request = ExportRequest(
        model=model,
        to=Path(context.base, params.to),
        recipe_digest=context.recipe_digest,
        params=params,
        original=functools.partial(_original, given.source, context),
        context=context,
        warmup=_warmup(given.source),
    )
    chosen = format_named(params.format)
    if not chosen.streams:
        settle()
    published = chosen.write(request)
    files = tuple(
        WrittenFile(path=path, sha256=written.sha256, nbytes=written.nbytes)
        for path, written in published.files
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
            **published.facts,
        },
    )


def _warmup(source: ModelSource) -> Path | None:
    path = source.path / WARMUP_REQUESTS
    return path if source.kind == "saved_model" and path.is_file() else None


def _original(source: ModelSource, context: Context) -> Original:
    from freezeflow.sources.original import original_of

    return original_of(source, context)


STAGE = Stage(
    name="export",
    summary="Publish the model in canonical form, in the format that it has to land in.",
    version=2,
    params=Params,
    run=run,
    role="export",
    choice=Choice(
        name="format",
        builtin=tuple(FORMATS),
        names=format_names,
        params=params_of,
        summary=lambda name: format_named(name).summary,
    ),
    demands=demands,
    problems=problems,
)
