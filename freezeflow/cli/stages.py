"""``freezeflow stages``."""

from __future__ import annotations

import json
import sys

import click

from freezeflow.cli.options import json_option
from freezeflow.cli.wrap import colored
from freezeflow.report.stages import render_stage, render_stages, stages_to_json
from freezeflow.stages.registry import stage_modules, stage_named


@click.command
@click.argument("name", required=False)
@json_option
def command(name: str | None, as_json: bool) -> int:
    """List the stages, those of plugins too; with NAME, the parameters of one."""
    stages = [stage_named(each) for each in ([name] if name else stage_modules())]
    color = colored(sys.stdout)
    if as_json:
        click.echo(json.dumps(stages_to_json(stages)))
    elif name:
        click.echo(render_stage(stages[0], color=color))
    else:
        click.echo(render_stages(stages, color=color))
    return 0
