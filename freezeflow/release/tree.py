"""The files of a release wherever they are: in a folder, in a tar file, in an OCI image layout."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from freezeflow.errors import UsageError
from freezeflow.release.packing import (
    FILE_PATH,
    Label,
    PackedFile,
    oci_documents,
    tar_header,
    tar_padding,
)
from freezeflow.store.hashing import reading_failed
from freezeflow.values import Json

_CHUNK = 1024 * 1024

# Documents of a release are read into memory; no honest one is larger.
_DOCUMENT_BYTES = 256 * 1024 * 1024


class Tree(NamedTuple):
    """The files of a release.

    Args:
        kind: ``folder``, ``tar`` or ``oci``.
        open: Path in the release to what opens the file.
        faults: What is wrong with what holds the files.
    """

    kind: str
    open: Mapping[str, Callable[[], BinaryIO]]
    faults: tuple[str, ...] = ()

    def read(self, path: str) -> bytes:
        """A document."""
        with self.open[path]() as file:
            return file.read(_DOCUMENT_BYTES)

    def hashed(self, path: str) -> PackedFile:
        """A file's SHA-256 and size, in constant memory."""
        hasher, size = hashlib.sha256(), 0
        with self.open[path]() as file:
            while chunk := file.read(_CHUNK):
                hasher.update(chunk)
                size += len(chunk)
        return PackedFile(path, hasher.hexdigest(), size)


def open_tree(path: Path) -> Tree:
    """The files of a release.

    Raises:
        UsageError: There is none.
        FreezeflowError: It cannot be read.
    """
    try:
        if path.is_dir():
            is_oci = (path / "oci-layout").is_file()
            return _oci(path) if is_oci else _folder(path)
        if path.is_file() and (path.suffix == ".tar" or tarfile.is_tarfile(path)):
            return _tar(path)
    except OSError as error:
        raise reading_failed(error, path) from error
    what = "this is no release" if path.exists() else "there is no such release"
    hint = "A release is a folder, a .tar file, or an OCI image layout: freezeflow release."
    raise UsageError(what, where=str(path), hint=hint)


def _folder(root: Path) -> Tree:
    found: dict[str, Callable[[], BinaryIO]] = {}
    faults = []
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted([*files, *(f for f in folders if (Path(folder) / f).is_symlink())]):
            path = Path(folder) / name
            relative = path.relative_to(root).as_posix()
            if path.is_symlink() or not path.is_file():
                faults.append(f"{relative} is no plain file")
            else:
                found[relative] = _opener(path)
    return Tree("folder", found, tuple(faults))


def _opener(path: Path) -> Callable[[], BinaryIO]:
    return lambda: open(path, "rb")


# ---------------------------------------------------------------- tar


def _tar(path: Path) -> Tree:
    """The files of a tar, each byte outside of them checked to be what `write_tar` writes there."""
    found: dict[str, Callable[[], BinaryIO]] = {}
    faults: list[str] = []
    try:
        with tarfile.open(path, "r:") as tar:
            members = tar.getmembers()
    except tarfile.TarError as error:
        return Tree("tar", {}, (f"the tar cannot be read: {error}",))
    with path.open("rb") as file:
        date = int(members[0].mtime) if members else 0
        end = 0
        for member in members:
            header = _header(member, date)
            file.seek(end)
            if not member.isreg() or file.read(len(header)) != header:
                faults.append(f"the tar's header of {member.name!r} is not as it was written")
            padding = tar_padding(member.size)
            file.seek(member.offset_data + member.size)
            if file.read(len(padding)) != padding:
                faults.append(
                    f"the tar's bytes behind {member.name!r} are not as they were written"
                )
            end = member.offset_data + member.size + len(padding)
            relative = member.name.partition("/")[2]
            if relative in found:
                faults.append(f"{relative} is there twice")
            found[relative] = _part(path, member.offset_data, member.size)
        if file.read() != b"\0" * 1024:
            faults.append("the tar's end is not as it was written")
    names = [member.name for member in members]
    if names != sorted(names) or len({name.partition("/")[0] for name in names}) > 1:
        faults.append("the tar's files are not in order")
    return Tree("tar", found, tuple(faults))


def _header(member: tarfile.TarInfo, date: int) -> bytes:
    try:
        return tar_header(member.name, member.size, date)
    except (ValueError, UnicodeError):
        return b""


def _part(path: Path, offset: int, size: int) -> Callable[[], BinaryIO]:
    return lambda: io.BufferedReader(_Range(path, offset, size))


class _Range(io.RawIOBase):
    """A range of a file, read like a file."""

    def __init__(self, path: Path, offset: int, size: int) -> None:
        self._file = path.open("rb", buffering=0)
        self._file.seek(offset)
        self._left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(memoryview(buffer)[: self._left]) or 0
        self._left -= count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


# ---------------------------------------------------------------- OCI


def _oci(root: Path) -> Tree:
    """The layers of an image layout, its own documents checked to be what `write_oci` writes."""
    tree = _folder(root)
    faults = list(tree.faults)
    try:
        index = json.loads(tree.read("index.json"))
        (entry,) = index["manifests"]
        manifest = json.loads(tree.read(_blob(entry["digest"])))
        layers = [_layer(layer) for layer in manifest["layers"]]
        expected = oci_documents(layers, _label(manifest))
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        return Tree("oci", {}, (*faults, f"the image layout is damaged: {error}"))
    for name, data in expected.items():
        if name not in tree.open or tree.read(name) != data:
            faults.append(f"{name} is not as it was written")
    blobs = {f"blobs/sha256/{layer.sha256}" for layer in layers}
    for name in tree.open.keys() - expected.keys() - blobs:
        faults.append(f"{name} does not belong to the image")
    missing = [layer.path for layer in layers if _blob(f"sha256:{layer.sha256}") not in tree.open]
    faults += [f"the layer of {path} is missing" for path in missing]
    opened = {
        layer.path: tree.open[_blob(f"sha256:{layer.sha256}")]
        for layer in layers
        if layer.path not in missing
    }
    return Tree("oci", opened, tuple(sorted(faults)))


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/', 1)}"


def _layer(layer: Json) -> PackedFile:
    return PackedFile(
        layer["annotations"][FILE_PATH], layer["digest"].removeprefix("sha256:"), int(layer["size"])
    )


def _label(manifest: Json) -> Label:
    import calendar
    import time

    notes = manifest.get("annotations", {})
    prefix = "org.opencontainers.image."
    created = notes.get(f"{prefix}created")
    date = None
    if created is not None:
        date = calendar.timegm(time.strptime(created, "%Y-%m-%dT%H:%M:%SZ"))
    return Label(
        notes.get(f"{prefix}title", ""),
        notes.get(f"{prefix}version", ""),
        date,
        notes.get(f"{prefix}revision", ""),
    )


def documents(tree: Tree, prefix: str) -> Iterator[tuple[str, bytes]]:
    """The documents whose path begins so."""
    for path in sorted(tree.open):
        if path.startswith(prefix):
            yield path, tree.read(path)
