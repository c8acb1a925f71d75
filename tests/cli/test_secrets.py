"""Secrets come from the environment, and go nowhere: not into files, output, keys, or texts of errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.store.remote.servers import bad_server

TOKEN = "token-that-nobody-may-see"


def assert_nowhere(secret: str, folder: Path, *texts: str) -> None:
    assert all(secret not in text for text in texts)
    for path in folder.rglob("*"):
        assert secret not in str(path)
        assert path.is_dir() or secret.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("mood", ["", "401", "page", "hang up"])
def test_secrets_of_a_shared_cache(cli: Cli, folder: Path, mood: str) -> None:
    """Whatever the server does, and whatever is asked for."""
    secret = json.loads(cli("cache", "new-key", "--json").stdout)["secret"]
    with bad_server(folder / "served", mood) as server:
        environment = {
            "FREEZEFLOW_REMOTE_URL": server.url,
            "FREEZEFLOW_REMOTE_PUSH": "1",
            "FREEZEFLOW_REMOTE_TOKEN": TOKEN,
            "FREEZEFLOW_REMOTE_SIGNING_KEY": secret,
            "FREEZEFLOW_REMOTE_TIMEOUT": "1",
        }
        words = ("--events", "e.ndjson", "--junit", "j.xml")
        ended = [
            cli("run", "small.yaml", *words, **environment),
            cli("plan", "small.yaml", "--json", **environment),
            cli("cache", "push", **environment),
            cli("cache", "pull", **environment),
            cli("config", "--json", **environment),
            cli("config", **environment),
        ]
        assert ended[0].returncode == 0
        assert f"Bearer {TOKEN}" in server.tokens
    for hidden in (TOKEN, secret):
        assert_nowhere(hidden, folder, *(done.stdout + done.stderr for done in ended))


@pytest.mark.parametrize(
    "address",
    [
        "https://user:PASSWORD@host/cache",
        "https://host/cache?sig=PASSWORD",
        "s3://key:PASSWORD@bucket/x",
        "https://host/cache#PASSWORD",
        "https://PASSWORD@host/cache",
    ],
)
def test_an_address_with_a_secret_is_refused(cli: Cli, folder: Path, address: str) -> None:
    """In a variable, as an option, and in a file; what it says is not said again."""
    told = []
    for done in (
        cli("run", "small.yaml", FREEZEFLOW_REMOTE_URL=address),
        cli("cache", "push", "--remote", address),
        cli("config", FREEZEFLOW_REMOTE_URL=address),
    ):
        assert done.returncode == 2, done.stdout
        told.append(done.stdout + done.stderr)
    assert_nowhere("PASSWORD", folder, *told)
    (folder / "freezeflow.toml").write_text(f'remote = "{address}"\n')
    done = cli("run", "small.yaml")
    assert done.returncode == 2
    assert "PASSWORD" not in done.stdout + done.stderr


@pytest.mark.parametrize("name", ["token", "signing_key"])
def test_a_file_with_a_secret_is_refused(cli: Cli, folder: Path, name: str) -> None:
    (folder / "freezeflow.toml").write_text(f'[remote]\n{name} = "{TOKEN}"\n')
    done = cli("run", "small.yaml")
    assert done.returncode == 2
    assert TOKEN not in done.stdout + done.stderr
