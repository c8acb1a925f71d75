"""``freezeflow config``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from freezeflow.cli.options import json_option
from freezeflow.report.settings import render_settings, settings_to_json
from freezeflow.settings.resolve import resolve, unknown_variables


@click.command
@click.argument("recipe", required=False, type=click.Path(path_type=Path))
@json_option
def command(recipe: Path | None, as_json: bool) -> int:
    """Show the settings, and where each comes from.

    An option of a command goes before a variable FREEZEFLOW_..., that before the project's file
    (freezeflow.toml, or [tool.freezeflow] in pyproject.toml: the nearest upwards from RECIPE, or from
    the current folder), that before the user's ($XDG_CONFIG_HOME/freezeflow/config.toml).
    """
    chosen = resolve([Path.cwd() if recipe is None else recipe.absolute().parent])
    if as_json:
        click.echo(json.dumps(settings_to_json(chosen)))
    else:
        click.echo(render_settings(chosen))
    for name, near in unknown_variables():
        click.echo(f"warning: {name} is no setting; did you mean {near}?", err=True)
    return 0
