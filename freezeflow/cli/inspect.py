"""``freezeflow inspect``."""

from __future__ import annotations

import json
import sys

import click

from freezeflow import api
from freezeflow.cli.options import json_option, model_options
from freezeflow.cli.wrap import colored
from freezeflow.report.inspection import inspection_to_json, render_inspection
from freezeflow.values import ModelSource


@click.command
@model_options
@click.option("--all", "everything", is_flag=True, help="List all variables and ops.")
@click.option(
    "--check-weights", is_flag=True, help="Read all weights and check their checksums, too."
)
@json_option
def command(
    source: ModelSource,
    everything: bool,
    check_weights: bool,
    as_json: bool,
) -> int:
    """Show what MODEL is: signatures, variables, ops, and what would stop a freeze.

    Each signature is frozen for trial, in memory. MODEL is named as for `freezeflow freeze`.
    """
    found = api.inspect(source, check_weights=check_weights)
    if as_json:
        click.echo(json.dumps(inspection_to_json(found)))
    else:
        color = colored(sys.stdout)
        click.echo(render_inspection(found, everything=everything, color=color))
    return 0
