import os
from pathlib import Path

import pytest

from freezeflow.errors import FreezeflowError
from freezeflow.store import upkeep
from freezeflow.store.store import Store
from freezeflow.store.upkeep import Collected
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
    return store.actions.noted(["/p/r.yaml"])["/p/r.yaml", step]


def age(store: Store, step: str, days: float) -> None:
    used = store.actions.last_used()[key(store, step)] - int(days * 86_400e9)
    store.index.write("UPDATE actions SET used = ? WHERE key = ?", [(used, key(store, step).hex)])


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


def test_gc_without_a_rule_deletes_only_loose_blobs(store: Store) -> None:
    loose = store.blobs.put(b"nobody needs me")
    expected = Collected(actions=0, blobs=1, blob_bytes=15)
    assert upkeep.gc(store, dry_run=True) == expected
    assert store.blobs.path(loose).exists()
    assert upkeep.gc(store) == expected
    assert not store.blobs.path(loose).exists()
    assert upkeep.verify(store) == []


@pytest.mark.parametrize("rule", ["keep", "age", "size"])
def test_gc_does_what_its_dry_run_says(store: Store, rule: str) -> None:
    age(store, "a", 30)
    age(store, "b", 3)
    rules = {
        "keep": {"keep": {key(store, "b"), key(store, "c")}},
        "age": {"max_age_days": 10},
        "size": {"max_bytes": upkeep.info(store).blob_bytes - 1},
    }
    planned = upkeep.gc(store, dry_run=True, **rules[rule])  # type: ignore[arg-type]
    assert planned == Collected(actions=1, blobs=2, blob_bytes=len("graph arecord a"))
    assert upkeep.info(store).actions == 3
    before = upkeep.info(store).blob_bytes

    assert upkeep.gc(store, **rules[rule]) == planned  # type: ignore[arg-type]

    assert {entry.step for entry in upkeep.entries(store)} == {"b", "c"}
    assert upkeep.info(store).blob_bytes == before - planned.blob_bytes
    assert upkeep.verify(store) == []


def test_gc_to_nothing(store: Store) -> None:
    assert upkeep.gc(store, max_bytes=0) == Collected(actions=3, blobs=7, blob_bytes=48)
    assert list(store.blobs.all()) == []


def test_gc_keeps_away_from_a_run(store: Store) -> None:
    with store.in_use(), pytest.raises(FreezeflowError, match="in use"):
        upkeep.gc(store)
    upkeep.gc(store)


def test_gc_forgets_ranges_of_files_that_are_gone(store: Store, source: Path) -> None:  # noqa: F811
    adopt(store, source)
    upkeep.gc(store)
    assert upkeep.info(store).adopted_tensors == 1
    os.unlink(source)
    upkeep.gc(store)
    assert upkeep.info(store).adopted_tensors == 0
