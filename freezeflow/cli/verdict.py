"""``freezeflow verdict``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from freezeflow.api import proofs
from freezeflow.cli.options import json_option, select_option, set_option
from freezeflow.cli.wrap import colored


@click.command
@click.argument("recipe", type=click.Path())
@click.option(
    "--junit", "to", type=click.Path(path_type=Path), metavar="OUT.xml", help="Write JUnit's XML."
)
@select_option
@set_option
@json_option
def command(
    recipe: str,
    to: Path | None,
    select: tuple[str, ...],
    set_vars: dict[str, str],
    as_json: bool,
) -> int:
    """Show what the validations of RECIPE found, from the cache; also those that failed.

    Exit codes: 0 all passed, 4 one failed, 1 one has not run as it is now.
    """
    from freezeflow.report.verdict import render_verdicts, verdicts_to_json, verdicts_to_junit

    found = proofs.verdicts(recipe, set_vars=set_vars, select=select)
    if to is not None:
        from freezeflow.store.files import write_atomically

        write_atomically(to, [verdicts_to_junit(found).encode()])
    if as_json:
        click.echo(json.dumps(verdicts_to_json(found)))
    elif to is None:
        click.echo(render_verdicts(found, color=colored(sys.stdout)))
    states = {step.state for step in found}
    return 4 if "failed" in states else int("unknown" in states)
