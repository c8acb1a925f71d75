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
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

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
                data = file.read()
        except OSError:
            return None
        head, _, names = data.partition(b"\n")
        with contextlib.suppress(ValueError, KeyError, TypeError):
            known = json.loads(head)
            age = time.time_ns() - known["made_ns"]
            if known["origin"] == self._origin and 0 <= age < _HOLDS_NS:
                found = _look(names.split(b"\0")).digest
                return int(known["steps"]) if found == known["digest"] else None
        return None

    def keep(self, plans: Sequence[Plan], result: RunResult, store: Store, began_ns: int) -> None:
        """Keeps the record of a run after which every step is cached.

        Args:
            plans: What has run.
            result: What came of it; no step has failed or was skipped.
            store: Where it has looked and written.
            began_ns: When it began, in ns since the epoch.
        """
        written = _written(result, store)
        if written is None:
            return
        given = _given(plans, store)
        paths = sorted({*given, *written.blobs, *written.files})
        look = _look(paths)
        recent = look.touched_since(began_ns)
        if recent and recent.isdisjoint(given):
            _wait_until(look.quiet_ns)
            look = _look(paths)
            recent = look.touched_since(began_ns)
        # Checked after the look: what changes in between is not as it looked.
        if not (recent.isdisjoint(given) and written.is_whole(recent, store)):
            return
        head = {
            "origin": self._origin,
            "made_ns": time.time_ns(),
            "steps": len(result.steps),
            "digest": look.digest,
        }
        # A cache that cannot be written makes the next run slower, and no more.
        with contextlib.suppress(FreezeflowError):
            write_checked_later(self._path, json.dumps(head).encode() + b"\n" + b"\0".join(paths))


def _given(plans: Sequence[Plan], store: Store) -> set[bytes]:
    """Every file and folder that steps read, and what tells that actions were deleted."""
    sources = {step.source for plan in plans for step in plan.steps}
    found = {str(store.actions.forgetting), *source_paths(sources, store)}
    for plan in plans:
        for step in plan.steps:
            found.update(map(str, step.input_files.values()))
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


def _written(result: RunResult, store: Store) -> _Written | None:
    """What the steps of a run have written, now or earlier; None if an action is gone already."""
    prefix = f"{store.blobs.folder}/"
    blobs: dict[bytes, Digest] = {}
    files: dict[bytes, tuple[str, int]] = {}
    for steps in result.steps.by_plan():
        keys = {step.key for step in steps if step.key is not None}
        actions = store.actions.get(keys)
        if len(actions) < len(keys):
            return None
        for digest in (digest for action in actions.values() for digest in action.outputs.blobs()):
            blobs[os.fsencode(f"{prefix}{digest.hex[:2]}/{digest.hex[2:]}")] = digest
        published = (file for step in steps for file in step.files)
        files.update((os.fsencode(file.path), (file.sha256, file.nbytes)) for file in published)
    return _Written(blobs, files)


class _Look(NamedTuple):
    """How files look.

    Args:
        digest: A digest of it.
        quiet: When (ns since the epoch) a change of each began to show, as far as it is there.
    """

    digest: str
    quiet: Mapping[bytes, int]

    @property
    def quiet_ns(self) -> int:
        return max(self.quiet.values(), default=0)

    def touched_since(self, began_ns: int) -> set[bytes]:
        """Those that may have been changed since then."""
        return {path for path, quiet_ns in self.quiet.items() if quiet_ns >= began_ns}


def _look(paths: Iterable[bytes]) -> _Look:
    stat, pack = os.stat, struct.Struct("<4q").pack
    quiet: dict[bytes, int] = {}
    looks: list[bytes] = []
    for path in paths:
        try:
            status = stat(path)
        except OSError:
            looks.append(_GONE)
            continue
        modified, changed = status.st_mtime_ns, status.st_ctime_ns
        quiet[path] = max(modified, changed) + tick_ns(modified)
        looks.append(pack(status.st_size, modified, status.st_ino, changed))
    return _Look(Digest.of(b"".join(looks)).hex, quiet)


def _wait_until(moment_ns: int) -> None:
    """Waits for the tick of a file system's clock, and no longer: a file may be from the future."""
    time.sleep(min(max(moment_ns - time.time_ns(), 0), _LONGEST_NS) / 1e9)
