"""``freezeflow run``."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence

import click

from freezeflow import api
from freezeflow.cli.options import json_option, select_option, set_option, setting_option
from freezeflow.cli.wrap import colored, tell
from freezeflow.engine.events import OnEvent
from freezeflow.engine.results import StepResult
from freezeflow.errors import RecipeError
from freezeflow.plan import selected
from freezeflow.report.progress import Lines, LiveWhenRunning
from freezeflow.report.run import (
    FEW_PLANS,
    is_idle,
    render_failure,
    render_nothing_to_do,
    render_run,
    run_to_json,
)
from freezeflow.settings import kinds


@click.command
@click.argument("recipes", nargs=-1, required=True, type=click.Path(), metavar="RECIPE...")
@setting_option("-j", "--jobs", kind=kinds.jobs, metavar="N", help="Steps side by side, or auto.")
@setting_option(
    "--executor", kind=kinds.text, metavar="WHERE", help="dask://host:8786, dask-local:2, ..."
)
@setting_option(
    "--mem-limit", kind=kinds.size, metavar="SIZE", help="Memory for running steps: 8GB."
)
@setting_option(
    "--step-timeout", kind=kinds.duration, metavar="TIME", help="End a step after so long: 15m."
)
@setting_option(
    "--retries", kind=kinds.times, metavar="N", help="Tries again when a step's process dies."
)
@click.option("--force", is_flag=True, help="Run every step, also what is cached.")
@click.option(
    "--keep-going/--no-keep-going",
    default=None,
    help="When a step fails, go on with the others.",
)
@click.option("--only", metavar="STEP", help="Only the steps of this stage or id, and their needs.")
@click.option("--locked", is_flag=True, help="Refuse to differ from RECIPE.lock.")
@select_option
@set_option
@json_option
def command(
    recipes: tuple[str, ...],
    jobs: int | None,
    executor: str | None,
    mem_limit: int | None,
    step_timeout: float | None,
    retries: int | None,
    force: bool,
    keep_going: bool | None,
    only: str | None,
    locked: bool,
    select: tuple[str, ...],
    set_vars: dict[str, str],
    as_json: bool,
) -> int:
    """Run recipes; what is cached is not run again.

    A step runs when the contents of its inputs, its parameters or its tools have changed. Progress
    goes to standard error, the summary to standard output.
    """
    request = {"select": select, "only": only}
    began_ns = time.time_ns()
    may_be_short = not (force or locked or as_json)
    if may_be_short and (steps := api.steps_up_to_date(recipes, request, set_vars=set_vars)):
        seconds = (time.time_ns() - began_ns) / 1e9
        click.echo(render_nothing_to_do(steps, seconds, color=colored(sys.stdout)))
        return 0
    batch = api.load_batch(recipes, set_vars=set_vars)
    if batch.mistakes:
        tell(*batch.mistakes, as_json=as_json)
        return RecipeError.exit_code
    plans = selected(batch.plans, select)
    with progress() as on_event:
        result = api.run(
            plans,
            jobs=jobs,
            executor=executor,
            mem_limit=mem_limit,
            step_timeout=step_timeout,
            retries=retries,
            force=force,
            keep_going=keep_going,
            only=only,
            locked=locked,
            on_event=on_event,
        )
    if len(plans) > FEW_PLANS and is_idle(result.steps):
        api.keep_up_to_date(recipes, request, plans, result, began_ns=began_ns, set_vars=set_vars)
    for step in result.failures:
        click.echo(render_failure(step, color=colored(sys.stderr)), err=True)
    if as_json:
        click.echo(json.dumps(run_to_json(plans, result)))
    else:
        click.echo(render_run(plans, result, color=colored(sys.stdout)))
    return exit_code(result.failures)


def exit_code(failures: Sequence[StepResult]) -> int:
    """That of the failures where all are of one kind, else 1."""
    codes = {step.error.exit_code for step in failures if step.error is not None}
    return codes.pop() if len(codes) == 1 else 1 if codes else 0


@contextlib.contextmanager
def progress() -> Iterator[OnEvent]:
    """Live on a terminal from the moment at which something runs, else a line for each step."""
    color = colored(sys.stderr)
    lines = Lines(lambda line: click.echo(line, err=True), color=color)
    if not (sys.stderr.isatty() and os.environ.get("TERM") != "dumb"):
        yield lines
        return
    progress = LiveWhenRunning(lines, color=color)
    try:
        yield progress
    finally:
        progress.close()
