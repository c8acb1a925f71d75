"""``freezeflow init``."""

from __future__ import annotations

from pathlib import Path

import click

from freezeflow import api
from freezeflow.cli.options import names
from freezeflow.errors import UsageError
from freezeflow.report.recipe import starter_recipe
from freezeflow.store.files import write_atomically


@click.command
@click.argument("model", type=click.Path())
@click.option("-o", "--output", "to", type=click.Path(path_type=Path), metavar="RECIPE.yaml")
@click.option("--tags", callback=names, metavar="A,B", help="The meta graph's; '' for none.")
@click.option("--inputs", callback=names, metavar="A,B", help="For a graph without signatures.")
@click.option("--outputs", callback=names, metavar="A,B", help="For a graph without signatures.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def command(
    model: str,
    to: Path | None,
    tags: tuple[str, ...] | None,
    inputs: tuple[str, ...] | None,
    outputs: tuple[str, ...] | None,
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
    source = api.find_source(model, tags=tags, inputs=inputs or (), outputs=outputs or ())
    folder = Path.cwd() if to is None else to.absolute().parent
    text = starter_recipe(api.inspect(source), source, folder=folder)
    if to is None:
        click.echo(text, nl=False)
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(to, [text.encode()])
    click.echo(f"{to}: run it with `freezeflow run {to}`")
    return 0
