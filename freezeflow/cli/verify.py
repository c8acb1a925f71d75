"""``freezeflow verify``."""

from __future__ import annotations

import json
import sys

import click

from freezeflow.api import releases
from freezeflow.cli.options import json_option
from freezeflow.cli.wrap import colored
from freezeflow.errors import ValidationFailed
from freezeflow.report.release import render_verification, verification_to_json


@click.command
@click.argument("path", type=click.Path())
@click.option(
    "--key", "keys", multiple=True, type=click.Path(), metavar="FILE", help="Must have signed it."
)
@click.option(
    "--model-key", type=click.Path(), metavar="FILE", help="Must have signed it by model-signing."
)
@click.option(
    "--signatures", type=click.Path(), metavar="DIR", help="Where signatures are: PATH.signatures."
)
@json_option
def command(
    path: str,
    keys: tuple[str, ...],
    model_key: str | None,
    signatures: str | None,
    as_json: bool,
) -> int:
    """Check what was published against all that is said about it, without TensorFlow.

    PATH is a release (folder, tar, OCI image layout), a recipe that has a lock, or an exported model with
    its manifest. Exit code 4 if anything is not as it was written, or a key has not signed it.
    """
    found = releases.verify(path, keys=keys, model_key=model_key, signatures=signatures)
    if as_json:
        click.echo(json.dumps(verification_to_json(found.verification, found.signatures)))
    else:
        color = colored(sys.stdout)
        click.echo(render_verification(found.verification, found.signatures, color=color))
    return ValidationFailed.exit_code if found.faults else 0
