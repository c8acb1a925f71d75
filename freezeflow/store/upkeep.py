"""Looking after a store: what is in it, whether it is whole, and what may go."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from freezeflow.store.actions import Outputs, decode_action_file
from freezeflow.store.hashing import hash_file
from freezeflow.store.store import Store
from freezeflow.values import Digest


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StoreInfo:
    """How much is in a store; sizes in bytes."""

    folder: Path
    actions: int
    blobs: int
    blob_bytes: int
    adopted_tensors: int
    adopted_bytes: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A kept action.

    Args:
        key: Its key.
        recipe: The recipe file that it first ran for.
        step: The step's id there.
        stage: The stage.
        used_ns: When it was last used, to the day, in ns since the epoch.
        nbytes: Bytes of its blobs; one that others share counts for each.
    """

    key: Digest
    recipe: str
    step: str
    stage: str
    used_ns: int
    nbytes: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """Something in the store that is not what it should be: the file, and what is wrong."""

    path: Path
    message: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What `gc` deleted, or would delete; ``blob_bytes`` is what that frees."""

    actions: int
    blobs: int
    blob_bytes: int


def info(store: Store) -> StoreInfo:
    """Counts what is in the store."""
    sizes = _blob_sizes(store)
    ((ranges, adopted),) = store.index.select("SELECT COUNT(*), TOTAL(length) FROM ranges")
    return StoreInfo(
        folder=store.folder,
        actions=sum(1 for _ in store.actions.files()),
        blobs=len(sizes),
        blob_bytes=sum(sizes.values()),
        adopted_tensors=ranges,
        adopted_bytes=int(adopted),
    )


def entries(store: Store) -> list[Entry]:
    """Every whole action, the last used first."""
    sizes = _blob_sizes(store)
    used = store.actions.last_used()
    found = []
    for path in store.actions.files():
        file = decode_action_file(path.read_bytes())
        if file is None:
            continue
        found.append(
            Entry(
                key=file.action.key,
                recipe=file.recipe,
                step=file.step,
                stage=str(file.preimage.get("stage", "")),
                used_ns=used.get(file.action.key, path.stat().st_mtime_ns),
                nbytes=sum(sizes.get(digest, 0) for digest in set(file.action.outputs.blobs())),
            )
        )
    return sorted(found, key=lambda entry: (-entry.used_ns, entry.key))


def verify(store: Store) -> list[Damage]:
    """Reads everything that is in the store and reports what is damaged; changes nothing.

    Finds a flipped bit in any blob and any action, blobs that actions need and that are gone,
    what the index says otherwise than the files, and adopted ranges that hold something else.
    (An adopted file that has changed or gone since is no damage: its ranges are simply not found.)
    """
    found = [Damage(path=store.index.path, message=text) for text in store.index.problems()]
    for digest in sorted(store.blobs.all()):
        if hash_file(store.blobs.path(digest)) != digest:
            found.append(Damage(path=store.blobs.path(digest), message="damaged blob"))
    whole = {}
    for path in store.actions.files():
        file = decode_action_file(path.read_bytes())
        if file is None or store.actions.path(file.action.key) != path:
            found.append(Damage(path=path, message="damaged action"))
            continue
        whole[file.action.key] = file.action.outputs
        for digest in file.action.outputs.blobs():
            if not store.blobs.path(digest).exists():
                text = f"needs the blob {digest.hex[:12]}, which is missing"
                found.append(Damage(path=path, message=text))
    found += _index_damage(store, whole)
    return found


def gc(
    store: Store,
    *,
    keep: Collection[Digest] | None = None,
    max_age_days: float | None = None,
    max_bytes: int | None = None,
    dry_run: bool = False,
) -> Collected:
    """Deletes actions, then every blob that no action needs any more.

    Args:
        store: The store.
        keep: Keys of the actions to keep; all others go. None leaves this rule out.
        max_age_days: Actions not used for so long go.
        max_bytes: While the blobs have more bytes, the action that was not used for longest goes.
        dry_run: Delete nothing, and tell what would be.

    Raises:
        FreezeflowError: A run is using the store, or something cannot be deleted.
    """
    with store.alone():
        sizes = _blob_sizes(store)
        kept, gone = _sort_out(store, sizes, keep, max_age_days, max_bytes)
        loose = set(sizes) - {digest for outputs in kept.values() for digest in outputs.blobs()}
        if not dry_run:
            # With those that only the index still knows.
            store.actions.forget({*gone, *store.actions.last_used()} - set(kept))
            store.blobs.remove(loose)
            store.tensors.forget_gone()
        return Collected(
            actions=len(gone),
            blobs=len(loose),
            blob_bytes=sum(sizes[digest] for digest in loose),
        )


def _sort_out(
    store: Store,
    sizes: dict[Digest, int],
    keep: Collection[Digest] | None,
    max_age_days: float | None,
    max_bytes: int | None,
) -> tuple[dict[Digest, Outputs], list[Digest]]:
    """Outputs of the actions that stay, and the keys of those that go."""
    used = store.actions.last_used()
    stay: dict[Digest, Outputs] = {}
    go: list[Digest] = []
    for path in store.actions.files():
        file = decode_action_file(path.read_bytes())
        if file is None:
            continue
        key = file.action.key
        age_days = (time.time_ns() - used.get(key, path.stat().st_mtime_ns)) / 86_400e9
        unwanted = keep is not None and key not in keep
        if unwanted or (max_age_days is not None and age_days > max_age_days):
            go.append(key)
        else:
            stay[key] = file.action.outputs
    if max_bytes is not None:
        oldest_first = sorted(stay, key=lambda key: (used.get(key, 0), key))
        go += _shrink(stay, oldest_first, sizes, max_bytes)
    return stay, go


def _shrink(
    stay: dict[Digest, Outputs],
    oldest_first: Sequence[Digest],
    sizes: dict[Digest, int],
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


def _index_damage(store: Store, whole: dict[Digest, Outputs]) -> Iterable[Damage]:
    """Rows of the index that say otherwise than the files."""
    known = store.actions.indexed()
    for key, outputs in known.items():
        if key not in whole:
            path = store.actions.path(key)
            if not path.exists():
                yield Damage(path=path, message="missing, and the index names it")
        elif outputs != whole[key]:
            yield Damage(
                path=store.index.path,
                message=f"other outputs for {key.hex[:12]} than its file",
            )
    for path_text, digest in store.tensors.wrong_ranges():
        yield Damage(
            path=Path(path_text),
            message=f"the range adopted as {digest.hex[:12]} holds something else",
        )


def _blob_sizes(store: Store) -> dict[Digest, int]:
    return {digest: os.stat(store.blobs.path(digest)).st_size for digest in store.blobs.all()}
