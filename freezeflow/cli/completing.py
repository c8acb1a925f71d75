"""What a shell offers for a word that a recipe knows: its steps, its models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click

from freezeflow import api
from freezeflow.errors import FreezeflowError
from freezeflow.plan import Plan


def steps(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Ids of the steps of the recipes that stand on the line."""
    return _fitting((step.id for plan in _plans(ctx) for step in plan.steps), incomplete)


def models(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of the models of the recipes that stand on the line."""
    return _fitting((plan.name for plan in _plans(ctx)), incomplete)


def _fitting(words: Iterable[str], incomplete: str) -> list[str]:
    return [word for word in dict.fromkeys(words) if word.startswith(incomplete)]


def _plans(ctx: click.Context) -> Sequence[Plan]:
    """Of recipes that cannot be read nothing is offered: the command tells what is wrong with them."""
    one = ctx.params.get("recipe")
    # Before an option that has no value yet click does not tell arguments apart.
    recipes = [one] if one else ctx.params.get("recipes") or ctx.args
    try:
        return api.load_batch(recipes, set_vars=ctx.params.get("set_vars")).plans
    except FreezeflowError:
        return ()
