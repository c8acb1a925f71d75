"""``freezeflow graph``."""

from __future__ import annotations

import click

from freezeflow import api
from freezeflow.cli.options import set_option
from freezeflow.report.drawing import as_dot, as_mermaid, as_text

_FORMS = {"text": as_text, "mermaid": as_mermaid, "dot": as_dot}


@click.command
@click.argument("recipe", type=click.Path())
@click.option(
    "--format", "form", type=click.Choice(list(_FORMS)), default="text", show_default=True
)
@set_option
def command(recipe: str, form: str, set_vars: dict[str, str]) -> int:
    """Draw the steps of RECIPE and what each needs."""
    click.echo(_FORMS[form](api.load_plan(recipe, set_vars=set_vars)))
    return 0
