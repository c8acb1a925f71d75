"""Looking after a store: what is in it, and whether it is whole."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterable
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


def info(store: Store) -> StoreInfo:
    """Counts what is in the store."""
    sizes = blob_sizes(store)
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
    sizes = blob_sizes(store)
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


def blob_sizes(store: Store) -> dict[Digest, int]:
    """Bytes of every blob that is there."""
    sizes = {}
    for digest in store.blobs.all():
        with contextlib.suppress(FileNotFoundError):
            sizes[digest] = os.stat(store.blobs.path(digest)).st_size
    return sizes
