"""What every kind of shared cache must do, on real servers."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from freezeflow.store.remote.options import RemoteOptions
from freezeflow.store.remote.transport import (
    DoesNotMatch,
    RemoteFailed,
    Transport,
    Wanted,
    location_pieces,
)
from freezeflow.values import Digest, Location
from tests.store.remote.conftest import ATOMIC
from tests.store.remote.servers import bad_server


@pytest.fixture
def transport(url: str) -> Iterator[Transport]:
    found = Transport(RemoteOptions(url=url, push=True))
    yield found
    found.close()


def blob(data: bytes) -> Wanted:
    digits = Digest.of(data).hex
    return Wanted(
        path=f"v1/blobs/{digits[:2]}/{digits[2:]}",
        nbytes=len(data),
        algorithm="blake3",
        digits=digits,
    )


def put(transport: Transport, wanted: Wanted, data: bytes) -> bool:
    pieces = [data[:1000], data[1000:]]
    return transport.put(wanted, lambda: pieces).result()


def create(transport: Transport, path: str, data: bytes, *, replace: bool = False) -> bool:
    return transport.start(partial(transport.create, path, data, replace=replace)).result()


def test_what_was_put_is_there(transport: Transport, tmp_path: Path) -> None:
    data = os.urandom(5000)
    assert transport.read(["v1/nothing"]) == {}
    assert transport.fetch([blob(data)], tmp_path) == {}
    assert put(transport, blob(data), data)
    assert not put(transport, blob(data), data)
    assert transport.fetch([blob(data), blob(b"other")], tmp_path) == {blob(data): data}
    assert transport.sizes([blob(data).path, "v1/nothing"]) == {blob(data).path: 5000}


def test_large_objects_go_through_files(transport: Transport, tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(os.urandom(9_000_000) + bytes(11_000_000))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    wanted = Wanted(path="v1/files/large", nbytes=20_000_000, algorithm="sha256", digits=sha256)
    whole = Location(str(path), 0, 20_000_000, 0, 0, 0)
    assert transport.put(wanted, lambda: location_pieces(whole)).result()
    got = transport.fetch([wanted], tmp_path)[wanted]
    assert isinstance(got, Path)
    assert got.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("nbytes", [5000, 12_000_000])
def test_what_changed_meanwhile_is_not_written(
    transport: Transport, tmp_path: Path, nbytes: int
) -> None:
    data = bytes(nbytes)
    wanted = blob(data)
    with pytest.raises(DoesNotMatch):
        put(transport, wanted, b"x" + data[1:])
    assert transport.sizes([wanted.path]) == {}


@pytest.mark.parametrize("nbytes", [5000, 12_000_000])
def test_other_bytes_than_named_do_not_arrive(
    transport: Transport, tmp_path: Path, nbytes: int
) -> None:
    wanted = blob(bytes(nbytes))
    for data in (b"x" + bytes(nbytes - 1), bytes(nbytes - 1), bytes(nbytes + 1)):
        create(transport, wanted.path, data, replace=True)
        assert transport.fetch([wanted], tmp_path) == {}


def test_entries_are_created_once(transport: Transport, url: str) -> None:
    assert create(transport, "v1/entry", b"first")
    assert not create(transport, "v1/entry", b"second")
    assert transport.read(["v1/entry"]) == {"v1/entry": b"first"}
    assert create(transport, "v1/entry", b"third", replace=True)
    assert transport.read(["v1/entry"]) == {"v1/entry": b"third"}


@pytest.mark.parametrize("url", ATOMIC, indirect=True)
def test_of_many_writers_one_creates(transport: Transport) -> None:
    def write(number: int) -> bool:
        return create(transport, "v1/contended", str(number).encode())

    with ThreadPoolExecutor(8) as pool:
        won = [number for number, done in enumerate(pool.map(write, range(24))) if done]
    assert len(won) == 1
    assert transport.read(["v1/contended"]) == {"v1/contended": str(won[0]).encode()}


@pytest.mark.parametrize("url", ATOMIC, indirect=True)
def test_names(transport: Transport) -> None:
    assert transport.names("v1/entries") == []
    for name in ("v1/entries/b/1", "v1/entries/a/2", "v1/blobs/x"):
        create(transport, name, b"x")
    assert transport.names("v1/entries") == ["v1/entries/a/2", "v1/entries/b/1"]


def test_many_at_once(transport: Transport) -> None:
    names = [f"v1/many/{number}" for number in range(60)]
    jobs = [transport.start(partial(transport.create, name, name.encode())) for name in names]
    assert all(job.result() for job in jobs)
    assert transport.read(names) == {name: name.encode() for name in names}


def test_a_token_is_sent(tmp_path: Path) -> None:
    with bad_server(tmp_path / "shared") as server:
        transport = Transport(RemoteOptions(url=server.url, push=True, token="hush"))
        create(transport, "v1/entry", b"x")
        assert transport.read(["v1/entry"]) == {"v1/entry": b"x"}
        transport.close()
        assert server.tokens == {"Bearer hush"}


@pytest.mark.parametrize("mood", ["silent", "500", "403", "hang up", "short", "trickle"])
def test_what_goes_wrong_is_one_error(tmp_path: Path, mood: str) -> None:
    (tmp_path / "entry").write_bytes(bytes(5000))
    with bad_server(tmp_path, mood) as server:
        transport = Transport(RemoteOptions(url=server.url, timeout=0.4, token="hush"))
        with pytest.raises(RemoteFailed) as caught:
            transport.read(["entry"])
        transport.close()
    assert "hush" not in str(caught.value)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("url", ["http://", "az://container-without-account"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(RemoteFailed) as caught:
        Transport(RemoteOptions(url=url))
    assert caught.value.where == url
