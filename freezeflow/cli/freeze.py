"""``freezeflow freeze``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import click

from freezeflow import api
from freezeflow.cli.options import Scalar, json_option, model_options, values
from freezeflow.report.text import count, short_path, size
from freezeflow.values import Json, ModelSource

FORMAT = "freezeflow.freeze/1"


@click.command
@model_options
@click.option("-o", "--output", "to", type=click.Path(), metavar="OUT.pb", help="File to write.")
@click.option("--bind", multiple=True, callback=values, metavar="NAME=VALUE", help="Fix an input.")
@click.option(
    "--written",
    type=click.Choice(["error", "keep", "drop"]),
    default="error",
    help="A variable that is written and seen: refuse, keep (a recipe can export a SavedModel), or"
    " drop the write.",
)
@click.option(
    "--tables",
    type=click.Choice(["init", "inline"]),
    default="init",
    help="Static tables: keep an initializer, or pure ops.",
)
@click.option(
    "--weights",
    type=click.Choice(["inline", "external"]),
    default="inline",
    help="Large weights: in OUT.pb, or in files beside it, as a model over 2 GB needs it.",
)
@click.option("--recipe", "print_recipe", is_flag=True, help="Print the recipe; freeze nothing.")
@json_option
def command(
    source: ModelSource,
    to: str | None,
    bind: dict[str, Scalar],
    written: Literal["error", "keep", "drop"],
    tables: Literal["init", "inline"],
    weights: Literal["inline", "external"],
    print_recipe: bool,
    as_json: bool,
) -> int:
    """Freeze MODEL into OUT.pb, with OUT.manifest.json beside it.

    MODEL is a SavedModel folder, a .keras or .h5 file, a checkpoint's prefix with its .meta, or a
    .pb or .pbtxt graph. Without --signature: serving_default, else the only one. The same as a
    recipe with load, freeze, strip and export; without TensorFlow (but for Keras files).
    """
    if to is None and not print_recipe:
        raise click.UsageError("Say where to write with -o OUT.pb (or ask for the --recipe).")
    if print_recipe or to is None:
        from freezeflow.report.recipe import recipe_text

        target = to or f"{source.path.stem}.pb"
        text = recipe_text(
            source,
            folder=Path.cwd(),
            to=target,
            bind=bind,
            written=written,
            tables=tables,
            weights=weights,
        )
        click.echo(text, nl=False)
        return 0
    done = api.freeze_to(source, to, bind=bind, written=written, tables=tables, weights=weights)
    for warning in done.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(json.dumps(_to_json(done)) if as_json else _render(done))
    return 0


def _render(done: api.FrozenFiles) -> str:
    graph, manifest, *beside = done.files
    frozen, export = done.facts["freeze"], done.facts["export"]
    what = f"{count(export['nodes'], 'node')}, {size(graph.nbytes)}"
    variables = count(frozen["variables_frozen"], "variable")
    if beside:
        nbytes = sum(file.nbytes for file in beside)
        what += f" and {size(nbytes)} in {count(len(beside), 'file')} beside it"
    return f"{short_path(graph.path)}: {what}, {variables} frozen; {short_path(manifest.path)}"


def _to_json(done: api.FrozenFiles) -> Json:
    return {
        "format": FORMAT,
        "files": [
            {"path": str(file.path), "sha256": file.sha256, "bytes": file.nbytes}
            for file in done.files
        ],
        "stages": [{"stage": stage, "facts": dict(facts)} for stage, facts in done.facts.items()],
        "warnings": list(done.warnings),
    }
