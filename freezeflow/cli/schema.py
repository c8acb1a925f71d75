"""``freezeflow schema``."""

from __future__ import annotations

import json

import click


@click.command
def command() -> int:
    """Print the JSON schema of recipes, with the stages of installed plugins.

    \b
    For an editor with the YAML language server, in the first line of a recipe:
      # yaml-language-server: $schema=recipe.schema.json
    """
    from freezeflow.spec.schema import recipe_schema

    click.echo(json.dumps(recipe_schema(), indent=2))
    return 0
