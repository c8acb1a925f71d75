"""A server of each kind, once for all tests, and a fresh place on each for every test."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store.remote import servers
from tests.store.remote.gcs import gcs_server

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


@pytest.fixture(scope="session")
def gcs() -> Iterator[str]:
    with gcs_server() as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if not servers.has_azurite():
        pytest.skip("there is no azurite-blob (npm install -g azurite)")
    with servers.azurite(tmp_path_factory.mktemp("azurite") / "log") as endpoint:
        servers.make_container(endpoint, "team")
        yield endpoint


# Those that create atomically.
AZURE = pytest.param("azure", marks=pytest.mark.slow)
ATOMIC = ["folder", "s3", "gcs", AZURE]


def place_on(kind: str, endpoint: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> str:
    """The address of an empty shared cache on a server; what names the server is in the environment."""
    environment = {
        "s3": {**servers.S3_ENVIRONMENT, "AWS_ENDPOINT_URL": endpoint},
        "azure": {**servers.AZURE_ENVIRONMENT, "AZURE_STORAGE_ENDPOINT": endpoint},
        "gcs": {
            "GOOGLE_BASE_URL": endpoint,
            "GOOGLE_SERVICE_ACCOUNT": str(folder / "account.json"),
        },
    }
    for name, value in environment[kind].items():
        monkeypatch.setenv(name, value)
    if kind == "gcs":
        account = dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
        account |= {"gcs_base_url": endpoint, "disable_oauth": True}  # type: ignore[dict-item]
        (folder / "account.json").write_text(json.dumps(account))
    scheme = {"s3": "s3", "gcs": "gs", "azure": "az"}[kind]
    return f"{scheme}://team/{next(_NUMBERS)}"


@pytest.fixture(params=["folder", "s3", "webdav", "gcs", AZURE])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty shared cache."""
    if request.param == "folder":
        return str(tmp_path / "shared")
    endpoint = request.getfixturevalue(request.param)
    if request.param == "webdav":
        return f"{endpoint}/{next(_NUMBERS)}"
    return place_on(request.param, endpoint, monkeypatch, tmp_path)
