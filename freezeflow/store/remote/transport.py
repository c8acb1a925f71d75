"""Moves bytes to and from an object store, many at once, each within its time.

What an exchange may take grows with its bytes, so that a server that stalls or trickles is given up.
Where something goes wrong that is not the fault of one object, `RemoteFailed` is raised.

Exchanges run in threads and not in an event loop: the store's own threads must touch nothing of
Python's when the interpreter ends.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from datetime import timedelta
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import blake3

from freezeflow.errors import FreezeflowError, MissingExtra
from freezeflow.store.remote.options import RemoteOptions
from freezeflow.store.remote.pool import DaemonPool
from freezeflow.values import Location

if TYPE_CHECKING:
    from obstore.store import ObjectStore

T = TypeVar("T")

# Exchanges at once.
_SMALL_AT_ONCE = 16
_LARGE_AT_ONCE = 4

# Results that are written at once, each with all that belongs to it.
_JOBS_AT_ONCE = 8

# Bytes a second that an exchange must reach over its whole length.
_SLOWEST = 250_000

# An object that is larger goes through a file, and is uploaded in parts where the store has them.
_IN_MEMORY_BYTES = 8_000_000

# No entry is larger.
ENTRY_BYTES = 64_000_000

_CHUNK_BYTES = 1_000_000

# What a list of all entries may take, as if it were so long.
_LISTING_BYTES = 100_000_000

Algorithm = Literal["blake3", "sha256"]
Mode = Literal["create", "overwrite"]


class RemoteFailed(FreezeflowError):
    """The shared cache does not answer, or not as it should."""


class DoesNotMatch(Exception):
    """Some bytes are not those that their digest names."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """An object with known contents.

    Args:
        path: Where it is.
        nbytes: How long it is.
        algorithm: Whose digest is known.
        digits: The digest.
    """

    path: str
    nbytes: int
    algorithm: Algorithm
    digits: str


class Transport:
    """An open connection to a shared cache.

    Raises:
        MissingExtra: obstore is not installed.
        RemoteFailed: The address is of no use.
    """

    def __init__(self, options: RemoteOptions) -> None:
        self._options = options
        self._connect = _connector(options)
        self._stores: dict[tuple[int, bool], ObjectStore] = {}
        self._store_for(0)
        self._small = DaemonPool(_SMALL_AT_ONCE)
        self._large = DaemonPool(_LARGE_AT_ONCE)
        self._jobs = DaemonPool(_JOBS_AT_ONCE)

    def close(self) -> None:
        """Gives up whatever has not begun."""
        for pool in (self._jobs, self._small, self._large):
            pool.close()

    # ------------------------------------------------------------ reading

    def read(self, paths: Sequence[str]) -> dict[str, bytes]:
        """Small objects, those that are there, by path; unchecked."""
        got = self._all([self._small.submit(self._body, path, ENTRY_BYTES, 0) for path in paths])
        return {path: data for path, data in zip(paths, got, strict=True) if data is not None}

    def sizes(self, paths: Sequence[str]) -> dict[str, int]:
        """How long objects are, those that are there, by path."""
        got = self._all([self._small.submit(self._size, path) for path in paths])
        return {path: size for path, size in zip(paths, got, strict=True) if size is not None}

    def fetch(self, wanted: Sequence[Wanted], folder: Path) -> dict[Wanted, bytes | Path]:
        """Objects with the contents that they should have; the others are left out.

        Args:
            wanted: Which.
            folder: Takes those that are large, as files.
        """
        got = self._all(
            [
                self._pool(each.nbytes).submit(self._fetch, each, folder / f"{number}.part")
                for number, each in enumerate(wanted)
            ],
            sum(each.nbytes for each in wanted),
        )
        return {each: data for each, data in zip(wanted, got, strict=True) if data is not None}

    @property
    def lists(self) -> bool:
        """Whether the store can list what it holds; a server for HTTP need not."""
        return not self._is_http

    def names(self, folder: str) -> list[str]:
        """The paths of all objects below a folder."""
        return self._exchange(partial(_names, folder=folder), _LISTING_BYTES)

    # ------------------------------------------------------------ writing

    def start(self, job: Callable[[], T]) -> Future[T]:
        """Begins some writing, which may use `put` and `create`, beside what the caller does."""
        return self._jobs.submit(job)

    def put(self, wanted: Wanted, pieces: Callable[[], Iterable[bytes]]) -> Future[bool]:
        """Begins to write an object under its digest, if it is not there; gives whether it had to.

        The future raises `DoesNotMatch` when the pieces do not have the digest; nothing was written.
        """
        return self._pool(wanted.nbytes).submit(self._put, wanted, pieces)

    def create(self, path: str, data: bytes, *, replace: bool = False) -> bool:
        """Writes an object if there is none; whether it was written."""
        if replace:
            self._exchange(partial(_write, path=path, data=data, mode="overwrite"), len(data))
            return True
        if self._is_http and self._size(path) is not None:
            return False
        mode: Mode = "overwrite" if self._is_http else "create"
        write = partial(_write, path=path, data=data, mode=mode)
        return self._exchange(write, len(data), create=True)

    # ------------------------------------------------------------ single exchanges

    def _body(self, path: str, limit: int, nbytes: int) -> bytes | None:
        body = bytearray()

        def take(chunk: bytes) -> bool:
            body.extend(chunk)
            return len(body) <= limit

        whole = self._exchange(partial(_receive, path=path, take=take), nbytes)
        return bytes(body) if whole else None

    def _fetch(self, wanted: Wanted, target: Path) -> bytes | Path | None:
        if wanted.nbytes > _IN_MEMORY_BYTES:
            return target if self._to_file(wanted, target) else None
        data = self._body(wanted.path, wanted.nbytes, wanted.nbytes)
        right = data is not None and _digits(wanted.algorithm, data) == wanted.digits
        return data if right else None

    def _to_file(self, wanted: Wanted, target: Path) -> bool:
        """Writes an object into a file, as far as it is what it should be."""
        hasher, count = _hasher(wanted.algorithm), 0
        with open(target, "wb") as file:

            def take(chunk: bytes) -> bool:
                nonlocal count
                count += len(chunk)
                hasher.update(chunk)
                file.write(chunk)
                return count <= wanted.nbytes

            whole = self._exchange(partial(_receive, path=wanted.path, take=take), wanted.nbytes)
        return whole and bool(hasher.hexdigest() == wanted.digits)

    def _size(self, path: str) -> int | None:
        return self._exchange(partial(_head, path=path), 0)

    def _put(self, wanted: Wanted, pieces: Callable[[], Iterable[bytes]]) -> bool:
        if self._size(wanted.path) == wanted.nbytes:
            return False
        checked = _checked(wanted, pieces)
        at_once = wanted.nbytes <= _IN_MEMORY_BYTES or self._is_http
        data = b"".join(checked) if at_once else checked
        self._exchange(
            partial(_write, path=wanted.path, data=data, mode="overwrite"), wanted.nbytes
        )
        return True

    # ------------------------------------------------------------ waiting

    @property
    def _is_http(self) -> bool:
        return self._options.url.startswith(("http://", "https://"))

    def _pool(self, nbytes: int) -> DaemonPool:
        return self._large if nbytes > _IN_MEMORY_BYTES else self._small

    def _exchange(
        self, exchange: Callable[[ObjectStore], T], nbytes: int, *, create: bool = False
    ) -> T:
        """Does something with the store; what goes wrong becomes a `RemoteFailed`."""
        from obstore.exceptions import BaseError

        try:
            return exchange(self._store_for(nbytes, create=create))
        except (BaseError, NotImplementedError, OSError) as error:
            raise RemoteFailed(_first_line(error), where=self._options.url) from error

    def _store_for(self, nbytes: int, *, create: bool = False) -> ObjectStore:
        """The store, for requests of about so many bytes: these decide how long one may take."""
        doublings = (nbytes // _IN_MEMORY_BYTES).bit_length()
        key = (doublings, create)
        if key not in self._stores:
            most = _IN_MEMORY_BYTES * 2**doublings if nbytes else 0
            self._stores[key] = self._connect(self._seconds(most), create)
        return self._stores[key]

    def _seconds(self, nbytes: int) -> float:
        return self._options.timeout + nbytes / _SLOWEST

    def _all(self, futures: Sequence[Future[T]], nbytes: int = 0) -> list[T]:
        """All results; when one fails, or all take too long, the others are given up.

        A request has its own limit; this one is for what has none, such as a folder that hangs.
        """
        rounds = 1 + len(futures) / _SMALL_AT_ONCE
        deadline = time.monotonic() + 4 * rounds * self._seconds(0) + 4 * nbytes / _SLOWEST
        try:
            return [future.result(max(0.0, deadline - time.monotonic())) for future in futures]
        except FutureTimeout:
            raise RemoteFailed("does not answer", where=self._options.url) from None
        finally:
            for future in futures:
                future.cancel()


def _receive(store: ObjectStore, *, path: str, take: Callable[[bytes], bool]) -> bool:
    """Gives the pieces of an object to `take` until that has enough; whether it took all."""
    import obstore

    try:
        for chunk in obstore.get(store, path).stream(min_chunk_size=_CHUNK_BYTES):
            if not take(bytes(chunk)):
                return False
    except FileNotFoundError:
        return False
    return True


def _head(store: ObjectStore, *, path: str) -> int | None:
    import obstore

    try:
        return obstore.head(store, path)["size"]
    except FileNotFoundError:
        return None


def _write(
    store: ObjectStore,
    *,
    path: str,
    data: bytes | Iterator[bytes],
    mode: Mode,
) -> bool:
    """Writes an object; False where there is one, and it may only be created."""
    import obstore
    from obstore.exceptions import AlreadyExistsError, PreconditionError

    parts = not isinstance(data, bytes)
    try:
        obstore.put(store, path, data, mode=mode, use_multipart=parts, max_concurrency=3)
    except (AlreadyExistsError, PreconditionError):
        return False
    return True


def _names(store: ObjectStore, *, folder: str) -> list[str]:
    import obstore

    return sorted(meta["path"] for batch in obstore.list(store, folder) for meta in batch)


def location_pieces(location: Location) -> Iterator[bytes]:
    """The bytes of a range of a file, piece by piece."""
    with open(location.path, "rb", buffering=0) as file:
        file.seek(location.offset)
        left = location.length
        while left and (data := file.read(min(left, _CHUNK_BYTES))):
            left -= len(data)
            yield data


def _checked(wanted: Wanted, pieces: Callable[[], Iterable[bytes]]) -> Iterator[bytes]:
    hasher = _hasher(wanted.algorithm)
    for piece in pieces():
        hasher.update(piece)
        yield piece
    if hasher.hexdigest() != wanted.digits:
        # Raised while the store reads: nothing appears there.
        raise DoesNotMatch(wanted.path)


def _digits(algorithm: Algorithm, data: bytes) -> str:
    hasher = _hasher(algorithm)
    hasher.update(data)
    return str(hasher.hexdigest())


def _hasher(algorithm: Algorithm) -> Any:
    return blake3.blake3() if algorithm == "blake3" else hashlib.sha256()


def _connector(options: RemoteOptions) -> Callable[[float, bool], ObjectStore]:
    """What opens the store with a limit for each request, in seconds, and, over HTTP, for writing only
    what is not there."""
    if find_spec("obstore") is None:
        hint = "pip install 'freezeflow[remote]'"
        raise MissingExtra("it needs the package obstore", hint=hint)
    return partial(_open, options)


def _open(options: RemoteOptions, seconds: float, create: bool) -> ObjectStore:
    from obstore.exceptions import BaseError
    from obstore.store import HTTPStore, LocalStore, from_url

    url = options.url
    try:
        if "://" not in url:
            if not options.push and not os.path.isdir(url):
                raise RemoteFailed("there is no such folder", where=url)
            return LocalStore(url, mkdir=options.push)
        if url.startswith("file://"):
            return from_url(url, mkdir=options.push)
        more: Any = {
            "client_options": _client(options, seconds, create),
            "retry_config": _retries(options),
        }
        return (HTTPStore if url.startswith("http") else from_url)(url, **more)
    except (BaseError, OSError, ValueError) as error:
        raise RemoteFailed(_first_line(error), where=url) from error


def _client(options: RemoteOptions, seconds: float, create: bool) -> dict[str, object]:
    headers = {}
    if options.url.startswith("http"):
        if create:
            headers["If-None-Match"] = "*"
        if options.token:
            headers["Authorization"] = f"Bearer {options.token}"
    endpoints = [options.url, *(os.environ.get(name, "") for name in _ENDPOINTS)]
    client: dict[str, object] = {
        "allow_http": any(endpoint.startswith("http://") for endpoint in endpoints),
        "connect_timeout": timedelta(seconds=options.timeout),
        "timeout": timedelta(seconds=seconds),
    }
    if headers:
        client["default_headers"] = headers
    return client


# Where variables of the services name servers of one's own.
_ENDPOINTS = (
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT",
    "AZURE_STORAGE_ENDPOINT",
    "GOOGLE_BASE_URL",
)


def _retries(options: RemoteOptions) -> dict[str, object]:
    return {
        "max_retries": 2,
        "backoff": {
            "init_backoff": timedelta(milliseconds=100),
            "max_backoff": timedelta(seconds=1),
        },
        "retry_timeout": timedelta(seconds=options.timeout),
    }


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else type(error).__name__
    return text if len(text) <= 200 else f"{text[:197]}..."
