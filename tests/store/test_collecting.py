"""gc deletes what its rules say, what its dry run says, and nothing that is alive."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freezeflow.store import upkeep
from freezeflow.store.actions import Action, ActionFile, Outputs, key_of
from freezeflow.store.collecting import Collected, Rules, gc
from freezeflow.store.store import Store
from freezeflow.values import Digest
from tests.store.test_store import adopt, make_action, source  # noqa: F401

NAMES = ("a", "b", "c")
DAY_NS = 86_400 * 10**9


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with three actions that share their log."""
    store = Store.open(tmp_path / "cache")
    for name in NAMES:
        store.actions.put(make_action(store, name))
    return store


def no_tensors(record: bytes) -> Iterable[Digest]:
    return ()


def collect(store: Store, *, dry_run: bool = False, **rules: Any) -> Collected:
    return gc(store, Rules(**rules), tensors_of=no_tensors, dry_run=dry_run)


def key(store: Store, step: str) -> Digest:
    return store.actions.noted([("/p/r.yaml", step)])["/p/r.yaml", step]


def age(store: Store, digest: Digest, days: float) -> None:
    used = time.time_ns() - int(days * DAY_NS)
    store.index.write("UPDATE actions SET used = ? WHERE key = ?", [(used, digest.hex)])


def make_old(store: Store, digest: Digest) -> None:
    os.utime(store.blobs.path(digest), (1, 1))


def left(store: Store) -> set[str]:
    return {entry.step for entry in upkeep.entries(store)}


def test_without_a_rule_only_loose_blobs_go(store: Store) -> None:
    loose = store.blobs.put(b"nobody needs me")
    expected = Collected(actions=frozenset(), blobs={loose: 15}, logs=frozenset(), failures={})
    assert collect(store, dry_run=True) == expected
    assert store.blobs.path(loose).exists()
    assert collect(store) == expected
    assert not store.blobs.path(loose).exists()
    assert upkeep.verify(store) == []


@pytest.mark.parametrize("rule", ["keep", "age", "size"])
def test_each_rule(store: Store, rule: str) -> None:
    age(store, key(store, "a"), 30)
    age(store, key(store, "b"), 3)
    rules: dict[str, Any] = {
        "keep": {"keep": {key(store, "b"), key(store, "c")}},
        "age": {"max_age_days": 10},
        "size": {"max_bytes": upkeep.info(store).blob_bytes - 1},
    }
    before = upkeep.info(store).blob_bytes
    gone = collect(store, **rules[rule])
    assert (len(gone.actions), len(gone.blobs), gone.nbytes) == (1, 2, len("graph arecord a"))
    assert left(store) == {"b", "c"}
    assert upkeep.info(store).blob_bytes == before - gone.nbytes
    assert upkeep.verify(store) == []


def test_what_is_kept_stays_whatever_the_other_rules_say(store: Store) -> None:
    for name in NAMES:
        age(store, key(store, name), 30)
    keep = {key(store, "a")}
    collect(store, keep=keep, max_age_days=1)
    assert left(store) == {"a"}
    collect(store, keep=keep, max_bytes=0)
    collect(store, keep=keep, everything=True)
    assert left(store) == {"a"}
    assert len(collect(store, max_bytes=0).actions) == 1
    assert list(store.blobs.all()) == []


def test_weights_of_models_that_stay_stay(store: Store) -> None:
    weight, loose = store.blobs.put(b"weight"), store.blobs.put(b"loose")

    def tensors(record: bytes) -> Iterable[Digest]:
        return [weight] if record == b"record b" else []

    assert set(gc(store, Rules(), tensors_of=tensors).blobs) == {loose}
    gone = gc(store, Rules(keep=[key(store, "a")]), tensors_of=tensors)
    assert weight in gone.blobs


def test_logs_go_by_age(store: Store) -> None:
    old = store.keep_crash("old", "report")
    new = store.keep_crash("new", "report")
    os.utime(old, (1, 1))
    assert collect(store, max_age_days=10, dry_run=True).logs == {old}
    assert collect(store, max_age_days=10).logs == {old}
    assert (old.exists(), new.exists()) == (False, True)


def test_ranges_of_files_that_are_gone_are_forgotten(store: Store, source: Path) -> None:  # noqa: F811
    adopt(store, source)
    collect(store)
    assert upkeep.info(store).adopted_tensors == 1
    os.unlink(source)
    collect(store)
    assert upkeep.info(store).adopted_tensors == 0


# ---------------------------------------------------------------- the dry run


contents = st.sets(st.sampled_from([b"one", b"two two", b"three three three", b"four"]), max_size=3)


@settings(max_examples=30, deadline=None)
@given(
    actions=st.lists(st.tuples(contents, st.integers(0, 60)), max_size=6),
    loose=st.lists(st.tuples(st.binary(max_size=9), st.booleans()), max_size=4),
    rules=st.fixed_dictionaries(
        {},
        optional={
            "max_age_days": st.integers(0, 60),
            "max_bytes": st.integers(0, 120),
            "everything": st.just(True),
            "keep": st.sets(st.integers(0, 5)),
        },
    ),
    running=st.booleans(),
)
def test_what_the_dry_run_says_is_what_goes(
    tmp_path_factory: pytest.TempPathFactory,
    actions: list[tuple[set[bytes], int]],
    loose: list[tuple[bytes, bool]],
    rules: dict[str, Any],
    running: bool,
) -> None:
    store = Store.open(tmp_path_factory.mktemp("store"))
    keys = [put_action(store, number, *each) for number, each in enumerate(actions)]
    if "keep" in rules:
        rules["keep"] = {keys[number] for number in rules["keep"] if number < len(keys)}
    for data, is_old in loose:
        digest = store.blobs.put(b"loose" + data)
        if is_old:
            make_old(store, digest)
    if running:
        with store.in_use():
            check_dry_run(store, rules)
    else:
        check_dry_run(store, rules)
    store.close()


def put_action(store: Store, number: int, owned: set[bytes], days: int) -> Digest:
    preimage = {"stage": "strip", "number": number}
    outputs = Outputs(
        graph=store.blobs.put(f"graph {number % 3}".encode()),
        record=store.blobs.put(f"record {number}".encode()),
        owned=tuple(store.blobs.put(data) for data in sorted(owned)),
    )
    action = Action(key=key_of(preimage), outputs=outputs, facts_json="{}")
    store.actions.put(ActionFile(action=action, preimage=preimage, recipe="r", step=str(number)))
    age(store, action.key, days)
    return action.key


def check_dry_run(store: Store, rules: dict[str, Any]) -> None:
    files = {path for path in store.folder.glob("*/??/*") if path.is_file()}
    said = collect(store, dry_run=True, **rules)
    assert {path for path in store.folder.glob("*/??/*") if path.is_file()} == files
    assert collect(store, **rules) == said
    gone = files - set(store.folder.glob("*/??/*"))
    assert gone == {*map(store.actions.path, said.actions), *map(store.blobs.path, said.blobs)}
    assert said.actions.isdisjoint(rules.get("keep", ()))
    assert upkeep.verify(store) == []
    assert set(store.actions.indexed()).isdisjoint(said.actions)


# ---------------------------------------------------------------- beside runs


def test_what_a_run_may_use_stays(store: Store) -> None:
    age(store, key(store, "a"), 30)
    age(store, key(store, "b"), 0.5)
    old, new = store.blobs.put(b"old"), Digest.of(b"new")
    make_old(store, old)
    with store.in_use():
        store.blobs.put(b"new")
        assert set(collect(store, everything=True, dry_run=True).actions) == {key(store, "a")}
        gone = collect(store, everything=True)
        assert set(gone.actions) == {key(store, "a")}
        assert old in gone.blobs
        assert new not in gone.blobs
        assert left(store) == {"b", "c"}
        assert upkeep.verify(store) == []
    collect(store, everything=True)
    assert left(store) == set()
    assert list(store.blobs.all()) == []


def test_what_a_run_has_looked_up_is_young_again(store: Store) -> None:
    wanted = key(store, "a")
    age(store, wanted, 30)
    with store.in_use():
        assert set(store.actions.get([wanted])) == {wanted}
        collect(store, max_age_days=10)
    assert "a" in left(store)


def test_a_loose_blob_that_is_put_again_stays(store: Store) -> None:
    digest = store.blobs.put(b"loose")
    make_old(store, digest)
    with store.in_use():
        store.blobs.put(b"loose")
        assert collect(store).blobs == {}
    assert upkeep.verify(store) == []


def test_a_killed_run_holds_up_nobody(store: Store) -> None:
    script = (
        "import os, sys; from freezeflow.store.store import Store\n"
        "store = Store.open(sys.argv[1])\n"
        "with store.in_use(): os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(store.folder)], check=False)
    assert done.returncode == -9
    assert len(list((store.folder / "running").iterdir())) == 2
    assert len(collect(store, everything=True).actions) == 3
    assert list((store.folder / "running").iterdir()) == []


# ---------------------------------------------------------------- what failed steps left


def leave_failure(store: Store, name: str, recipe: Path, digest: Digest, days: float = 0) -> Path:
    evidence = store.folder / f"evidence-{name}"
    evidence.mkdir()
    (evidence / "inputs.tfrecord").write_bytes(bytes(1000))
    path = store.failures.keep(name, evidence, recipe=str(recipe), step="validate", key=digest)
    then = time.time_ns() - int(days * DAY_NS)
    os.utime(path, ns=(then, then))
    return path


def test_what_failed_steps_left_goes_by_the_rules(store: Store, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.touch()
    young, old = Digest.of(b"young"), Digest.of(b"old")
    paths = {
        "young": leave_failure(store, "young", recipe, young),
        "old": leave_failure(store, "old", recipe, old, days=10),
        "orphan": leave_failure(store, "orphan", tmp_path / "gone.yaml", Digest.of(b"orphan")),
    }

    def going(**rules: Any) -> set[str]:
        """What a dry run says would go; it deletes nothing."""
        said = collect(store, dry_run=True, **rules)
        assert all(path.is_dir() for path in paths.values())
        assert said.nbytes >= 1000 * len(said.failures)
        return {path.name for path in said.failures}

    assert going() == {"orphan"}
    assert going(max_age_days=5) == {"old", "orphan"}
    assert going(everything=True) == {"young", "old", "orphan"}
    assert going(keep={young}) == {"old", "orphan"}
    assert going(keep={old}, max_age_days=5) == {"orphan"}
    blobs = sum(upkeep.blob_sizes(store).values())
    assert going(max_bytes=blobs + 1500) == {"old", "orphan"}
    assert left(store) == set(NAMES)
    assert collect(store, dry_run=True, max_bytes=blobs + 1500).actions == frozenset()
    done = collect(store, max_age_days=5)
    assert {path.name for path in done.failures} == {"old", "orphan"}
    assert [path.name for path in store.failures.folder.iterdir()] == ["young"]
