"""Deletes what is not wanted any more, also beside runs, and nothing that is alive.

Alive is what a rule keeps, what a running run has used or made, and all that these need. Runs and `gc`
agree on it without waiting for each other's whole length:

- A run says that it is there before it looks anything up; `gc` is alone with that (`Store.alone`), so a
  run that begins meanwhile waits, and sees only what has stayed.
- An action that a run looks up was used less than a day before the run began, or its last use is
  written down now, in one transaction with the look-up (`Actions.get`). So what was used from a day
  before the oldest run began stays.
- A blob that a run puts is new, or the run claims it (`Blobs.put`), in one transaction as here the look
  at the claims and its end. So loose blobs from the beginning of the oldest run on stay, and claimed
  ones.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from freezeflow.store.actions import USED_NS, Outputs, decode_action_file
from freezeflow.store.blobs import BlobLost
from freezeflow.store.files import writing_failed
from freezeflow.store.store import Running, Store
from freezeflow.store.upkeep import blob_sizes
from freezeflow.values import Digest

_DAY_NS = 86_400 * 1_000_000_000

# Blobs that are deleted in one transaction.
_BATCH = 200


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What goes. Without any rule only what nothing needs.

    Args:
        keep: Keys of steps whose actions, and what they left when they failed, stay whatever the other
            rules say; if there are no others, all others go. None for no such.
        everything: All actions go, and all that failed steps left.
        max_age_days: Actions not used for so long go; so does what failed steps left, and logs and reports
            of bugs, as old.
        max_bytes: While the blobs and what failed steps left have more bytes, the oldest of the latter
            goes, then the action that was not used for longest.
    """

    keep: Collection[Digest] | None = None
    everything: bool = False
    max_age_days: float | None = None
    max_bytes: int | None = None

    @property
    def all_others(self) -> bool:
        """Whatever is not kept goes."""
        alone = self.max_age_days is None and self.max_bytes is None
        return self.everything or (self.keep is not None and alone)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What `gc` deleted, or would delete.

    Args:
        actions: Keys of actions.
        blobs: Blobs, with their bytes.
        logs: Logs of failed steps and reports of bugs.
        failures: Folders that failed steps left to explain themselves, with their bytes.
    """

    actions: frozenset[Digest]
    blobs: Mapping[Digest, int]
    logs: frozenset[Path]
    failures: Mapping[Path, int]

    @property
    def nbytes(self) -> int:
        """How much space the blobs and the folders take."""
        return sum(self.blobs.values()) + sum(self.failures.values())


def gc(
    store: Store,
    rules: Rules,
    *,
    tensors_of: Callable[[bytes], Iterable[Digest]],
    dry_run: bool = False,
) -> Collected:
    """Deletes actions, then every blob that no action needs any more.

    Args:
        store: The store.
        rules: What goes.
        tensors_of: The tensors that a model's record names: a blob with one of an action that stays
            stays, too.
        dry_run: Delete nothing, and tell what would be.

    Raises:
        FreezeflowError: Something cannot be deleted.
    """
    with store.alone() as running:
        sizes = blob_sizes(store)
        failures = _old_failures(store, sizes, rules, running.oldest_ns)
        kept_bytes = sum(failure.nbytes for failure in store.failures.all())
        kept_bytes -= sum(failures.values())
        with store.index.transaction():
            stay, go = _sort_out(store, sizes, rules, running.oldest_ns, kept_bytes)
            if not dry_run:
                # With those that only the index still knows.
                store.actions.forget({*go, *store.actions.last_used()} - set(stay))
        loose = _loose(store, sizes, stay, tensors_of)
        gone = _old_blobs(store, loose, running, delete=not dry_run)
        logs = _old_logs(store, rules)
        if not dry_run:
            store.tensors.forget_gone()
            for path in logs:
                path.unlink(missing_ok=True)
            for path in failures:
                store.failures.forget(path.name)
        return Collected(
            actions=frozenset(go),
            blobs={digest: sizes[digest] for digest in gone},
            logs=frozenset(logs),
            failures=failures,
        )


def _old_failures(
    store: Store, sizes: Mapping[Digest, int], rules: Rules, oldest_run_ns: int | None
) -> dict[Path, int]:
    """What failed steps left and goes: by the rules, and where the recipe is gone."""
    now = time.time_ns()
    kept = {key.hex for key in rules.keep or ()}
    found = store.failures.all()
    may_go = [
        failure
        for failure in found
        if failure.key not in kept
        and (oldest_run_ns is None or failure.modified_ns < oldest_run_ns)
    ]
    gone = {
        failure.path: failure.nbytes
        for failure in may_go
        if rules.all_others
        or _is_old(failure.modified_ns, now, rules)
        or not os.path.exists(failure.recipe)
    }
    if rules.max_bytes is not None:
        total = sum(sizes.values()) + sum(f.nbytes for f in found if f.path not in gone)
        for failure in may_go:
            if total > rules.max_bytes and failure.path not in gone:
                gone[failure.path] = failure.nbytes
                total -= failure.nbytes
    return gone


def _sort_out(
    store: Store,
    sizes: Mapping[Digest, int],
    rules: Rules,
    oldest_run_ns: int | None,
    other_bytes: int,
) -> tuple[dict[Digest, Outputs], list[Digest]]:
    """Outputs of the actions that stay, and the keys of those that go."""
    now = time.time_ns()
    known = store.actions.last_used()
    used: dict[Digest, int] = {}
    stay: dict[Digest, Outputs] = {}
    for path in store.actions.files():
        file = decode_action_file(path.read_bytes())
        if file is not None:
            key = file.action.key
            stay[key] = file.action.outputs
            used[key] = known.get(key, path.stat().st_mtime_ns)
    alive = set(rules.keep or ())
    if oldest_run_ns is not None:
        alive |= {key for key in stay if used[key] >= oldest_run_ns - USED_NS}
    may_go = sorted(set(stay) - alive, key=lambda key: (used[key], key))
    go = [key for key in may_go if rules.all_others or _is_old(used[key], now, rules)]
    for key in go:
        del stay[key]
    if rules.max_bytes is not None:
        room = max(rules.max_bytes - other_bytes, 0)
        go += _shrink(stay, [key for key in may_go if key in stay], sizes, room)
    return stay, go


def _is_old(used_ns: int, now_ns: int, rules: Rules) -> bool:
    return rules.max_age_days is not None and now_ns - used_ns > rules.max_age_days * _DAY_NS


def _shrink(
    stay: dict[Digest, Outputs],
    oldest_first: Sequence[Digest],
    sizes: Mapping[Digest, int],
    max_bytes: int,
) -> list[Digest]:
    """Takes actions out of `stay` until their blobs fit; returns their keys."""
    users: dict[Digest, int] = {}
    for outputs in stay.values():
        for digest in set(outputs.blobs()):
            users[digest] = users.get(digest, 0) + 1
    total = sum(sizes.get(digest, 0) for digest in users)
    gone = []
    for key in oldest_first:
        if total <= max_bytes:
            break
        for digest in set(stay.pop(key).blobs()):
            users[digest] -= 1
            if users[digest] == 0:
                total -= sizes.get(digest, 0)
        gone.append(key)
    return gone


def _loose(
    store: Store,
    sizes: Mapping[Digest, int],
    stay: Mapping[Digest, Outputs],
    tensors_of: Callable[[bytes], Iterable[Digest]],
) -> list[Digest]:
    """Blobs that no action which stays needs, neither itself nor as a weight of its model."""
    loose = set(sizes)
    for outputs in stay.values():
        loose.difference_update(outputs.blobs())
    if loose:
        for record in {outputs.record for outputs in stay.values()} & set(sizes):
            with contextlib.suppress(BlobLost):  # its action does not count any more
                loose.difference_update(tensors_of(store.blobs.read(record)))
    return sorted(loose)


def _old_blobs(
    store: Store, loose: Sequence[Digest], running: Running, *, delete: bool
) -> list[Digest]:
    """Those of the loose blobs that no run has put, which are deleted if that is wanted."""
    gone = []
    for start in range(0, len(loose), _BATCH):
        with store.index.transaction():
            claimed = running.claimed()
            for digest in loose[start : start + _BATCH]:
                if digest in claimed or _is_new(store.blobs.path(digest), running):
                    continue
                gone.append(digest)
                if delete:
                    store.blobs.remove([digest])
    return gone


def _is_new(path: Path, running: Running) -> bool:
    return running.oldest_ns is not None and _modified_ns(path) >= running.oldest_ns


def _old_logs(store: Store, rules: Rules) -> list[Path]:
    found = [path for name in ("logs", "crashes") for path in (store.folder / name).glob("*.txt")]
    now = time.time_ns()
    return [path for path in found if rules.everything or _is_old(_modified_ns(path), now, rules)]


def _modified_ns(path: Path) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except FileNotFoundError:
        return time.time_ns()
    except OSError as error:
        raise writing_failed(error, path) from error
