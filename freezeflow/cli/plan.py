"""``freezeflow plan``."""

from __future__ import annotations

import json
import sys

import click

from freezeflow import api
from freezeflow.cli.options import json_option, set_option
from freezeflow.cli.wrap import colored
from freezeflow.report.forecast import forecast_to_json, render_forecast


@click.command
@click.argument("recipe", type=click.Path())
@set_option
@json_option
def command(recipe: str, set_vars: dict[str, str], as_json: bool) -> int:
    """Tell what would run, what is cached, and why.

    For a step that would run again: which field of its key changed, from what to what.
    """
    plan = api.load_plan(recipe, set_vars=set_vars)
    forecasts = api.forecast(plan)
    if as_json:
        click.echo(json.dumps(forecast_to_json(plan, forecasts)))
    else:
        click.echo(render_forecast(plan, forecasts, color=colored(sys.stdout)))
    return 0
