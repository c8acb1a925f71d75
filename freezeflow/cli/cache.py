"""``freezeflow cache``: a command for each thing that one does with the cache."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import click

from freezeflow import api
from freezeflow.cli.options import json_option
from freezeflow.cli.sharing import new_key, pull, push
from freezeflow.engine.collecting import clean
from freezeflow.report.cache import (
    cleaned_to_json,
    damage_to_json,
    entries_to_json,
    info_to_json,
    render_cleaned,
    render_entries,
    render_info,
)
from freezeflow.report.text import count
from freezeflow.settings.kinds import size as parse_size
from freezeflow.store import upkeep
from freezeflow.store.collecting import Rules
from freezeflow.store.store import Store


@click.group
def command() -> None:
    """Look after the cache.

    Where it is: `freezeflow config`, or `cache info`. What it holds can be made again: deleting it
    costs time only.
    """


@command.command
@json_option
def info(as_json: bool) -> int:
    """Where it is and how much it holds."""
    with _store() as store:
        found = upkeep.info(store)
    click.echo(json.dumps(info_to_json(found)) if as_json else render_info(found))
    return 0


@command.command("list")
@json_option
def list_entries(as_json: bool) -> int:
    """What it holds, the last used first."""
    with _store() as store:
        found = upkeep.entries(store)
    click.echo(json.dumps(entries_to_json(found)) if as_json else render_entries(found))
    return 0


@command.command
@json_option
def verify(as_json: bool) -> int:
    """Read all of it; name what is damaged (exit code 1 if anything is)."""
    with _store() as store:
        found = upkeep.verify(store)
    if as_json:
        click.echo(json.dumps(damage_to_json(found)))
    else:
        for damage in found:
            click.echo(f"{damage.path}: {damage.message}")
        click.echo(
            f"{count(len(found), 'damaged place')}; a run meets each as a miss and builds it anew"
            if found
            else "all of it is whole"
        )
    return 1 if found else 0


def _bytes(ctx: click.Context, option: click.Parameter, given: str | None) -> int | None:
    if given is None:
        return None
    try:
        return parse_size(given, Path.cwd())
    except ValueError as error:
        raise click.BadParameter(f"{given!r} {error}", ctx=ctx, param=option) from None


@command.command
@click.option("--older-than", type=float, metavar="DAYS", help="What was not used for so long.")
@click.option(
    "--max-size", callback=_bytes, metavar="SIZE", help="The oldest, until 5GB, say, is left."
)
@click.option(
    "--keep", multiple=True, metavar="RECIPE", help="What this uses stays; alone: all else goes."
)
@click.option("--all", "everything", is_flag=True, help="Everything.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@json_option
def gc(
    older_than: float | None,
    max_size: int | None,
    keep: tuple[str, ...],
    everything: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Delete what is not wanted any more; without options, only what nothing needs.

    Runs may be on meanwhile: what they use stays.
    """
    rules = Rules(everything=everything, max_age_days=older_than, max_bytes=max_size)
    roots = [plan for recipe in keep for plan in api.load_plans(recipe)] if keep else None
    with _store() as store:
        gone = clean(store, rules, roots=roots, dry_run=dry_run)
    if as_json:
        click.echo(json.dumps(cleaned_to_json(gone, dry_run=dry_run)))
    else:
        click.echo(render_cleaned(gone, dry_run=dry_run))
    return 0


for _command in (push, pull, new_key):
    command.add_command(_command)


@contextlib.contextmanager
def _store() -> Iterator[Store]:
    store = Store.open(api.load_settings().cache_dir)
    try:
        yield store
    finally:
        store.close()
