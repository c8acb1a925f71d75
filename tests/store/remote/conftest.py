"""A server of each kind, once for all tests, and a fresh place on each for every test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store.remote import servers

_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with servers.s3_server(tmp_path_factory.mktemp("s3") / "log") as endpoint:
        servers.make_bucket(endpoint, "team")
        yield endpoint


@pytest.fixture(scope="session")
def webdav(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if not servers.has_nginx():
        pytest.skip("there is no nginx")
    with servers.nginx(tmp_path_factory.mktemp("nginx")) as endpoint:
        yield endpoint


@pytest.fixture(params=["folder", "s3", "webdav"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty shared cache."""
    if request.param == "folder":
        return str(tmp_path / "shared")
    endpoint = request.getfixturevalue(request.param)
    if request.param == "webdav":
        return f"{endpoint}/{next(_NUMBERS)}"
    for name, value in servers.S3_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    return f"s3://team/{next(_NUMBERS)}"
