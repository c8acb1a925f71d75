"""A release as one tar file, or as an OCI image layout with ModelPack's media types.

Both are the same bytes for the same release. Sources of the formats: POSIX.1-2001 (pax), the OCI image
specification 1.1, and CNCF ModelPack's model-spec v1.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from freezeflow.exports.folders import published_folder
from freezeflow.release.contents import json_bytes
from freezeflow.release.statements import timestamp
from freezeflow.sources.graph_file import location_of
from freezeflow.store.files import Written, write_atomically
from freezeflow.store.hashing import sha256_of
from freezeflow.values import Json, Location

_BLOCK = tarfile.BLOCKSIZE

ARTIFACT_TYPE = "application/vnd.cncf.model.manifest.v1+json"
CONFIG_TYPE = "application/vnd.cncf.model.config.v1+json"
_WEIGHT = "application/vnd.cncf.model.weight.v1.raw"
_WEIGHT_CONFIG = "application/vnd.cncf.model.weight.config.v1.raw"
_DOC = "application/vnd.cncf.model.doc.v1.raw"
_CODE = "application/vnd.cncf.model.code.v1.raw"
_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
FILE_PATH = "org.cncf.model.filepath"


class PackedFile(NamedTuple):
    """A file of a release: its path there, SHA-256 and size."""

    path: str
    sha256: str
    nbytes: int


class Label(NamedTuple):
    """What an image says about itself: name, version, date, git commit; empty or None for none."""

    name: str
    version: str
    date: int | None
    commit: str


# ---------------------------------------------------------------- tar


def write_tar(folder: Path, files: Sequence[PackedFile], to: Path, date: int | None) -> Written:
    """Writes a release as a tar file, its files in order under the release's name.

    Raises:
        FreezeflowError: It cannot be written, or a file has changed.
    """
    return write_atomically(to, list(_tar_pieces(folder, files, folder.name, date)))


def _tar_pieces(
    folder: Path, files: Sequence[PackedFile], root: str, date: int | None
) -> Iterator[bytes | Location]:
    for file in sorted(files):
        yield tar_header(f"{root}/{file.path}", file.nbytes, date)
        yield location_of(folder / file.path, 0, file.nbytes)
        yield tar_padding(file.nbytes)
    yield b"\0" * (2 * _BLOCK)


def tar_header(path: str, nbytes: int, date: int | None) -> bytes:
    """The header of a file: nobody's, readable by all, of one date."""
    info = tarfile.TarInfo(path)
    info.size = nbytes
    info.mode = 0o644
    info.mtime = date or 0
    return info.tobuf(tarfile.PAX_FORMAT)


def tar_padding(nbytes: int) -> bytes:
    """What fills a file up to whole blocks."""
    return b"\0" * (-nbytes % _BLOCK)


# ---------------------------------------------------------------- OCI


def write_oci(folder: Path, files: Sequence[PackedFile], to: Path, label: Label) -> str:
    """Writes a release as an OCI image layout, each file a layer of its own.

    Returns:
        The digest of the image: ``sha256:...``.

    Raises:
        StageFailed: Something else is there.
        FreezeflowError: It cannot be written, or a file has changed.
    """
    documents = oci_documents(files, label)
    with published_folder(to, belongs="oci-layout") as made:
        for file in {file.sha256: file for file in files}.values():
            place = made / "blobs" / "sha256" / file.sha256
            write_atomically(place, [location_of(folder / file.path, 0, file.nbytes)])
        for name, data in documents.items():
            write_atomically(made / name, [data])
    return image_digest(documents)


def image_digest(documents: Mapping[str, bytes]) -> str:
    """The digest of the image that an index names."""
    index: Json = json.loads(documents["index.json"])
    digest: str = index["manifests"][0]["digest"]
    return digest


def oci_documents(files: Sequence[PackedFile], label: Label) -> dict[str, bytes]:
    """Everything of an image layout but its layers: config, manifest, index, and the layout's mark."""
    ordered = sorted(files)
    config = json_bytes(_config(ordered, label))
    manifest = json_bytes(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST_TYPE,
            "artifactType": ARTIFACT_TYPE,
            "config": _descriptor(CONFIG_TYPE, config),
            "layers": [_layer(file) for file in ordered],
            "annotations": _annotations(label),
        }
    )
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {
                **_descriptor(_MANIFEST_TYPE, manifest),
                "annotations": {"org.opencontainers.image.ref.name": label.version or "latest"},
            }
        ],
    }
    return {
        f"blobs/sha256/{sha256_of(config)}": config,
        f"blobs/sha256/{sha256_of(manifest)}": manifest,
        "index.json": json_bytes(index),
        "oci-layout": json_bytes({"imageLayoutVersion": "1.0.0"}),
    }


def _config(files: Sequence[PackedFile], label: Label) -> Json:
    descriptor = {
        "name": label.name,
        "version": label.version,
        "revision": label.commit,
        "createdAt": "" if label.date is None else timestamp(label.date),
    }
    return {
        "descriptor": {key: value for key, value in descriptor.items() if value},
        "config": {"format": "tensorflow"},
        "modelfs": {"type": "layers", "diffIds": [f"sha256:{file.sha256}" for file in files]},
    }


def _layer(file: PackedFile) -> Json:
    return {
        "mediaType": _media_type(file.path),
        "digest": f"sha256:{file.sha256}",
        "size": file.nbytes,
        "annotations": {FILE_PATH: file.path},
    }


def _media_type(path: str) -> str:
    """What kind of layer a file is; manifests configure the weights, recipes are their code."""
    if path.startswith("artifacts/"):
        return _WEIGHT_CONFIG if path.endswith(".json") else _WEIGHT
    return _CODE if path.startswith("recipe/") else _DOC


def _descriptor(media_type: str, data: bytes) -> dict[str, Json]:
    return {"mediaType": media_type, "digest": f"sha256:{sha256_of(data)}", "size": len(data)}


def _annotations(label: Label) -> dict[str, str]:
    found = {
        "org.opencontainers.image.title": label.name,
        "org.opencontainers.image.version": label.version,
        "org.opencontainers.image.revision": label.commit,
        "org.opencontainers.image.created": "" if label.date is None else timestamp(label.date),
    }
    return {key: value for key, value in found.items() if value}
