"""``freezeflow lock``."""

from __future__ import annotations

import json
import sys

import click

from freezeflow.api import releases
from freezeflow.cli.options import json_option, set_option
from freezeflow.cli.run import exit_code, progress
from freezeflow.cli.wrap import colored, tell
from freezeflow.errors import ValidationFailed
from freezeflow.release.lock_check import LockReport
from freezeflow.report.lock import check_to_json, render_check, render_written, written_to_json
from freezeflow.report.run import render_failure


@click.command
@click.argument("recipe", type=click.Path())
@click.option("--check", is_flag=True, help="Run nothing; tell which lines do not hold.")
@click.option(
    "--model", "models", multiple=True, metavar="NAME", help="Only this model; repeat for more."
)
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Steps side by side.",
)
@set_option
@json_option
def command(
    recipe: str,
    check: bool,
    models: tuple[str, ...],
    jobs: int | None,
    set_vars: dict[str, str],
    as_json: bool,
) -> int:
    """Write RECIPE.lock: what the recipe gives, to the byte, and all that it depends on.

    What is not cached is run first. `freezeflow run --locked` then refuses to differ. With --check
    nothing runs and nothing is written: exit code 4 if a line does not hold.
    """
    if check:
        return _tell_check(releases.check_lock(recipe, set_vars=set_vars, models=models), as_json)
    with progress() as on_event:
        done = releases.lock(recipe, set_vars=set_vars, models=models, jobs=jobs, on_event=on_event)
    if done.lock is None:
        for step in done.result.failures:
            click.echo(render_failure(step, color=colored(sys.stderr)), err=True)
        if as_json:
            tell(*(step.error for step in done.result.failures if step.error), as_json=True)
        return exit_code(done.result.failures)
    click.echo(json.dumps(written_to_json(done.lock)) if as_json else render_written(done.lock))
    return 0


def _tell_check(report: LockReport, as_json: bool) -> int:
    if as_json:
        click.echo(json.dumps(check_to_json(report)))
        return ValidationFailed.exit_code if report.mismatches else 0
    report.raise_if_broken()
    click.echo(render_check(report))
    return 0
