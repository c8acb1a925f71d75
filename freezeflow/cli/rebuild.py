"""``freezeflow rebuild``."""

from __future__ import annotations

import json
import sys

import click

from freezeflow.api import releases
from freezeflow.cli.options import json_option, set_option
from freezeflow.cli.run import progress
from freezeflow.cli.wrap import colored
from freezeflow.errors import UsageError
from freezeflow.release.rebuild import EXIT_CODES
from freezeflow.report.rebuild import rebuild_to_json, render_rebuild
from freezeflow.report.run import render_failure


@click.command
@click.argument("recipe", type=click.Path())
@click.option("--check", is_flag=True, help="Compare; nothing is overwritten.")
@click.option(
    "--model", "models", multiple=True, metavar="NAME", help="Only this model; repeat for more."
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="How long a build may take.",
)
@click.option("-j", "--jobs", type=click.IntRange(min=1), metavar="N", help="Steps side by side.")
@set_option
@json_option
def command(
    recipe: str,
    check: bool,
    models: tuple[str, ...],
    timeout: float | None,
    jobs: int | None,
    set_vars: dict[str, str],
    as_json: bool,
) -> int:
    """Build RECIPE again from nothing, with an empty cache, and compare to the byte.

    It is compared with RECIPE.lock, else with what the recipe has published. Exit codes: 0 the same bytes,
    100 the build failed, 101 it took too long, 102 it is built otherwise than it was, 104 it is built
    otherwise each time.
    """
    if not check:
        hint = "To build in place, with the cache, there is `freezeflow run`."
        raise UsageError("rebuild only compares: say --check", hint=hint)
    with progress() as on_event:
        found = releases.rebuild(
            recipe,
            set_vars=set_vars,
            models=models,
            seconds=timeout,
            jobs=jobs,
            on_event=on_event,
        )
    if found.outcome == "failed" and found.result is not None:
        for step in found.result.failures:
            click.echo(render_failure(step, color=colored(sys.stderr)), err=True)
    if as_json:
        click.echo(json.dumps(rebuild_to_json(found)))
    else:
        click.echo(render_rebuild(found, color=colored(sys.stdout)))
    return EXIT_CODES[found.outcome]
