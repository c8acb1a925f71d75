"""Two machines share what they made: two caches, two copies of the source tree, real servers.

Whatever the shared cache does, a run gives the same files, its own cache stays whole, and a warning
says what is wrong.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from freezeflow.engine.events import CacheShared, Event, RunWarned
from freezeflow.engine.options import RunOptions
from freezeflow.engine.run import run
from freezeflow.engine.shared import SharedCache
from freezeflow.engine.sharing import pull, push
from freezeflow.plan import Plan
from freezeflow.store import upkeep
from freezeflow.store.remote import transport
from freezeflow.store.remote.options import RemoteOptions
from freezeflow.store.remote.signing import new_key_pair
from freezeflow.store.store import Store
from freezeflow.values import Digest
from tests.engine.builders import CHANGE, EXPORT, LOAD, WEIGHT_BYTES, make_source, plan, runs, step
from tests.store.remote.conftest import AZURE, azure, gcs, place_on, s3, url, webdav  # noqa: F401
from tests.store.remote.servers import bad_server, free_port, spoiling_proxy


@dataclasses.dataclass
class Machine:
    """A machine with a cache and a source tree of its own."""

    folder: Path
    store: Store
    warnings: list[str] = dataclasses.field(default_factory=list)
    traffic: list[CacheShared] = dataclasses.field(default_factory=list)

    def plan(self, **change: Any) -> Plan:
        return plan(
            self.folder,
            step(self.folder, LOAD),
            step(self.folder, CHANGE, "load", rename="z", **change),
            step(self.folder, EXPORT, "change", to="build/out.pb"),
        )

    def run(self, remote: RemoteOptions, **change: Any) -> dict[str, int]:
        """Runs the plan; which steps ran."""
        runs(self.folder)
        result = run(self.plan(**change), self.store, RunOptions(remote=remote), self._hear)
        assert result.ok, [str(step.error) for step in result.failures]
        assert upkeep.verify(self.store) == []
        return dict(runs(self.folder))

    @property
    def result(self) -> bytes:
        return (self.folder / "build" / "out.pb").read_bytes()

    def _hear(self, event: Event) -> None:
        if isinstance(event, RunWarned):
            self.warnings.append(event.message)
        if isinstance(event, CacheShared):
            self.traffic.append(event)


MakeMachine = Callable[[str], Machine]
ALL = {"load": 1, "change": 1, "export": 1}


@pytest.fixture
def machine(tmp_path: Path) -> MakeMachine:
    """Makes machines; all of them have the same source files."""
    source = tmp_path / "source"
    make_source(source)

    def make(name: str) -> Machine:
        folder = tmp_path / name / "project"
        shutil.copytree(source, folder / "model")
        return Machine(folder, Store.open(tmp_path / name / "cache"))

    return make


def writable(url: str, **more: object) -> RemoteOptions:  # noqa: F811
    return RemoteOptions(url=url, push=True, **more)  # type: ignore[arg-type]


def readable(url: str, **more: object) -> RemoteOptions:  # noqa: F811
    return RemoteOptions(url=url, **more)  # type: ignore[arg-type]


# ---------------------------------------------------------------- sharing


def test_what_one_machine_made_runs_on_no_other(machine: MakeMachine, url: str) -> None:  # noqa: F811
    first, second = machine("first"), machine("second")
    assert first.run(writable(url)) == ALL
    assert (first.traffic[0].pushed, first.traffic[0].fetched) == (3, 0)
    assert second.run(readable(url)) == {}
    assert second.result == first.result
    assert (second.traffic[0].pushed, second.traffic[0].fetched) == (0, 3)
    assert first.warnings + second.warnings == []
    # Now it is here.
    assert second.run(readable("/nowhere")) == {}
    assert len(second.traffic) == 1


def test_it_is_read_only_unless_told_otherwise(machine: MakeMachine, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    assert machine("first").run(readable(str(shared))) == ALL
    assert list(shared.iterdir()) == []


def test_weights_that_are_here_stay_where_they_are(machine: MakeMachine, tmp_path: Path) -> None:
    first, second = machine("first"), machine("second")
    first.run(writable(str(tmp_path / "shared")))
    (first.folder / "build" / "out.pb").unlink()
    second.run(readable(str(tmp_path / "shared")))
    assert second.traffic[0].fetched_bytes < WEIGHT_BYTES * 2  # the file, and no weights
    weight = Digest.of((second.folder / "model/variables/weights").read_bytes()[:WEIGHT_BYTES])
    assert not second.store.blobs.path(weight).exists()
    (place,) = second.store.tensors.locate([weight]).values()
    assert place.path == str(second.folder / "model/variables/weights")


def test_weights_that_are_not_here_come_as_blobs(machine: MakeMachine, tmp_path: Path) -> None:
    remote = writable(str(tmp_path / "shared"))
    first, second = machine("first"), machine("second")
    first.run(remote)
    shared = SharedCache(remote, second.store, second.warnings.append)
    assert pull(None, second.store, shared).fetched == 3
    shared.close()
    weight = Digest.of((first.folder / "model/variables/weights").read_bytes()[:WEIGHT_BYTES])
    assert second.store.blobs.path(weight).exists()
    # Also in the middle of a run: the source's own bytes are gone, and the step needs them.
    third = machine("third")
    third.run(remote)
    for path in ("build", "model/variables"):
        os.rename(third.folder / path, third.folder / f"{path}-away")
    (third.folder / "model/variables").mkdir()
    assert third.store.tensors.locate([weight]) == {}
    shared = SharedCache(remote, third.store, third.warnings.append)
    shared.fetch_weights([weight])
    shared.close()
    assert third.store.tensors.locate([weight])[weight].length == WEIGHT_BYTES


def test_constants_of_our_own_come_as_blobs(machine: MakeMachine, tmp_path: Path) -> None:
    remote = writable(str(tmp_path / "shared"))
    first, second = machine("first"), machine("second")
    first.run(remote, fold=True)
    assert second.run(remote, fold=True) == {}
    assert second.result == first.result


def test_another_source_is_another_step(machine: MakeMachine, tmp_path: Path) -> None:
    remote = writable(str(tmp_path / "shared"))
    first, second = machine("first"), machine("second")
    first.run(remote)
    (second.folder / "model/variables/weights").write_bytes(os.urandom(WEIGHT_BYTES + 96))
    assert second.run(remote) == ALL
    assert second.result != first.result


def test_a_damaged_blob_is_mended(machine: MakeMachine, tmp_path: Path) -> None:
    remote = writable(str(tmp_path / "shared"))
    first = machine("first")
    first.run(remote)
    for digest in list(first.store.blobs.all()):
        path = first.store.blobs.path(digest)
        path.chmod(0o644)
        path.write_bytes(b"damage")
    assert first.run(remote) == {}


def test_a_published_file_that_was_changed_comes_again(
    machine: MakeMachine, tmp_path: Path
) -> None:
    remote = writable(str(tmp_path / "shared"))
    first = machine("first")
    first.run(remote)
    expected = first.result
    (first.folder / "build/out.pb").write_bytes(b"edited")
    assert first.run(remote) == {}
    assert first.result == expected


def test_large_files_are_made_anew(machine: MakeMachine, tmp_path: Path) -> None:
    remote = writable(str(tmp_path / "shared"), max_file_size=WEIGHT_BYTES)
    first, second = machine("first"), machine("second")
    first.run(remote)
    assert second.run(remote) == {"export": 1}
    assert second.result == first.result


def test_entries_do_not_tell_where_they_were_made(machine: MakeMachine, tmp_path: Path) -> None:
    """Neither its folders nor what it logged."""
    machine("first").run(writable(str(tmp_path / "shared")), say="words in a log")
    for path in (tmp_path / "shared").rglob("*"):
        assert path.is_dir() or path.read_bytes() != b"words in a log\n"
        assert path.is_dir() or str(tmp_path).encode() not in path.read_bytes()


def test_pushing_and_pulling(machine: MakeMachine, tmp_path: Path) -> None:
    remote = writable(str(tmp_path / "shared"))
    first, second = machine("first"), machine("second")
    first.run(RemoteOptions())
    for plans, pushed in ((None, 3), ([first.plan()], 0)):
        shared = SharedCache(remote, first.store, first.warnings.append)
        assert push(plans, first.store, shared).pushed == pushed
        shared.close()
    shared = SharedCache(remote, second.store, second.warnings.append)
    assert pull([second.plan()], second.store, shared).fetched == 3
    shared.close()
    assert second.result == first.result
    assert second.run(RemoteOptions()) == {}


# ---------------------------------------------------------------- signatures


def test_signed_entries(machine: MakeMachine, tmp_path: Path) -> None:
    shared = str(tmp_path / "shared")
    ours, others = new_key_pair(), new_key_pair()
    trusting = readable(shared, trusted_keys=(ours.public,))
    machine("unsigned").run(writable(shared))
    assert machine("a").run(trusting) == ALL
    machine("other").run(writable(shared, signing_key=others.secret))
    assert machine("b").run(trusting) == ALL
    machine("signed").run(writable(shared, signing_key=ours.secret))
    last = machine("c")
    assert last.run(trusting) == {}
    assert last.warnings == []


def test_a_forged_entry_is_refused_and_replaced(machine: MakeMachine, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    ours = new_key_pair()
    signed = writable(str(shared), signing_key=ours.secret)
    machine("unsigned").run(writable(str(shared)))
    machine("signed").run(signed)
    (folder,) = [path for path in (shared / "v1/entries").iterdir() if path.name != "unsigned"]
    shutil.rmtree(folder)
    shutil.copytree(shared / "v1/entries/unsigned", folder)

    victim = machine("victim")
    assert victim.run(signed) == ALL
    assert victim.warnings == [
        f"the shared cache {shared}: has an entry that has no signature; it is not used"
    ]
    assert machine("next").run(signed) == {}


# ---------------------------------------------------------------- a bad remote


QUICK = {
    ("silent", "entries"),
    ("page", "entries"),
    ("500", "entries"),
    ("trickle", "blobs"),
    ("flip", "blobs"),
    ("hang up", "blobs"),
    ("short", "files"),
    ("flip", "files"),
}
MOODS = ["silent", "trickle", "short", "endless", "flip", "page", "500", "403", "hang up"]


@pytest.mark.parametrize(
    ("mood", "spoiled"),
    [
        pytest.param(mood, spoiled, marks=[] if (mood, spoiled) in QUICK else pytest.mark.slow)
        for mood in MOODS
        for spoiled in ("entries", "blobs", "files")
    ],
)
def test_nothing_that_it_does_matters(
    machine: MakeMachine, tmp_path: Path, mood: str, spoiled: str
) -> None:
    first, second = machine("first"), machine("second")
    first.run(writable(str(tmp_path / "shared")))
    with bad_server(tmp_path / "shared", mood, spoiled) as server:
        ran = second.run(writable(server.url, timeout=0.4))
    if spoiled == "files":
        assert ran == {"export": 1}
    else:
        assert {"load", "change"} <= set(ran)
    assert second.result == first.result
    assert 1 <= len(second.warnings) <= 2
    assert server.url in second.warnings[0]


def flipped(data: bytes) -> bytes:
    """Another byte near the end of each large piece."""
    return data if len(data) < 1000 else data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


def cut(data: bytes) -> bytes | None:
    return data if len(data) < 1000 else None


@pytest.mark.parametrize("kind", ["s3", "gcs", AZURE])
@pytest.mark.parametrize("spoil", [flipped, cut])
def test_what_happens_on_the_way_does_not_matter(
    machine: MakeMachine,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    kind: str,
    spoil: Callable[[bytes], bytes | None],
) -> None:
    """On each service, through a proxy that changes or cuts off what it answers."""
    endpoint = request.getfixturevalue(kind)
    address = place_on(kind, endpoint, monkeypatch, tmp_path)
    first, second, third = (machine(name) for name in ("first", "second", "third"))
    first.run(writable(address))
    with spoiling_proxy(endpoint, spoil) as spoiled:
        place_on(kind, spoiled, monkeypatch, tmp_path)
        assert "export" in second.run(readable(address, timeout=0.5))
    assert second.result == first.result
    assert 1 <= len(second.warnings) <= 2
    place_on(kind, endpoint, monkeypatch, tmp_path)
    assert third.run(readable(address)) == {}


def test_everything_comes_from_a_server_that_lists_nothing(
    machine: MakeMachine, tmp_path: Path
) -> None:
    ours = new_key_pair()
    first, second = machine("first"), machine("second")
    with bad_server(tmp_path / "shared") as server:
        remote = writable(server.url, signing_key=ours.secret)
        first.run(remote)
        first.run(remote, fold=True)
        shared = SharedCache(remote, second.store, second.warnings.append)
        assert pull(None, second.store, shared).fetched == 5
        shared.close()
    assert upkeep.verify(second.store) == []
    assert second.warnings == []


def test_one_that_is_down_costs_one_warning(machine: MakeMachine) -> None:
    found = machine("first")
    assert found.run(writable(f"http://127.0.0.1:{free_port()}", timeout=0.4)) == ALL
    assert len(found.warnings) == 1
    assert "going on without it" in found.warnings[0]


def test_one_that_fails_is_not_asked_again(machine: MakeMachine, tmp_path: Path) -> None:
    with bad_server(tmp_path / "shared", "500") as server:
        machine("first").run(writable(server.url, timeout=0.4))
        # The first entry, and the client's own two retries.
        assert server.asked <= 3


def test_one_that_cannot_be_written_costs_one_warning(machine: MakeMachine, tmp_path: Path) -> None:
    with bad_server(tmp_path / "shared") as server:
        found = machine("first")

        def spoil(event: Event) -> None:
            server.mood = "403"

        result = run(found.plan(), found.store, RunOptions(remote=writable(server.url)), spoil)
        assert result.ok
    assert not (tmp_path / "shared").exists()


def test_a_lying_entry_gives_no_wrong_result(machine: MakeMachine, tmp_path: Path) -> None:
    """A place for a weight that holds something else is hashed before it is believed."""
    remote = writable(str(tmp_path / "shared"))
    first, second = machine("first"), machine("second")
    first.run(remote)
    for path in (tmp_path / "shared").rglob("*.json"):
        payload = path.read_bytes().partition(b"\n")[0].replace(b'weights",0]', b'weights",96]')
        path.write_bytes(payload + b"\n" + Digest.of(payload).hex.encode() + b"\n")
    (second.folder / "build").mkdir()
    assert second.run(remote) == {}
    shutil.rmtree(second.folder / "build")
    shutil.rmtree(tmp_path / "shared/v1/files")
    assert second.run(remote) == {"export": 1}
    assert second.result == first.result


def test_without_the_library_a_run_goes_on(
    machine: MakeMachine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = transport.find_spec
    monkeypatch.setattr(
        transport, "find_spec", lambda name: None if name == "obstore" else found(name)
    )
    user = machine("first")
    assert user.run(readable(str(tmp_path / "shared"))) == ALL
    assert user.warnings == [
        f"the shared cache {tmp_path}/shared: it needs the package obstore; going on without it"
    ]
