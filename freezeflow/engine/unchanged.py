"""A record that everything is as it was: what a run of many models with nothing to do looks at first.

It holds the path of every file that the look-ups of a run looked at, and one digest of how all those
files look: size, times, inode, or that they are not there. While that digest and the plans stay the
same, a run would find every step cached again, and none of them is looked up.

A record is only kept if no file that was given was touched since shortly before the run began; what
looks the same later has then not changed. What the run itself has written is checked once more, as soon
as a later change of it would show. A record holds for a day, so that `gc` knows what is in use.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import blake3

from freezeflow.engine.keys import source_paths
from freezeflow.engine.results import RunResult
from freezeflow.errors import FreezeflowError
from freezeflow.plan import Plan
from freezeflow.store.files import write_checked_later
from freezeflow.store.stats import tick_ns
from freezeflow.store.store import Store
from freezeflow.values import Digest

FORMAT = "freezeflow.unchanged/1"

_HOLDS_NS = 24 * 3600 * 1_000_000_000

_GONE = b"-"

# Plans whose files are looked at together, and bytes of paths that are read together.
_AT_ONCE = 256
_BLOCK_BYTES = 1 << 18

# No file system's clock ticks more slowly.
_LONGEST_NS = 2_200_000_000


class Record:
    """The record of one request.

    Args:
        store: The store that it is kept beside.
        request: What was asked for: recipes, variables, what is selected.
        plans: What tells the plans apart from those of another time.
    """

    def __init__(self, store: Store, request: object, plans: Sequence[str]) -> None:
        name = Digest.of(json.dumps(request, sort_keys=True).encode()).hex[:32]
        self._path = store.folder / "plans" / f"unchanged-{name}"
        self._origin = Digest.of(json.dumps([FORMAT, *plans]).encode()).hex

    def steps(self) -> int | None:
        """How many steps are cached, all of them; None if that is not known without a look."""
        try:
            with open(self._path, "rb") as file:
                return self._steps(file)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _steps(self, file: IO[bytes]) -> int | None:
        known = json.loads(file.readline())
        age = time.time_ns() - known["made_ns"]
        if known["origin"] != self._origin or not 0 <= age < _HOLDS_NS:
            return None
        looks = _Looks(time.time_ns())
        for paths in _split(file):
            looks.add(paths)
        return int(known["steps"]) if looks.digest() == known["digest"] else None

    def keep(self, plans: Sequence[Plan], result: RunResult, store: Store, began_ns: int) -> None:
        """Keeps the record of a run after which every step is cached.

        Args:
            plans: What has run.
            result: What came of it; no step has failed or was skipped.
            store: Where it has looked and written.
            began_ns: When it began, in ns since the epoch.
        """
        seen = _see(plans, result, store, began_ns, check=False)
        if seen is not None and (changed_ns := seen.changed_ns) is not None:
            del seen  # all the paths of thousands of models
            _wait_until(changed_ns)
            seen = _see(plans, result, store, began_ns, check=True)
        if seen is None:
            return
        head = {
            "origin": self._origin,
            "made_ns": time.time_ns(),
            "steps": len(result.steps),
            "digest": seen.digest,
        }
        # A cache that cannot be written makes the next run slower, and no more.
        with contextlib.suppress(FreezeflowError):
            seen.names[:0] = json.dumps(head).encode() + b"\n"
            write_checked_later(self._path, seen.names)


class _Seen(NamedTuple):
    """What a record says: a digest of how files look, and their paths.

    Args:
        digest: The digest.
        names: The paths, as `_split` takes them apart.
        changed_ns: When a change of what was written last begins to show (ns since the epoch); None
            where nothing was written since the run began.
    """

    digest: str
    names: bytearray
    changed_ns: int | None


def _see(
    plans: Sequence[Plan], result: RunResult, store: Store, began_ns: int, *, check: bool
) -> _Seen | None:
    """Looks at all files of some plans; None if no record can be kept.

    Args:
        plans: The plans.
        result: What came of them.
        store: Where they have looked and written.
        began_ns: What was given must not have been touched since then.
        check: Compare what was written since then with what it should be.
    """
    looks = _Looks(began_ns)
    names = bytearray()
    was_written = False
    for start in range(0, len(plans), _AT_ONCE):
        some = plans[start : start + _AT_ONCE]
        given = _given(some, store)
        written = _written(some, result, store)
        if written is None:
            return None
        paths = sorted({*given, *written.blobs, *written.files})
        recent = looks.add(paths)
        if not recent.isdisjoint(given):
            return None
        # Checked after the look: what changes in between is not as it looked.
        if check and not written.is_whole(recent, store):
            return None
        names += b"\0" * bool(names) + b"\0".join(paths)
        was_written |= bool(recent)
    changed_ns = looks.quiet_ns if was_written else None
    return _Seen(looks.digest(), names, changed_ns)


def _given(plans: Sequence[Plan], store: Store) -> set[bytes]:
    """Every file and folder that steps read, and what tells that actions were deleted."""
    steps = [step for plan in plans for step in plan.steps]
    found = {str(store.actions.forgetting), *source_paths({s.source for s in steps}, store)}
    found.update(str(path) for step in steps for path in step.input_files.values())
    return set(map(os.fsencode, found))


class _Written(NamedTuple):
    """What steps have written: paths of blobs, and of published files with SHA-256 and bytes."""

    blobs: Mapping[bytes, Digest]
    files: Mapping[bytes, tuple[str, int]]

    def is_whole(self, paths: Collection[bytes], store: Store) -> bool:
        """Whether those of the paths that are in here hold what was written."""
        files = {Path(os.fsdecode(path)): self.files[path] for path in paths if path in self.files}
        blobs = [self.blobs[path] for path in paths if path in self.blobs]
        return len(store.stats.unchanged(files)) == len(files) and not store.blobs.lost(blobs)


def _written(plans: Sequence[Plan], result: RunResult, store: Store) -> _Written | None:
    """What the steps of plans have written, now or earlier; None if an action is gone already."""
    prefix = f"{store.blobs.folder}/"
    steps = [step for plan in plans for step in result.steps.of_plan(plan.recipe, plan.name)]
    keys = {step.key for step in steps if step.key is not None}
    actions = store.actions.get(keys)
    if len(actions) < len(keys):
        return None
    blobs = {
        os.fsencode(f"{prefix}{digest.hex[:2]}/{digest.hex[2:]}"): digest
        for action in actions.values()
        for digest in action.outputs.blobs()
    }
    files = {
        os.fsencode(file.path): (file.sha256, file.nbytes) for step in steps for file in step.files
    }
    return _Written(blobs, files)


class _Looks:
    """How files look, one after another.

    Args:
        since_ns: A moment, in ns since the epoch.

    Attributes:
        quiet_ns: When a change of any of them begins to show.
    """

    def __init__(self, since_ns: int) -> None:
        self._since_ns = since_ns
        self._hasher = blake3.blake3()
        self.quiet_ns = 0

    def add(self, paths: Iterable[bytes]) -> set[bytes]:
        """Looks at more files; those that may have been changed since that moment."""
        stat, pack = os.stat, struct.Struct("<4q").pack
        recent: set[bytes] = set()
        looks: list[bytes] = []
        for path in paths:
            try:
                status = stat(path)
            except OSError:
                looks.append(_GONE)
                continue
            modified, changed = status.st_mtime_ns, status.st_ctime_ns
            quiet_ns = max(modified, changed) + tick_ns(modified)
            if quiet_ns >= self._since_ns:
                recent.add(path)
                self.quiet_ns = max(self.quiet_ns, quiet_ns)
            looks.append(pack(status.st_size, modified, status.st_ino, changed))
        self._hasher.update(b"".join(looks))
        return recent

    def digest(self) -> str:
        """A digest of how all of them look."""
        return self._hasher.hexdigest()


def _split(file: IO[bytes]) -> Iterator[list[bytes]]:
    """The paths of a record, some at a time."""
    begun = b""
    while block := file.read(_BLOCK_BYTES):
        *paths, begun = (begun + block).split(b"\0")
        yield paths
    yield [begun]


def _wait_until(moment_ns: int) -> None:
    """Waits for the tick of a file system's clock, and no longer: a file may be from the future."""
    time.sleep(min(max(moment_ns - time.time_ns(), 0), _LONGEST_NS) / 1e9)
