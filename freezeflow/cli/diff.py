"""``freezeflow diff``."""

from __future__ import annotations

import json
import sys

import click

from freezeflow.api import releases
from freezeflow.cli.options import json_option
from freezeflow.cli.wrap import colored
from freezeflow.errors import FreezeflowError, UsageError
from freezeflow.release.compare import Comparison
from freezeflow.report.diff import diff_to_json, render_diff


@click.command
@click.argument("before", metavar="A", type=click.Path())
@click.argument("after", metavar="B", type=click.Path())
@click.option("--all", "everything", is_flag=True, help="All lines of long lists.")
@click.option(
    "--breaking", "only_breaking", is_flag=True, help="Exit with 1 only if callers of A break."
)
@json_option
def command(before: str, after: str, everything: bool, only_breaking: bool, as_json: bool) -> int:
    """Show how two models differ: nodes, constants, signatures, sizes.

    A and B are each a model as for `freezeflow freeze`, a graph file, a release folder, a recipe (what it
    gave, from the cache), or RECIPE:STEP. Exit codes: 0 no difference, 1 they differ; trouble
    is never 1.
    """
    found = _compared(before, after)
    if as_json:
        click.echo(json.dumps(diff_to_json(found)))
    else:
        click.echo(render_diff(found, everything=everything, color=colored(sys.stdout)))
    return int(found.breaking if only_breaking else not found.same)


def _compared(before: str, after: str) -> Comparison:
    """The comparison; what stops it never has the exit code of a difference."""
    try:
        return releases.diff(before, after)
    except FreezeflowError as error:
        if error.exit_code != 1:
            raise
        raise UsageError(error.message, where=error.where, hint=error.hint) from error
