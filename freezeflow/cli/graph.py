"""``freezeflow graph``."""

from __future__ import annotations

import click

from freezeflow import api
from freezeflow.cli.options import select_option, set_option
from freezeflow.plan import selected
from freezeflow.report.drawing import as_dot, as_mermaid, as_text

_FORMS = {"text": as_text, "mermaid": as_mermaid, "dot": as_dot}


@click.command
@click.argument("recipe", type=click.Path())
@click.option(
    "--format", "form", type=click.Choice(list(_FORMS)), default="text", show_default=True
)
@select_option
@set_option
def command(recipe: str, form: str, select: tuple[str, ...], set_vars: dict[str, str]) -> int:
    """Draw the steps of RECIPE and what each needs; what is the same for many models, once."""
    plans = selected(api.load_plans(recipe, set_vars=set_vars), select)
    shapes = {tuple((step.id, step.stage, step.needs) for step in p.steps): p for p in plans[::-1]}
    click.echo("\n\n".join(_FORMS[form](plan) for plan in reversed(shapes.values())))
    return 0
