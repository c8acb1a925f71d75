"""Brings results from the shared cache, and takes them there, without running anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from freezeflow.engine.shared import SharedCache, Traffic
from freezeflow.engine.survey import look_up
from freezeflow.engine.tasks import Wish
from freezeflow.plan import Plan
from freezeflow.store.actions import Action, decode_action_file
from freezeflow.store.blobs import BlobLost
from freezeflow.store.store import Store

# Entries that are looked at together.
_AT_ONCE = 256


def pull(plans: Sequence[Plan] | None, store: Store, shared: SharedCache) -> Traffic:
    """Brings results into the local cache, with all weights that this machine has not got.

    Args:
        plans: For their steps, with the files that those publish; None for everything there is,
            without files.
        store: The local cache.
        shared: The shared one.

    Raises:
        FreezeflowError: The shared cache fails, or the local one cannot be written.
    """
    if plans is None:
        actions = _pull_everything(store, shared)
    else:
        actions = [task.action for task in look_up(plans, store, shared.fetch) if task.action]
    _pull_weights(actions, store, shared)
    return shared.traffic


def push(plans: Sequence[Plan] | None, store: Store, shared: SharedCache) -> Traffic:
    """Takes results to the shared cache.

    Args:
        plans: Of their steps, as far as they are cached; None for everything in the local cache.
        store: The local cache.
        shared: The shared one.

    Raises:
        FreezeflowError: The shared cache fails.
    """
    if plans is None:
        for wish, action in _everything(store):
            shared.push(wish, action)
    else:
        for task in look_up(plans, store, None):
            if task.action is not None:
                shared.push(task.wish(), task.action)
    shared.settle()
    return shared.traffic


def _pull_everything(store: Store, shared: SharedCache) -> list[Action]:
    keys = shared.keys()
    for start in range(0, len(keys), _AT_ONCE):
        some = keys[start : start + _AT_ONCE]
        known = store.actions.get(some)
        entries = shared.entries([key for key in some if key not in known])
        shared.fetch(
            [
                Wish(key, entry.preimage, None, None, (shared.url, str(entry.preimage["stage"])))
                for key, entry in entries.items()
            ]
        )
    return list(store.actions.get(keys).values())


def _pull_weights(actions: Sequence[Action], store: Store, shared: SharedCache) -> None:
    from freezeflow.graph.storage import tensor_digests

    for action in actions:
        try:
            digests = tensor_digests(store.blobs.read(action.outputs.record))
        except BlobLost:
            continue
        there = store.tensors.locate(digests)
        missing = [digest for digest in digests if digest not in there]
        if missing:
            shared.fetch_weights(missing)


def _everything(store: Store) -> Iterator[tuple[Wish, Action]]:
    for path in store.actions.files():
        file = decode_action_file(path.read_bytes())
        if file is not None:
            base = Path(file.recipe).parent
            place = (file.recipe, file.step)
            yield Wish(file.action.key, file.preimage, base, None, place), file.action
