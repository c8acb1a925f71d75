"""The shared cache in a run: what it has comes into the local cache, what was made goes to it.

A run never depends on it. Whatever is wrong with it is told once, and then the run goes on without it;
whatever is wrong with an entry makes a miss of that entry.
"""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TypeVar

from freezeflow.engine.keys import source_file
from freezeflow.engine.results import ResultFile
from freezeflow.engine.tasks import Wish, placed
from freezeflow.errors import FreezeflowError, MissingExtra
from freezeflow.store.actions import Action
from freezeflow.store.blobs import BlobLost
from freezeflow.store.files import publication
from freezeflow.store.remote.entries import (
    Entry,
    NotAccepted,
    Weight,
    blob_path,
    decode_entry,
    encode_entry,
    entries_folder,
    entry_path,
    file_path,
    key_in_path,
    may_publish,
)
from freezeflow.store.remote.options import RemoteOptions
from freezeflow.store.remote.signing import public_key_of, trusted_keys
from freezeflow.store.remote.transport import (
    DoesNotMatch,
    RemoteFailed,
    Transport,
    Wanted,
    location_pieces,
)
from freezeflow.store.store import Store
from freezeflow.values import Digest, Location

T = TypeVar("T")

# An object, and what reads it.
_Read = Callable[[], Iterable[bytes]]
_Objects = Sequence[tuple[Wanted, _Read]]

# Entries that are on their way at once, with all that belongs to them.
_AT_ONCE = 64


@dataclasses.dataclass(slots=True)
class Traffic:
    """What went over: results and bytes, either way."""

    fetched: int = 0
    fetched_bytes: int = 0
    pushed: int = 0
    pushed_bytes: int = 0


class SharedCache:
    """An open shared cache.

    Args:
        options: Where it is, and whom it is believed from.
        store: The local cache.
        warn: Told what is wrong, once for each thing.
        forgiving: When it fails, go on without it; else that is raised.

    Attributes:
        failure: Why nothing is asked of it any more: it has failed, or a package that it needs is not
            installed.
        traffic: What went over.
    """

    def __init__(
        self,
        options: RemoteOptions,
        store: Store,
        warn: Callable[[str], None],
        *,
        forgiving: bool = True,
    ) -> None:
        self._options = options
        self._store = store
        self._warn = warn
        self._forgiving = forgiving
        self._told: set[str] = set()
        self._transport: Transport | None = None
        self._uploads: list[Future[bool]] = []
        self._pushed: list[Digest] = []
        self._objects: dict[str, Future[bool]] = {}
        self._sizes: dict[str, int] = {}
        self._lock = threading.Lock()
        # Entries that are there and do not count; one who may write replaces them.
        self._refused: set[Digest] = set()
        self.traffic = Traffic()
        self.failure: FreezeflowError | None = None
        self._own_key = ""
        self._trusted: tuple[str, ...] = ()
        try:
            self._own_key = public_key_of(options.signing_key) if options.signing_key else ""
            self._trusted = trusted_keys(options.trusted_keys, self._own_key)
            self._transport = Transport(options)
        except (MissingExtra, RemoteFailed) as failure:
            self._failed(failure)

    @property
    def url(self) -> str:
        """Where it is."""
        return self._options.url

    # ------------------------------------------------------------ from there to here

    def fetch(self, wishes: Sequence[Wish]) -> set[Digest]:
        """Brings what the shared cache has into the local one; the keys of the steps that it had."""
        found: set[Digest] = set()
        for start in range(0, len(wishes), _AT_ONCE):
            some = wishes[start : start + _AT_ONCE]
            found |= self._attempt(partial(self._fetch, wishes=some), set())
        return found

    def fetch_weights(self, digests: Collection[Digest]) -> None:
        """Brings tensors into the local cache, as far as the shared one has them."""
        self._attempt(lambda transport: self._fetch_weights(transport, digests), None)

    def _fetch_weights(self, transport: Transport, digests: Collection[Digest]) -> None:
        paths = {blob_path(digest): digest for digest in digests}
        sizes = transport.sizes(list(paths))
        wanted = [_blob(paths[path], size) for path, size in sizes.items()]
        with self._store.scratch() as folder:
            got = transport.fetch(wanted, folder)
            self.traffic.fetched_bytes += sum(each.nbytes for each in got)
            self._keep_blobs(got)

    def _fetch(self, transport: Transport, wishes: Sequence[Wish]) -> set[Digest]:
        entries = self._entries(transport, [wish.key for wish in wishes])
        wishes = [wish for wish in wishes if wish.key in entries]
        lost = self._lost_blobs(entries.values())
        files = self._lost_files(wishes, entries)
        wanted = [*lost.values(), *files.values()]
        with self._store.scratch() as folder:
            got = transport.fetch(list(dict.fromkeys(wanted)), folder)
            self.traffic.fetched_bytes += sum(each.nbytes for each in got)
            self._keep_blobs({w: data for w, data in got.items() if w.algorithm == "blake3"})
            kept = set()
            for wish in wishes:
                entry = entries[wish.key]
                needed = [lost[digest] for digest in entry.outputs.blobs() if digest in lost]
                needed += [files[file] for file in _files(wish, entry) if file in files]
                if all(each in got for each in needed):
                    self._keep(wish, entry, files, got)
                    kept.add(wish.key)
                else:
                    self._tell("has an entry whose files are missing or damaged; it is not used")
        return kept

    def keys(self) -> list[Digest]:
        """The keys of all entries that may count.

        Raises:
            RemoteFailed: They cannot be listed.
        """
        if self._transport is None:
            return []
        signers = self._trusted or ("",)
        if not self._transport.lists:
            from freezeflow.store.remote.lists import read_lists

            found = [read_lists(self._transport, signer, self._trusted)[0] for signer in signers]
            return sorted(set().union(*found))
        folders = [entries_folder(signer) for signer in signers]
        paths = [path for folder in folders for path in self._transport.names(folder)]
        return sorted({key for path in paths if (key := key_in_path(path))})

    def entries(self, keys: Sequence[Digest]) -> dict[Digest, Entry]:
        """Those of the entries that are there and count."""
        return self._attempt(partial(self._entries, keys=keys), {})

    def _entries(self, transport: Transport, keys: Sequence[Digest]) -> dict[Digest, Entry]:
        signers = self._trusted or ("",)
        paths = {entry_path(key, signer): key for signer in signers for key in keys}
        found: dict[Digest, Entry] = {}
        for path, data in transport.read(list(paths)).items():
            try:
                entry = decode_entry(data, paths[path], self._trusted)
            except NotAccepted as error:
                self._refused.add(paths[path])
                self._tell(f"has an entry that {error}; it is not used")
                continue
            if all(f.nbytes <= self._options.max_file_size for f in entry.outputs.files):
                found[entry.key] = entry
        return found

    def _lost_blobs(self, entries: Iterable[Entry]) -> dict[Digest, Wanted]:
        sizes = {digest: size for entry in entries for digest, size in entry.sizes.items()}
        return {
            lost.digest: _blob(lost.digest, sizes[lost.digest])
            for lost in self._store.blobs.lost(sizes)
        }

    def _lost_files(
        self, wishes: Sequence[Wish], entries: Mapping[Digest, Entry]
    ) -> dict[ResultFile, Wanted]:
        """Published files that are not where they should be."""
        files = {file for wish in wishes for file in _files(wish, entries[wish.key])}
        there = self._store.stats.unchanged({f.path: (f.sha256, f.nbytes) for f in files})
        return {file: _file(file.sha256, file.nbytes) for file in files if file.path not in there}

    def _keep_blobs(self, got: Mapping[Wanted, bytes | Path]) -> None:
        for wanted, data in got.items():
            if isinstance(data, bytes):
                self._store.blobs.put(data)
            else:
                self._store.blobs.put_range(Digest(wanted.digits), _whole(data))

    def _keep(
        self,
        wish: Wish,
        entry: Entry,
        files: Mapping[ResultFile, Wanted],
        got: Mapping[Wanted, bytes | Path],
    ) -> None:
        """Makes an entry an action of the local cache; its blobs are there."""
        with publication() as publishing:
            missing = [file for file in _files(wish, entry) if file in files]
            for file in missing:
                data = got[files[file]]
                publishing.write(file.path, [data if isinstance(data, bytes) else _whole(data)])
        self._store.stats.remember_written((file.path, file.sha256) for file in missing)
        self._suggest(wish, entry)
        self._store.actions.put(entry.action_file(*wish.place))
        self.traffic.fetched += 1

    def _suggest(self, wish: Wish, entry: Entry) -> None:
        """Weights may lie in this machine's copy of the source; they count once they were hashed."""
        source = wish.preimage["source"]
        if source is None or wish.source is None:
            return
        root = str(wish.source)
        self._store.tensors.suggest(
            {
                weight.digest: (source_file(weight.file, root), weight.offset, weight.nbytes)
                for weight in entry.weights
                if weight.file in source["files"] and weight.file is not None
            }
        )

    # ------------------------------------------------------------ from here to there

    def push(self, wish: Wish, action: Action) -> bool:
        """Begins to write a result, after all that belongs to it; whether it can be shared."""
        if self._transport is None or self.failure is not None:
            return False
        entry = self._entry(wish, action)
        if entry is None:
            return False
        objects = self._objects_of(wish, entry)
        if objects is None:
            return False
        path = entry_path(entry.key, self._own_key)
        data = encode_entry(entry, self._options.signing_key)
        job = partial(self._push, path, data, objects, entry.key in self._refused)
        self._pushed.append(entry.key)
        self._uploads.append(self._transport.start(job))
        return True

    def settle(self) -> None:
        """Waits until what was begun is written, or has failed."""
        for upload in self._uploads:
            self.traffic.pushed += self._attempt(partial(_result, upload), False)
        self._uploads.clear()
        self._attempt(self._name_pushed, None)
        self.traffic.pushed_bytes = sum(
            self._sizes[path] for path, upload in self._objects.items() if _was_written(upload)
        )

    def _name_pushed(self, transport: Transport) -> None:
        """What was pushed, or was there, is named for those who ask for everything."""
        if self._pushed and not transport.lists:
            from freezeflow.store.remote.lists import add_to_lists

            add_to_lists(transport, self._pushed, self._own_key, self._options.signing_key)
        self._pushed.clear()

    def close(self) -> None:
        """Gives up what is still on its way."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def _push(self, path: str, data: bytes, objects: _Objects, replace: bool) -> bool:
        """Runs beside the run, in a thread of the transport."""
        assert self._transport is not None
        try:
            for upload in [self._put_once(wanted, read) for wanted, read in objects]:
                upload.result()
        except (DoesNotMatch, FileNotFoundError):
            return False  # it changed meanwhile, and is not what the step gave any more
        return self._transport.create(path, data, replace=replace)

    def _put_once(self, wanted: Wanted, read: _Read) -> Future[bool]:
        """Steps share weights: each goes over once, and all that need it wait for it."""
        assert self._transport is not None
        with self._lock:
            if wanted.path not in self._objects:
                self._objects[wanted.path] = self._transport.put(wanted, read)
                self._sizes[wanted.path] = wanted.nbytes
            return self._objects[wanted.path]

    def _entry(self, wish: Wish, action: Action) -> Entry | None:
        """The entry of an action; None where something of it is gone."""
        from freezeflow.graph.storage import tensor_digests

        # A log may tell of this machine.
        outputs = dataclasses.replace(action.outputs, log=None)
        try:
            digests = tensor_digests(self._store.blobs.read(outputs.record))
            sizes = {d: os.stat(self._store.blobs.path(d)).st_size for d in outputs.blobs()}
        except (BlobLost, FileNotFoundError):
            return None
        elsewhere = [digest for digest in digests if digest not in set(outputs.owned)]
        places = self._store.tensors.locate(elsewhere)
        if len(places) < len(set(elsewhere)):
            return None
        return Entry(
            key=action.key,
            preimage=wish.preimage,
            outputs=outputs,
            facts=action.facts,
            sizes=sizes,
            weights=tuple(_weight(wish, digest, place) for digest, place in places.items()),
        )

    def _objects_of(self, wish: Wish, entry: Entry) -> _Objects | None:
        """All that belongs to an entry; None where it publishes what is not shared."""
        objects: list[tuple[Wanted, _Read]] = []
        for digest, nbytes in entry.sizes.items():
            place = Location(str(self._store.blobs.path(digest)), 0, nbytes, 0, 0, 0)
            objects.append((_blob(digest, nbytes), partial(location_pieces, place)))
        places = self._store.tensors.locate([weight.digest for weight in entry.weights])
        for digest, place in places.items():
            objects.append((_blob(digest, place.length), partial(location_pieces, place)))
        outputs = wish.preimage["output_files"]
        for file in entry.outputs.files:
            if file.nbytes > self._options.max_file_size or not may_publish(file.path, outputs):
                return None
        for found in _files(wish, entry):
            place = Location(str(found.path), 0, found.nbytes, 0, 0, 0)
            wanted = _file(found.sha256, found.nbytes)
            objects.append((wanted, partial(location_pieces, place)))
        return objects

    # ------------------------------------------------------------ what goes wrong

    def _attempt(self, work: Callable[[Transport], T], otherwise: T) -> T:
        """Once the shared cache has failed, nothing more is asked of it."""
        if self._transport is None or self.failure is not None:
            return otherwise
        try:
            return work(self._transport)
        except RemoteFailed as failure:
            self._failed(failure)
            return otherwise

    def _failed(self, failure: FreezeflowError) -> None:
        if not self._forgiving:
            raise failure
        self.failure = failure
        self._tell(f"{failure.message}; going on without it")

    def _tell(self, message: str) -> None:
        if message not in self._told:
            self._told.add(message)
            self._warn(f"the shared cache {self._options.url}: {message}")


def _was_written(upload: Future[bool]) -> bool:
    return upload.done() and not upload.cancelled() and not upload.exception() and upload.result()


def _result(upload: Future[bool], transport: Transport) -> bool:
    return upload.result()


def _files(wish: Wish, entry: Entry) -> tuple[ResultFile, ...]:
    """The files that an entry published, where they are on this machine."""
    return () if wish.base is None else placed(entry.outputs.files, wish.base)


def _blob(digest: Digest, nbytes: int) -> Wanted:
    return Wanted(path=blob_path(digest), nbytes=nbytes, algorithm="blake3", digits=digest.hex)


def _file(sha256: str, nbytes: int) -> Wanted:
    return Wanted(path=file_path(sha256), nbytes=nbytes, algorithm="sha256", digits=sha256)


def _whole(path: Path) -> Location:
    status = path.stat()
    return Location(str(path), 0, status.st_size, status.st_mtime_ns, status.st_size, status.st_ino)


def _weight(wish: Wish, digest: Digest, place: Location) -> Weight:
    """A weight, with its place in the model's source where the key names that file."""
    source = wish.preimage["source"] or {"files": ()}
    names = [name for name in source["files"] if f"/{place.path}".endswith(f"/{name}")]
    return Weight(digest, place.length, max(names, key=len, default=None), place.offset)
