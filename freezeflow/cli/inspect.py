"""``freezeflow inspect``."""

from __future__ import annotations

import json
import sys

import click

from freezeflow import api
from freezeflow.cli.options import json_option, names
from freezeflow.cli.wrap import colored
from freezeflow.report.inspection import inspection_to_json, render_inspection


@click.command
@click.argument("model", type=click.Path())
@click.option("--signature", "signatures", multiple=True, metavar="NAME", help="Only these.")
@click.option("--tags", callback=names, metavar="A,B", help="The meta graph's; '' for none.")
@click.option("--inputs", callback=names, metavar="A,B", help="For a graph without signatures.")
@click.option("--outputs", callback=names, metavar="A,B", help="For a graph without signatures.")
@click.option("--all", "everything", is_flag=True, help="List all variables and ops.")
@json_option
def command(
    model: str,
    signatures: tuple[str, ...],
    tags: tuple[str, ...] | None,
    inputs: tuple[str, ...] | None,
    outputs: tuple[str, ...] | None,
    everything: bool,
    as_json: bool,
) -> int:
    """Show what MODEL is: signatures, variables, ops, and what would stop a freeze.

    Each signature is frozen for trial, in memory. MODEL is named as for `freezeflow freeze`.
    """
    source = api.find_source(
        model,
        signatures=signatures or None,
        tags=tags,
        inputs=inputs or (),
        outputs=outputs or (),
    )
    found = api.inspect(source)
    if as_json:
        click.echo(json.dumps(inspection_to_json(found)))
    else:
        color = colored(sys.stdout)
        click.echo(render_inspection(found, everything=everything, color=color))
    return 0
