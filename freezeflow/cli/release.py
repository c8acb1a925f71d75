"""``freezeflow release``."""

from __future__ import annotations

import json
import sys

import click

from freezeflow.api import releases
from freezeflow.cli.options import json_option, set_option
from freezeflow.cli.run import exit_code, progress
from freezeflow.cli.wrap import colored, tell
from freezeflow.report.release import release_to_json, render_release
from freezeflow.report.run import render_failure


@click.command
@click.argument("recipe", type=click.Path())
@click.option("--to", required=True, type=click.Path(), metavar="DIR", help="The folder to make.")
@click.option("--name", default="", help="What it is called; by default as the recipe.")
@click.option("--version", default="", help="Its version.")
@click.option("--card", type=click.Path(), metavar="FILE.md", help="Text for the model card.")
@click.option("--strict", is_flag=True, help="Refuse a release that has something to be said.")
@click.option("--tar", is_flag=True, help="Write DIR.tar, too.")
@click.option("--oci", is_flag=True, help="Write DIR.oci, too: an OCI image layout.")
@click.option("-j", "--jobs", type=click.IntRange(min=1), metavar="N", help="Steps side by side.")
@set_option
@json_option
def command(
    recipe: str,
    to: str,
    name: str,
    version: str,
    card: str | None,
    strict: bool,
    tar: bool,
    oci: bool,
    jobs: int | None,
    set_vars: dict[str, str],
    as_json: bool,
) -> int:
    """Make a release folder: what RECIPE gives, with the proof of what it is.

    Artifacts, recipe and lock as used, verdicts, provenance, test result, model card, bill of materials,
    and the SHA-256 of everything. A recipe that has a lock is held to it. SOURCE_DATE_EPOCH is the date
    that is written down; without it there is none.
    """
    with progress() as on_event:
        done = releases.release(
            recipe,
            to,
            set_vars=set_vars,
            name=name,
            version=version,
            card=card,
            strict=strict,
            tar=tar,
            oci=oci,
            jobs=jobs,
            on_event=on_event,
        )
    if done.release is None:
        for step in done.result.failures:
            click.echo(render_failure(step, color=colored(sys.stderr)), err=True)
        if as_json:
            tell(*(step.error for step in done.result.failures if step.error), as_json=True)
        return exit_code(done.result.failures)
    packed = [path for path in (done.tar, done.oci) if path is not None]
    if as_json:
        click.echo(json.dumps(release_to_json(done.release, packed, done.image)))
    else:
        click.echo(render_release(done.release, packed, color=colored(sys.stdout)))
    return 0
