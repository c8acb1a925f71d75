"""A record that everything is as it was: what a run of many models with nothing to do looks at first.

It holds the path of every file that the look-ups of a run looked at, and one digest of how all those
files look: size, times, inode, or that they are not there. While that digest and the plans stay the
same, a run would find every step cached again, and none of them is looked up.

A record is only kept if no file was touched since shortly before the look-ups began; what looks the
same later has then not changed. It holds for a day, so that `gc` knows what is in use.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import time
from collections.abc import Iterable, Sequence

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
                found, _ = _look(names.split(b"\0"))
                return int(known["steps"]) if found == known["digest"] else None
        return None

    def keep(self, plans: Sequence[Plan], result: RunResult, store: Store, began_ns: int) -> None:
        """Keeps the record of a run that has found everything cached.

        Args:
            plans: What has run.
            result: What came of it.
            store: Where it has looked.
            began_ns: When it began, in ns since the epoch.
        """
        paths = sorted(map(os.fsencode, set(_looked_at(plans, result, store))))
        digest, quiet_ns = _look(paths)
        if quiet_ns >= began_ns:
            return
        head = {
            "origin": self._origin,
            "made_ns": time.time_ns(),
            "steps": len(result.steps),
            "digest": digest,
        }
        # A cache that cannot be written makes the next run slower, and no more.
        with contextlib.suppress(FreezeflowError):
            write_checked_later(self._path, json.dumps(head).encode() + b"\n" + b"\0".join(paths))


def _looked_at(plans: Sequence[Plan], result: RunResult, store: Store) -> Iterable[str]:
    """Every file that tells whether a step is cached."""
    yield str(store.actions.forgetting)
    sources = {step.source for plan in plans for step in plan.steps}
    yield from source_paths(sources, store)
    for plan in plans:
        for step in plan.steps:
            yield from map(str, step.input_files.values())
    prefix = f"{store.blobs.folder}/"
    keys = [step.key for step in result.steps if step.key is not None]
    for action in store.actions.get(keys).values():
        for digest in action.outputs.blobs():
            yield f"{prefix}{digest.hex[:2]}/{digest.hex[2:]}"
    for ended in result.steps:
        yield from (str(file.path) for file in ended.files)


def _look(paths: Sequence[bytes]) -> tuple[str, int]:
    """A digest of how files look, and since when (ns) a change would show in it."""
    quiet = 0
    stat, pack = os.stat, struct.Struct("<4q").pack
    looks: list[bytes] = []
    for path in paths:
        try:
            status = stat(path)
        except OSError:
            looks.append(_GONE)
            continue
        modified, changed = status.st_mtime_ns, status.st_ctime_ns
        quiet = max(quiet, max(modified, changed) + tick_ns(modified))
        looks.append(pack(status.st_size, modified, status.st_ino, changed))
    return Digest.of(b"".join(looks)).hex, quiet
