"""``freezeflow plan``."""

from __future__ import annotations

import sys

import click

from freezeflow import api
from freezeflow.cli.options import Choice, choose, choosing_options, json_option, set_option
from freezeflow.cli.wrap import colored, tell
from freezeflow.errors import RecipeError
from freezeflow.report.forecast import forecast_to_json, render_forecasts


def _warn(message: str) -> None:
    click.echo(f"warning: {message}", err=True)


@click.command
@click.argument("recipes", nargs=-1, required=True, type=click.Path(), metavar="RECIPE...")
@choosing_options
@set_option
@json_option
def command(
    recipes: tuple[str, ...], choice: Choice, set_vars: dict[str, str], as_json: bool
) -> int:
    """Tell what would run, what is cached, and why.

    For a step that would run again: which field of its key changed, from what to what.
    """
    batch = api.load_batch(recipes, set_vars=set_vars)
    if batch.mistakes:
        tell(*batch.mistakes, as_json=as_json)
        return RecipeError.exit_code
    plans = choose(batch.plans, choice)
    forecasts = api.forecast(plans, on_warning=_warn)
    if as_json:
        pieces = forecast_to_json(plans, forecasts)
    else:
        pieces = render_forecasts(plans, forecasts, color=colored(sys.stdout))
    for piece in pieces:
        click.echo(piece, nl=False)
    return 0
