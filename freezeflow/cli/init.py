"""``freezeflow init``."""

from __future__ import annotations

from pathlib import Path

import click

from freezeflow import api
from freezeflow.cli.options import model_options
from freezeflow.errors import UsageError
from freezeflow.report.recipe import starter_recipe
from freezeflow.store.files import write_atomically
from freezeflow.values import ModelSource


@click.command
@model_options
@click.option(
    "-o",
    "--output",
    "to",
    type=click.Path(path_type=Path),
    metavar="RECIPE.yaml",
    help="File to write.",
)
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def command(
    source: ModelSource,
    to: Path | None,
    force: bool,
) -> int:
    """Write a starter recipe for MODEL, from its own signatures.

    It goes to RECIPE.yaml, or to standard output. MODEL is named as for `freezeflow freeze`.
    """
    if to is not None and to.exists() and not force:
        raise UsageError(
            "there is such a file already",
            where=str(to),
            hint="Choose another name, or replace it with --force.",
        )
    folder = Path.cwd() if to is None else to.absolute().parent
    text = starter_recipe(api.inspect(source), source, folder=folder)
    if to is None:
        click.echo(text, nl=False)
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(to, [text.encode()])
    click.echo(f"{to}: run it with `freezeflow run {to}`")
    return 0
