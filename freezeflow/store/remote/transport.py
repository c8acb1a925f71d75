"""Moves bytes to and from an object store, many at once, each within its time.

Everything happens in a thread with an event loop of its own; callers of any kind wait for it. What an
exchange may take grows with its bytes, so that a server that stalls or trickles is given up. Where
something goes wrong that is not the fault of one object, `RemoteFailed` is raised.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import os
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import blake3

from freezeflow.errors import FreezeflowError, MissingExtra
from freezeflow.store.remote.options import RemoteOptions
from freezeflow.values import Location

if TYPE_CHECKING:
    from obstore.store import ObjectStore

T = TypeVar("T")

# Exchanges at once.
_SMALL_AT_ONCE = 32
_LARGE_AT_ONCE = 4

# Bytes a second that an exchange must reach over its whole length.
_SLOWEST = 250_000

# An object that is larger goes through a file, and is uploaded in parts where the store has them.
_IN_MEMORY_BYTES = 8_000_000

# No entry is larger.
ENTRY_BYTES = 64_000_000

_CHUNK_BYTES = 1_000_000

Algorithm = Literal["blake3", "sha256"]


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
        self._store, self._creator = _open(options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._small = asyncio.Semaphore(_SMALL_AT_ONCE)
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)

    def close(self) -> None:
        """Gives up whatever is still going on."""
        self._loop.call_soon_threadsafe(self._cancel_all)
        self._thread.join()
        self._loop.close()

    # ------------------------------------------------------------ reading

    def read(self, paths: Sequence[str]) -> dict[str, bytes]:
        """Small objects, those that are there, by path; unchecked."""
        got = self._wait(_gather(self._read(path) for path in paths))
        return {path: data for path, data in zip(paths, got, strict=True) if data is not None}

    def fetch(self, wanted: Sequence[Wanted], folder: Path) -> dict[Wanted, bytes | Path]:
        """Objects with the contents that they should have; the others are left out.

        Args:
            wanted: Which.
            folder: Takes those that are large, as files.
        """
        targets = [folder / f"{number}.part" for number in range(len(wanted))]
        got = self._wait(
            _gather(self._fetch(w, target) for w, target in zip(wanted, targets, strict=True))
        )
        return {w: data for w, data in zip(wanted, got, strict=True) if data is not None}

    def sizes(self, paths: Sequence[str]) -> dict[str, int]:
        """How long objects are, those that are there, by path."""
        got = self._wait(_gather(self._guarded(self._size(path), 0) for path in paths))
        return {path: size for path, size in zip(paths, got, strict=True) if size is not None}

    def names(self, folder: str) -> list[str]:
        """The paths of all objects below a folder."""
        return self._wait(self._guarded(self._names(folder), None))

    # ------------------------------------------------------------ writing

    def start(self, job: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
        """Begins some writing; it goes on while the caller does other things."""
        return asyncio.run_coroutine_threadsafe(job(), self._loop)

    async def put(self, wanted: Wanted, pieces: Callable[[], Iterable[bytes]]) -> bool:
        """Writes an object under its digest, if it is not there; whether it had to.

        Raises:
            DoesNotMatch: The pieces do not have the digest; nothing was written.
        """
        async with self._slot(wanted.nbytes):
            found = await self._guarded(self._size(wanted.path), 0)
            if found == wanted.nbytes:
                return False
            await self._guarded(self._put(wanted, pieces), wanted.nbytes)
            return True

    async def create(self, path: str, data: bytes, *, replace: bool = False) -> bool:
        """Writes an object if there is none; whether it was written."""
        async with self._small:
            return await self._guarded(self._create(path, data, replace), len(data))

    # ------------------------------------------------------------ single exchanges

    async def _read(self, path: str) -> bytes | None:
        async with self._small:
            return await self._guarded(self._body(path, ENTRY_BYTES), 0)

    async def _body(self, path: str, limit: int) -> bytes | None:
        import obstore

        try:
            result = await obstore.get_async(self._store, path)
            if result.meta["size"] > limit:
                return None
            body = bytearray()
            async for chunk in result.stream(min_chunk_size=_CHUNK_BYTES):
                body += chunk
                if len(body) > limit:
                    return None
        except FileNotFoundError:
            return None
        return bytes(body)

    async def _fetch(self, wanted: Wanted, target: Path) -> bytes | Path | None:
        async with self._slot(wanted.nbytes):
            if wanted.nbytes > _IN_MEMORY_BYTES:
                whole = await self._guarded(self._to_file(wanted, target), wanted.nbytes)
                return target if whole else None
            data = await self._guarded(self._body(wanted.path, wanted.nbytes), wanted.nbytes)
            return (
                data
                if data is not None and _digits(wanted.algorithm, [data]) == wanted.digits
                else None
            )

    async def _to_file(self, wanted: Wanted, target: Path) -> bool:
        """Writes an object into a file, as far as it is what it should be."""
        import obstore

        hasher, count = _hasher(wanted.algorithm), 0
        try:
            result = await obstore.get_async(self._store, wanted.path)
            with open(target, "wb") as file:
                async for chunk in result.stream(min_chunk_size=_CHUNK_BYTES):
                    data = bytes(chunk)
                    count += len(data)
                    if count > wanted.nbytes:
                        return False
                    hasher.update(data)
                    file.write(data)
        except FileNotFoundError:
            return False
        return bool(hasher.hexdigest() == wanted.digits)

    async def _names(self, folder: str) -> list[str]:
        import obstore

        found = []
        async for batch in obstore.list(self._store, folder):
            found += [meta["path"] for meta in batch]
        return sorted(found)

    async def _size(self, path: str) -> int | None:
        import obstore

        try:
            size: int = (await obstore.head_async(self._store, path))["size"]
        except FileNotFoundError:
            return None
        return size

    async def _put(self, wanted: Wanted, pieces: Callable[[], Iterable[bytes]]) -> None:
        import obstore

        checked = _checked(wanted, pieces)
        if wanted.nbytes <= _IN_MEMORY_BYTES or self._creator is not None:
            data = b"".join(checked)
            await obstore.put_async(self._store, wanted.path, data, use_multipart=False)
        else:
            await obstore.put_async(self._store, wanted.path, checked, max_concurrency=3)

    async def _create(self, path: str, data: bytes, replace: bool) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        store, mode = self._store, "overwrite" if replace else "create"
        if self._creator is not None and not replace:  # HTTP: a header says it
            if await self._size(path) is not None:
                return False
            store, mode = self._creator, "overwrite"
        try:
            await obstore.put_async(store, path, data, mode=mode, use_multipart=False)  # type: ignore[arg-type]
        except (AlreadyExistsError, PreconditionError):
            return False
        return True

    # ------------------------------------------------------------ waiting

    def _slot(self, nbytes: int) -> asyncio.Semaphore:
        return self._large if nbytes > _IN_MEMORY_BYTES else self._small

    async def _guarded(self, exchange: Coroutine[Any, Any, T], nbytes: int | None) -> T:
        """An exchange within its time; what goes wrong becomes a `RemoteFailed`."""
        from obstore.exceptions import BaseError

        timeout = self._options.timeout
        seconds = timeout * 60 if nbytes is None else timeout + nbytes / _SLOWEST
        try:
            return await asyncio.wait_for(exchange, seconds)
        except (asyncio.TimeoutError, TimeoutError):
            raise self._failed(f"no answer within {seconds:.3g} s") from None
        except (BaseError, NotImplementedError, OSError) as error:
            raise self._failed(_first_line(error)) from error

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _failed(self, message: str) -> RemoteFailed:
        return RemoteFailed(message, where=self._options.url)

    def _cancel_all(self) -> None:
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.call_soon(self._loop.stop)


async def _gather(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All results; when one fails, the others are given up."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


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


def _digits(algorithm: Algorithm, pieces: Iterable[bytes]) -> str:
    hasher = _hasher(algorithm)
    for piece in pieces:
        hasher.update(piece)
    return str(hasher.hexdigest())


def _hasher(algorithm: Algorithm) -> Any:
    return blake3.blake3() if algorithm == "blake3" else hashlib.sha256()


def _open(options: RemoteOptions) -> tuple[ObjectStore, ObjectStore | None]:
    """The store, and for HTTP a second one that writes only what is not there."""
    try:
        from obstore.exceptions import BaseError
        from obstore.store import HTTPStore, LocalStore, from_url
    except ModuleNotFoundError:
        hint = "pip install 'freezeflow[remote]'"
        raise MissingExtra("it needs the package obstore", hint=hint) from None

    url = options.url
    try:
        if "://" not in url:
            return LocalStore(url, mkdir=options.push), None
        if url.startswith("file://"):
            return from_url(url, mkdir=options.push), None
        more: Any = {"client_options": _client(options), "retry_config": _retries(options)}
        if url.startswith(("http://", "https://")):
            create = {**more, "client_options": _client(options, {"If-None-Match": "*"})}
            return HTTPStore(url, **more), HTTPStore(url, **create)
        return from_url(url, **more), None
    except (BaseError, OSError, ValueError) as error:
        raise RemoteFailed(_first_line(error), where=url) from error


def _client(options: RemoteOptions, headers: dict[str, str] | None = None) -> dict[str, object]:
    headers = dict(headers or {})
    if options.token and options.url.startswith("http"):
        headers["Authorization"] = f"Bearer {options.token}"
    endpoints = [options.url, *(os.environ.get(name, "") for name in _ENDPOINTS)]
    client: dict[str, object] = {
        "allow_http": any(endpoint.startswith("http://") for endpoint in endpoints),
        "connect_timeout": timedelta(seconds=options.timeout),
        # Exchanges have limits of their own, which grow with their bytes.
        "timeout": timedelta(days=1),
    }
    if headers:
        client["default_headers"] = headers
    return client


# Where variables of the services name servers of one's own.
_ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "AZURE_STORAGE_ENDPOINT")


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
