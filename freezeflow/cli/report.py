"""``freezeflow report``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from freezeflow.cli.options import json_option
from freezeflow.cli.wrap import colored
from freezeflow.errors import UsageError
from freezeflow.report.merge import merge, render_merged


@click.group
def command() -> None:
    """Put results of runs together."""


@command.command("merge")
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", "to", type=click.Path(path_type=Path), metavar="FILE", help="Write it there."
)
@json_option
def merge_command(results: tuple[Path, ...], to: Path | None, as_json: bool) -> int:
    """Merge RESULTS, files that `freezeflow run --json` printed, of the shards of a batch.

    Of a model that is in several files the last one counts. The exit code is 1 if a step failed in
    any of them.
    """
    merged = merge([(str(path), _read(path)) for path in results])
    text = json.dumps(merged.data)
    if to is not None:
        from freezeflow.store.files import write_atomically

        write_atomically(to, [f"{text}\n".encode()])
    click.echo(text if as_json else render_merged(merged, color=colored(sys.stdout)))
    return 0 if merged.ok else 1


def _read(path: Path) -> object:
    try:
        data: object = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except ValueError:
        hint = "Merge what `freezeflow run --json` printed."
        raise UsageError("is not JSON", where=str(path), hint=hint) from None
    return data
