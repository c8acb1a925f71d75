"""Lists of what a shared cache holds, for servers that do not list."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from freezeflow.store.remote.entries import NotAccepted, list_path
from freezeflow.store.remote.lists import add_to_lists, decode_list, encode_list, read_lists
from freezeflow.store.remote.options import RemoteOptions
from freezeflow.store.remote.signing import new_key_pair
from freezeflow.store.remote.transport import Transport
from freezeflow.values import Digest
from tests.store.remote.servers import bad_server


def keys(*numbers: int) -> set[Digest]:
    return {Digest.of(str(number).encode()) for number in numbers}


@pytest.fixture
def transport(tmp_path: Path) -> Iterator[Transport]:
    """On a server with GET, HEAD and PUT alone."""
    with bad_server(tmp_path / "shared") as server:
        found = Transport(RemoteOptions(url=server.url, push=True))
        yield found
        found.close()


def named(transport: Transport) -> set[Digest]:
    return read_lists(transport, "", ())[0]


def test_each_push_adds_what_is_new(transport: Transport) -> None:
    assert read_lists(transport, "", ()) == (set(), 0)
    for number in range(18):
        add_to_lists(transport, keys(number, number + 1), "", "")
    assert read_lists(transport, "", ()) == (keys(*range(19)), 18)
    add_to_lists(transport, keys(3, 4), "", "")
    assert read_lists(transport, "", ())[1] == 18


def test_writers_lose_no_keys_of_each_other(transport: Transport) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: add_to_lists(transport, keys(n), "", ""), range(12)))
    assert named(transport) == keys(*range(12))


def test_a_damaged_list_costs_its_own_keys(transport: Transport, tmp_path: Path) -> None:
    for number in range(3):
        add_to_lists(transport, keys(number), "", "")
    path = tmp_path / "shared" / list_path(1)
    path.write_bytes(path.read_bytes()[:-10])
    assert named(transport) == keys(0, 2)
    add_to_lists(transport, keys(0, 1, 2), "", "")
    assert named(transport) == keys(0, 1, 2)


def test_lists_that_are_none() -> None:
    ours, others = new_key_pair(), new_key_pair()
    signed = encode_list(keys(1), ours.secret)
    assert decode_list(signed, [ours.public]) == decode_list(signed) == keys(1)
    for data, trusted in (
        (encode_list(keys(1)), [ours.public]),
        (signed, [others.public]),
        (signed.replace(b"keys", b"Keys"), []),
        (b"<html>", []),
        (b"", []),
    ):
        with pytest.raises(NotAccepted):
            decode_list(data, trusted)
