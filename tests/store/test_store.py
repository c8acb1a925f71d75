import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from freezeflow.errors import FreezeflowError
from freezeflow.store.actions import Action, ActionFile, Outputs, PublishedFile, key_of
from freezeflow.store.blobs import BlobLost
from freezeflow.store.store import Store
from freezeflow.values import Digest
from tests.store.test_files import closed_folder, location


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "cache")


def make_action(store: Store, name: str = "a", **preimage: object) -> ActionFile:
    """An action with two blobs of its own and one published file."""
    fields = {"stage": "strip", "name": name, **preimage}
    outputs = Outputs(
        graph=store.blobs.put(f"graph {name}".encode()),
        record=store.blobs.put(f"record {name}".encode()),
        files=(PublishedFile(path="build/out.pb", sha256="0" * 64, nbytes=3),),
        log=store.blobs.put(b"log"),
    )
    action = Action(key=key_of(fields), outputs=outputs, facts_json='{"seconds":1.5}')
    return ActionFile(action=action, preimage=fields, recipe="/p/r.yaml", step=name)


def damage(path: Path) -> None:
    """Flips one bit."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.chmod(0o644)
    path.write_bytes(data)


# ---------------------------------------------------------------- the folder


def test_another_format_is_refused_before_anything_else(tmp_path: Path) -> None:
    (tmp_path / "FORMAT").write_text("freezeflow.store/99\n")
    (tmp_path / "index.db").write_bytes(b"what a later version wrote")
    with pytest.raises(FreezeflowError, match=r"freezeflow\.store/99") as caught:
        Store.open(tmp_path)
    assert "FREEZEFLOW_CACHE_DIR" in caught.value.hint
    assert (tmp_path / "index.db").read_bytes() == b"what a later version wrote"


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FreezeflowError) as caught:
        Store.open(tmp_path / "file" / "cache")
    assert "FREEZEFLOW_CACHE_DIR" in caught.value.hint


def test_a_read_only_folder_is_one_line() -> None:
    with closed_folder() as folder, pytest.raises(FreezeflowError) as caught:
        Store.open(folder)
    assert "\n" not in caught.value.message
    assert "FREEZEFLOW_CACHE_DIR" in caught.value.hint


def test_a_store_that_became_read_only_is_one_line() -> None:
    with closed_folder() as folder:
        os.seteuid(os.getuid())
        folder.chmod(0o755)
        Store.open(folder).close()
        for path in [*folder.rglob("*"), folder]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        if os.getuid() == 0:
            os.seteuid(65534)
        with pytest.raises(FreezeflowError) as caught:
            Store.open(folder).blobs.put(b"x")
        assert "\n" not in caught.value.message
        assert caught.value.hint


def test_scratch_goes_with_all_that_is_in_it(store: Store) -> None:
    with store.scratch() as scratch:
        (scratch / "deep" / "er").mkdir(parents=True)
        (scratch / "deep" / "er" / "file").touch()
        (scratch / "deep").chmod(0o500)
    assert list((store.folder / "scratch").iterdir()) == []


def test_scratch_of_a_killed_process_is_swept_and_of_a_living_one_is_not(store: Store) -> None:
    (store.folder / "scratch" / "run-dead").mkdir(parents=True)
    with store.scratch() as living, store.scratch() as other:
        assert {path.name for path in living.parent.iterdir()} == {living.name, other.name}


# ---------------------------------------------------------------- blobs


def test_a_blob_comes_back(store: Store) -> None:
    digest = store.blobs.put(b"content")
    assert digest == Digest.of(b"content")
    assert store.blobs.read(digest) == b"content"
    assert store.blobs.path(digest).stat().st_mode & 0o777 == 0o444
    assert list(store.blobs.all()) == [digest]
    assert store.blobs.lost([digest]) == []


@pytest.mark.parametrize("how", ["flipped", "gone", "shorter", "empty"])
def test_a_lost_blob_is_noticed_and_put_again(store: Store, how: str) -> None:
    digest = store.blobs.put(b"some content")
    path = store.blobs.path(digest)
    if how == "flipped":
        damage(path)
    elif how == "gone":
        path.unlink()
    else:
        os.truncate(path, 3 if how == "shorter" else 0)

    with pytest.raises(BlobLost) as caught:
        store.blobs.read(digest)
    assert caught.value.damaged == (how != "gone")
    assert [blob.digest for blob in store.blobs.lost([digest])] == [digest]
    assert store.blobs.locate(digest) is None

    store.blobs.put(b"some content")
    assert store.blobs.read(digest) == b"some content"
    assert store.blobs.lost([digest]) == []


def test_a_range_becomes_a_blob(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    place = location(tmp_path / "file", 2, 5)
    store.blobs.put_range(Digest.of(b"23456"), place)
    assert store.blobs.read(Digest.of(b"23456")) == b"23456"
    with pytest.raises(FreezeflowError, match="does not hold"):
        store.blobs.put_range(Digest.of(b"other"), place)


# ---------------------------------------------------------------- actions


def test_an_action_comes_back(store: Store) -> None:
    file = make_action(store)
    key = file.action.key
    assert store.actions.get([key]) == {}
    store.actions.put(file)
    assert store.actions.get([key, Digest("0" * 64)]) == {key: file.action}
    assert store.actions.file(key) == file
    assert store.actions.noted([("/p/r.yaml", "a")]) == {("/p/r.yaml", "a"): key}
    assert file.action.facts == {"seconds": 1.5}


def test_keys_do_not_depend_on_the_order_of_maps() -> None:
    one = {"a": 1, "b": {"x": [1, 2], "y": None}}
    other = {"b": {"y": None, "x": [1, 2]}, "a": 1}
    assert key_of(one) == key_of(other)
    assert key_of(one) != key_of({**one, "a": 2})


def test_models_differ_when_graph_or_record_do(store: Store) -> None:
    outputs = make_action(store).action.outputs
    swapped = Outputs(graph=outputs.record, record=outputs.graph)
    assert len({outputs.model, swapped.model, make_action(store, "b").action.outputs.model}) == 3


@pytest.mark.parametrize("how", ["deleted", "damaged", "of another version"])
def test_the_index_is_rebuilt_from_the_files(tmp_path: Path, how: str) -> None:
    store = Store.open(tmp_path)
    file = make_action(store)
    store.actions.put(file)
    store.close()
    index = tmp_path / "index.db"
    if how == "deleted":
        index.unlink()
    elif how == "damaged":
        index.write_bytes(b"x" * 8000)
    else:
        connection = sqlite3.connect(index)
        connection.execute("PRAGMA user_version=77")
        connection.close()

    again = Store.open(tmp_path)

    assert again.actions.get([file.action.key]) == {file.action.key: file.action}
    assert again.actions.noted([("/p/r.yaml", "a")]) == {("/p/r.yaml", "a"): file.action.key}
    assert again.blobs.lost(set(file.action.outputs.blobs())) == []


def test_an_index_damaged_inside_is_removed_with_one_line(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    files = [make_action(store, str(i)) for i in range(300)]
    for file in files:
        store.actions.put(file)
    store.close()
    index = tmp_path / "index.db"
    data = bytearray(index.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    index.write_bytes(data)

    with pytest.raises(FreezeflowError, match="index was damaged") as caught:
        Store.open(tmp_path).actions.last_used()
    assert "Run the same command again" in caught.value.hint
    keys = [file.action.key for file in files]
    assert len(Store.open(tmp_path).actions.get(keys)) == 300


def test_a_file_that_the_index_does_not_know_is_found(store: Store) -> None:
    file = make_action(store)
    store.actions.put(file)
    store.index.write("DELETE FROM actions WHERE key = ?", [(file.action.key.hex,)])
    assert store.actions.get([file.action.key]) == {file.action.key: file.action}


def test_a_damaged_action_is_no_action(store: Store) -> None:
    file = make_action(store)
    store.actions.put(file)
    damage(store.actions.path(file.action.key))
    store.index.write("DELETE FROM actions WHERE key = ?", [(file.action.key.hex,)])
    assert store.actions.get([file.action.key]) == {}
    assert store.actions.file(file.action.key) is None


# ---------------------------------------------------------------- tensors


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(bytes(range(256)) * 100)
    old = 1_600_000_000_000_000_001
    os.utime(path, ns=(old, old))
    return path


def adopt(store: Store, source: Path) -> Digest:
    digest = Digest.of(source.read_bytes()[256:1000])
    store.tensors.adopt({digest: location(source, 256, 744)})
    return digest


def test_an_adopted_range_is_found(store: Store, source: Path) -> None:
    digest = adopt(store, source)
    assert store.tensors.locate([digest]) == {digest: location(source, 256, 744)}


def test_a_touched_file_is_hashed_again_and_found(store: Store, source: Path) -> None:
    digest = adopt(store, source)
    os.utime(source)
    assert store.tensors.locate([digest]) == {digest: location(source, 256, 744)}


@pytest.mark.parametrize("how", ["changed", "gone", "shorter", "folder"])
def test_a_range_that_holds_something_else_is_not_found(
    store: Store, source: Path, how: str
) -> None:
    digest = adopt(store, source)
    if how == "changed":
        damaged = bytearray(source.read_bytes())
        damaged[300] ^= 1
        source.write_bytes(damaged)
        # A forged time does not help: the change time tells.
        old = 1_600_000_000_000_000_001
        os.utime(source, ns=(old, old))
    elif how == "shorter":
        os.truncate(source, 500)
    else:
        source.unlink()
        if how == "folder":
            source.mkdir()
    assert store.tensors.locate([digest]) == {}


def test_a_change_elsewhere_in_the_file_does_not_matter(store: Store, source: Path) -> None:
    digest = adopt(store, source)
    with open(source, "r+b") as file:
        file.write(b"elsewhere")
    assert set(store.tensors.locate([digest])) == {digest}


def test_a_range_that_changed_before_it_was_adopted(store: Store, source: Path) -> None:
    place = location(source, 0, 10)
    digest = Digest.of(source.read_bytes()[:10])
    source.write_bytes(b"9" * 25600)
    store.tensors.adopt({digest: place})
    assert store.tensors.locate([digest]) == {}


def test_an_owned_tensor_is_found_until_it_is_damaged(store: Store) -> None:
    digest = store.blobs.put(b"a folded constant")
    path = store.blobs.path(digest)
    assert store.tensors.locate([digest]) == {digest: location(path)}
    damage(path)
    assert store.tensors.locate([digest]) == {}


# ---------------------------------------------------------------- the stat cache


def test_a_known_file_is_not_read_again(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = {source: Digest.of(source.read_bytes())}
    assert store.stats.digests([source]) == expected
    monkeypatch.setattr("freezeflow.store.stats.hash_open_file", None)
    assert store.stats.digests([source]) == expected


def test_a_changed_file_is_read_again(store: Store, source: Path) -> None:
    store.stats.digests([source])
    data = bytearray(source.read_bytes())
    data[0] ^= 1
    status = source.stat()
    source.write_bytes(data)
    os.utime(source, ns=(status.st_mtime_ns, status.st_mtime_ns))
    assert store.stats.digests([source]) == {source: Digest.of(data)}


def test_a_file_written_just_before_it_was_hashed_is_not_trusted(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "fresh"
    path.write_bytes(b"fresh")
    real = path.stat()
    store.stats.digests([path])
    # A second change within the clock tick looks like this: nothing but the contents differ.
    path.write_bytes(b"later")
    monkeypatch.setattr("freezeflow.store.stats.os.stat", lambda path: real)
    assert store.stats.digests([path]) == {path: Digest.of(b"later")}


def test_published_files(store: Store, tmp_path: Path) -> None:
    import hashlib

    path = tmp_path / "out.pb"
    path.write_bytes(b"graph")
    expected = {path: (hashlib.sha256(b"graph").hexdigest(), 5)}
    assert store.stats.unchanged(expected) == {path}
    store.stats.remember_written([(path, expected[path][0])])
    assert store.stats.unchanged(expected) == {path}
    path.write_bytes(b"grape")
    assert store.stats.unchanged(expected) == set()
    path.unlink()
    assert store.stats.unchanged(expected) == set()


def test_a_path_that_is_not_text(store: Store, tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe"))
    path.write_bytes(b"x")
    assert store.stats.digests([path]) == {path: Digest.of(b"x")}


def test_more_files_than_fit_into_one_query(store: Store, tmp_path: Path) -> None:
    paths = [tmp_path / str(i) for i in range(2000)]
    for path in paths:
        path.write_bytes(path.name.encode())
    expected = {path: Digest.of(path.name.encode()) for path in paths}
    assert store.stats.digests(paths) == expected
    assert store.stats.digests(paths) == expected


def test_runs_that_begin_together_leave_each_others_scratch(tmp_path: Path) -> None:
    """Between a folder and its lock nobody sweeps."""
    store = Store.open(tmp_path / "cache")

    def begin(_: int) -> bool:
        with store.scratch() as scratch:
            (scratch / "file").touch()
            return (scratch / "file").exists()

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(begin, range(400)))
    assert list((store.folder / "scratch").iterdir()) == []
