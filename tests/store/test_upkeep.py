from pathlib import Path

import pytest

from freezeflow.store import upkeep
from freezeflow.store.store import Store
from freezeflow.values import Digest
from tests.store.test_store import adopt, damage, make_action, source  # noqa: F401


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with three actions that share their log."""
    store = Store.open(tmp_path / "cache")
    for name in ("a", "b", "c"):
        store.actions.put(make_action(store, name))
    return store


def key(store: Store, step: str) -> Digest:
    return store.actions.noted([("/p/r.yaml", step)])["/p/r.yaml", step]


def test_info_and_entries(store: Store) -> None:
    found = upkeep.info(store)
    assert (found.actions, found.blobs) == (3, 7)
    assert found.blob_bytes == sum(len(f"graph {n}record {n}") for n in "abc") + len("log")
    entries = upkeep.entries(store)
    assert {entry.step for entry in entries} == {"a", "b", "c"}
    assert {entry.nbytes for entry in entries} == {len("graph arecord alog")}
    assert {entry.stage for entry in entries} == {"strip"}


def test_a_whole_store_has_no_damage(store: Store) -> None:
    assert upkeep.verify(store) == []


def test_verify_finds_a_flipped_bit_in_any_blob_and_any_action(store: Store) -> None:
    files = [*map(store.blobs.path, store.blobs.all()), *store.actions.files()]
    assert len(files) == 10
    for path in files:
        data = path.read_bytes()
        damage(path)
        assert path in [found.path for found in upkeep.verify(store)]
        path.write_bytes(data)
        assert upkeep.verify(store) == []


def test_verify_finds_what_is_missing(store: Store) -> None:
    action = store.actions.get([key(store, "a")])[key(store, "a")]
    store.blobs.path(action.outputs.graph).unlink()
    store.actions.path(key(store, "b")).unlink()
    messages = sorted(found.message for found in upkeep.verify(store))
    assert len(messages) == 2
    assert messages[0] == "missing, and the index names it"
    assert messages[1].startswith("needs the blob")


def test_verify_finds_an_index_that_says_otherwise(store: Store) -> None:
    store.index.write(
        "UPDATE actions SET outputs = (SELECT outputs FROM actions WHERE key = ?) WHERE key = ?",
        [(key(store, "a").hex, key(store, "b").hex)],
    )
    (found,) = upkeep.verify(store)
    assert "other outputs" in found.message


def test_verify_finds_a_wrong_range(store: Store, source: Path) -> None:  # noqa: F811
    adopt(store, source)
    assert upkeep.verify(store) == []
    store.index.write("UPDATE ranges SET offset = ?", [(5,)])
    (found,) = upkeep.verify(store)
    assert found.path == source


def test_verify_changes_nothing(store: Store) -> None:
    for digest in list(store.blobs.all()):
        damage(store.blobs.path(digest))
    upkeep.verify(store)
    assert len(list(store.blobs.all())) == 7
