"""``freezeflow cache push``, ``pull`` and ``new-key``: the cache that is shared with others."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import TypeVar

import click

from freezeflow.api import shared_cache
from freezeflow.cli.options import json_option, set_option, setting_option
from freezeflow.report.text import count, size
from freezeflow.settings import kinds

F = TypeVar("F", bound=Callable[..., object])

FORMAT = "freezeflow.traffic/1"


def _options(function: F) -> F:
    recipes = click.argument("recipes", nargs=-1, type=click.Path(), metavar="[RECIPE]...")
    remote = setting_option(
        "--remote",
        kind=kinds.address,
        metavar="URL",
        help="The shared cache; else as in the settings.",
    )
    return recipes(remote(set_option(json_option(function))))


@click.command
@_options
def push(
    recipes: tuple[str, ...], remote: str | None, set_vars: dict[str, str], as_json: bool
) -> int:
    """Take results to the shared cache.

    Those of the steps of RECIPEs, as far as they are cached; without a RECIPE all that the cache holds.
    """
    went = shared_cache.push(recipes or None, set_vars=set_vars, remote=remote, on_warning=_warn)
    if as_json:
        click.echo(json.dumps({"format": FORMAT, **dataclasses.asdict(went)}))
    else:
        click.echo(f"{count(went.pushed, 'result')} pushed, {size(went.pushed_bytes)}")
    return 0


@click.command
@_options
def pull(
    recipes: tuple[str, ...], remote: str | None, set_vars: dict[str, str], as_json: bool
) -> int:
    """Bring results from the shared cache, with the weights that are not here.

    Those of the steps of RECIPEs, with the files that they publish; without a RECIPE all that it holds.
    Nothing runs.
    """
    went = shared_cache.pull(recipes or None, set_vars=set_vars, remote=remote, on_warning=_warn)
    if as_json:
        click.echo(json.dumps({"format": FORMAT, **dataclasses.asdict(went)}))
    else:
        click.echo(f"{count(went.fetched, 'result')} fetched, {size(went.fetched_bytes)}")
    return 0


def _warn(message: str) -> None:
    click.echo(f"warning: {message}", err=True)


@click.command("new-key")
@json_option
def new_key(as_json: bool) -> int:
    """Make a pair of keys for signing what is shared.

    The secret one belongs into the environment of whoever writes, the public one into the settings of
    all who read.
    """
    from freezeflow.store.remote.signing import new_key_pair

    keys = new_key_pair()
    if as_json:
        click.echo(json.dumps({"format": "freezeflow.key/1", **keys._asdict()}))
        return 0
    click.echo(f"FREEZEFLOW_REMOTE_SIGNING_KEY={keys.secret}")
    click.echo(f'remote.trusted_keys = ["{keys.public}"]')
    return 0
