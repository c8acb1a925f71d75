"""``freezeflow sign``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from freezeflow.api import releases
from freezeflow.cli.options import json_option
from freezeflow.errors import UsageError
from freezeflow.report.release import signed_to_json
from freezeflow.report.text import short_path


@click.command
@click.argument("path", required=False, type=click.Path())
@click.option("--key", type=click.Path(), metavar="FILE", help="The private ed25519 key.")
@click.option(
    "--model-key", type=click.Path(), metavar="FILE", help="Sign by model-signing, with an EC key."
)
@click.option(
    "--signatures", type=click.Path(), metavar="DIR", help="Where they go: PATH.signatures."
)
@click.option("--new-key", type=click.Path(), metavar="FILE", help="Make a key, and FILE.pub.")
@json_option
def command(
    path: str | None,
    key: str | None,
    model_key: str | None,
    signatures: str | None,
    new_key: str | None,
    as_json: bool,
) -> int:
    """Sign the release at PATH; the signatures lie beside it.

    The private key is the file that --key names, else what FREEZEFLOW_SIGNING_KEY holds: PEM text, or a
    path. The password of an encrypted key is in FREEZEFLOW_SIGNING_PASSWORD.
    """
    if (path is None) == (new_key is None):
        raise UsageError("sign takes either a release or --new-key FILE")
    if new_key is not None:
        from freezeflow.release.signing import new_key as make

        files = list(make(Path(new_key)))
    else:
        assert path is not None
        files = releases.sign(path, key=key, model_key=model_key, signatures=signatures)
    if as_json:
        click.echo(json.dumps(signed_to_json(files)))
    else:
        click.echo("\n".join(short_path(file) for file in files))
    return 0
