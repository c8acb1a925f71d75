"""``freezeflow run``."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from freezeflow import api
from freezeflow.cli import completing
from freezeflow.cli.options import (
    Choice,
    choose,
    choosing_options,
    json_option,
    set_option,
    setting_option,
    shard_option,
)
from freezeflow.cli.wrap import colored, tell
from freezeflow.engine.events import Event, OnEvent
from freezeflow.engine.options import Shard
from freezeflow.engine.results import RunResult, StepResult
from freezeflow.errors import RecipeError
from freezeflow.plan import Plan
from freezeflow.report.progress import Lines, LiveWhenRunning
from freezeflow.report.run import (
    FEW_PLANS,
    render_failure,
    render_nothing_to_do,
    render_run,
    run_to_json,
)
from freezeflow.settings import kinds

if TYPE_CHECKING:
    from freezeflow.report.batch_progress import ModelLines

_FILE = click.Path(path_type=Path, dir_okay=False)


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
@click.option(
    "--only",
    metavar="STEP",
    shell_complete=completing.steps,
    help="Only the steps of this stage or id, and their needs.",
)
@click.option("--locked", is_flag=True, help="Refuse to differ from RECIPE.lock.")
@choosing_options
@shard_option
@click.option("--events", type=_FILE, metavar="FILE", help="Write what happens, as lines of JSON.")
@click.option("--junit", type=_FILE, metavar="FILE", help="Write the result as JUnit XML.")
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
    choice: Choice,
    shard: Shard | None,
    events: Path | None,
    junit: Path | None,
    set_vars: dict[str, str],
    as_json: bool,
) -> int:
    """Run recipes, or folders of them; what is cached is not run again.

    A step runs when the contents of its inputs, its parameters or its tools have changed. Progress
    goes to standard error, the summary to standard output. The first Ctrl-C lets steps finish that
    run side by side, the second one ends them; the same command goes on where it was.
    """
    request = {"select": choice.select, "only": only}
    began_ns = time.time_ns()
    is_plain = not (force or locked or shard or choice.changed_since or choice.failed)
    if is_plain and not (as_json or events or junit):
        record = api.up_to_date_record(recipes, request, set_vars=set_vars)
        steps = record.steps() if record else None
        if steps is not None:
            took = (time.time_ns() - began_ns) / 1e9
            click.echo(render_nothing_to_do(steps, took, color=colored(sys.stdout)))
            return 0
    batch = api.load_batch(recipes, set_vars=set_vars)
    if batch.mistakes:
        tell(*batch.mistakes, as_json=as_json)
        return RecipeError.exit_code
    plans = choose(batch.plans, choice, shard)
    record = None
    if is_plain and len(plans) > FEW_PLANS:
        record = api.up_to_date_record(recipes, request, set_vars=set_vars)
    with progress(many=len(plans) > FEW_PLANS, events=events) as on_event:
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
    if record and result.ok:
        api.keep_up_to_date(record, plans, result, began_ns=began_ns)
    if junit is not None:
        _write_junit(junit, plans, result)
    for step in result.failures:
        click.echo(render_failure(step, color=colored(sys.stderr)), err=True)
    if as_json:
        for piece in run_to_json(plans, result, shard=shard):
            click.echo(piece, nl=False)
        click.echo()
    else:
        click.echo(render_run(plans, result, color=colored(sys.stdout)))
    return exit_code(result.failures)


def _write_junit(path: Path, plans: Sequence[Plan], result: RunResult) -> None:
    from freezeflow.report.junit import run_to_junit
    from freezeflow.store.files import write_atomically

    write_atomically(path, [run_to_junit(plans, result)])


def exit_code(failures: Sequence[StepResult]) -> int:
    """That of the failures where all are of one kind, else 1."""
    codes = {step.error.exit_code for step in failures if step.error is not None}
    return codes.pop() if len(codes) == 1 else 1 if codes else 0


@contextlib.contextmanager
def progress(*, many: bool = False, events: Path | None = None) -> Iterator[OnEvent]:
    """Live on a terminal from the moment at which something runs, else a line for what has ended.

    Args:
        many: There are many models: each gets a line, and not each step.
        events: A file that gets all events, too.
    """
    with contextlib.ExitStack() as stack:
        hearers = [stack.enter_context(_shown(many=many))]
        if events is not None:
            from freezeflow.report.event_lines import EventFile

            hearers.append(stack.enter_context(contextlib.closing(EventFile(events))))

        def hear(event: Event) -> None:
            for hearer in hearers:
                hearer(event)

        yield hear


@contextlib.contextmanager
def _shown(*, many: bool) -> Iterator[OnEvent]:
    color = colored(sys.stderr)
    lines = functools.partial(_lines(many=many), color=color)
    if not (sys.stderr.isatty() and os.environ.get("TERM") != "dumb"):
        yield lines(_write_line)
        return
    shown = LiveWhenRunning(lines, _write_line, color=color)
    try:
        yield shown
    finally:
        shown.close()


def _write_line(line: str) -> None:
    click.echo(line, err=True)


def _lines(*, many: bool) -> type[Lines | ModelLines]:
    """What prints a line for each step that has ended, or for each model of many."""
    if not many:
        return Lines
    from freezeflow.report.batch_progress import ModelLines

    return ModelLines
