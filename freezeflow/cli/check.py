"""``freezeflow check``."""

from __future__ import annotations

import json

import click

from freezeflow import api
from freezeflow.cli.options import json_option, set_option
from freezeflow.cli.wrap import tell
from freezeflow.errors import RecipeError
from freezeflow.report.errors import error_to_json
from freezeflow.report.text import count

FORMAT = "freezeflow.check/1"


@click.command
@click.argument("recipes", nargs=-1, required=True, type=click.Path(), metavar="RECIPE...")
@set_option
@json_option
def command(recipes: tuple[str, ...], set_vars: dict[str, str], as_json: bool) -> int:
    """Check recipes: every mistake with its line and column, without running anything."""
    rows = []
    for recipe in api.recipe_files(recipes):
        try:
            loaded = api.load_recipes(recipe, set_vars=set_vars)
        except RecipeError as error:
            rows.append({"recipe": str(recipe), "ok": False, "error": error_to_json(error)})
            tell(error)
            continue
        steps, names = 0, []
        for model in loaded:
            steps += len(model.stages)
            names.append(model.name)
        rows.append({"recipe": str(recipe), "ok": True, "steps": steps, "models": names})
        if not as_json:
            models = f"{count(len(loaded), 'model')}, " if len(loaded) > 1 else ""
            click.echo(f"{recipe}: {models}{count(steps, 'step')}, no mistakes")
    ok = all(row["ok"] for row in rows)
    if as_json:
        click.echo(json.dumps({"format": FORMAT, "ok": ok, "recipes": rows}))
    return 0 if ok else RecipeError.exit_code
