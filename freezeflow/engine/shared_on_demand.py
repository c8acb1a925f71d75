"""The shared cache as a run sees it: opened when something is first asked of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from freezeflow.engine.events import CacheShared, OnEvent, RunWarned
from freezeflow.engine.tasks import Wish
from freezeflow.store.actions import Action
from freezeflow.store.remote.options import RemoteOptions
from freezeflow.store.store import Store
from freezeflow.values import Digest

if TYPE_CHECKING:
    from freezeflow.engine.shared import SharedCache


class SharedOnDemand:
    """The shared cache of a run; where there is none, it has nothing and takes nothing.

    Args:
        options: Where it is, and whether it may be written to.
        store: The local cache.
        tell: Told what is wrong with it, and in the end what went over.
    """

    def __init__(self, options: RemoteOptions, store: Store, tell: OnEvent) -> None:
        self._options = options
        self._store = store
        self._tell = tell
        self._opened: SharedCache | None = None
        # What it was asked for and has not.
        self._absent: set[Digest] = set()

    def fetch(self, wishes: Sequence[Wish]) -> bool:
        """Whether it has brought one of these into the local cache; it is asked once for each."""
        new = [wish for wish in wishes if wish.key not in self._absent]
        shared = self._open() if new else None
        if shared is None:
            return False
        found = shared.fetch(new)
        self._absent.update(wish.key for wish in new if wish.key not in found)
        return bool(found)

    def fetch_weights(self, digests: Collection[Digest]) -> None:
        """Brings tensors into the local cache, as far as it has them."""
        if shared := self._open():
            shared.fetch_weights(digests)

    def push(self, wish: Wish, action: Action) -> None:
        """Takes a result to it, if that is allowed."""
        if self._options.push and (shared := self._open()):
            shared.push(wish, action)

    def settle(self) -> None:
        """Waits until what was made is there, too, and tells what went over."""
        if self._opened is None:
            return
        self._opened.settle()
        went = self._opened.traffic
        if went.fetched or went.pushed:
            self._tell(CacheShared(**dataclasses.asdict(went)))

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()

    def _open(self) -> SharedCache | None:
        if self._opened is None and self._options.url:
            from freezeflow.engine.shared import SharedCache

            self._opened = SharedCache(
                self._options, self._store, lambda message: self._tell(RunWarned(message=message))
            )
        return self._opened
