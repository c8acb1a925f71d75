"""``freezeflow replay``."""

from __future__ import annotations

import json
import sys

import click

from freezeflow.api import proofs
from freezeflow.cli.options import json_option, select_option, set_option
from freezeflow.cli.wrap import colored


@click.command
@click.argument("what", type=click.Path())
@select_option
@set_option
@json_option
def command(what: str, select: tuple[str, ...], set_vars: dict[str, str], as_json: bool) -> int:
    """Run a comparison again, on the same inputs.

    WHAT is a folder that a failed validation left (its failing part of both graphs is run), or a
    recipe (its validations are made again on the inputs of the last ones). Exit codes: 0 equal, 4 not.
    """
    from freezeflow.report.verdict import render_replay

    found = proofs.replay(what, set_vars=set_vars, select=select)
    if as_json:
        click.echo(json.dumps(found))
    else:
        click.echo("\n\n".join(render_replay(item, color=colored(sys.stdout)) for item in found))
    return 0 if all(item["equal"] for item in found) else 4
