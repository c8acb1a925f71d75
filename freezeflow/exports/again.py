"""A file that an export has published, as its runtimes are asked about it once more."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from freezeflow.errors import StageFailed
from freezeflow.exports.manifest import Manifest, read_manifest
from freezeflow.runtimes.runtime import PRECISIONS, Names, Subject
from freezeflow.store.hashing import reading_failed

_PART_BYTES = 1 << 20


def published_subject(files: Mapping[Path, str], format_name: str) -> Subject:
    """What its runtimes can be asked about; all that they have to know stands in the manifest.

    Args:
        files: What exports have published, manifests too: absolute path to SHA-256.
        format_name: The format that is looked for.

    Raises:
        StageFailed: There is none in that format, or a file is not any more what was published.
        FreezeflowError: A file cannot be read.
    """
    for path in files:
        if path.name.endswith("manifest.json"):
            manifest = read_manifest(path)
            if manifest.export.get("format") == format_name:
                _check_unchanged([path, *(path.parent / name for name in manifest.files)], files)
                return _subject(path.parent, manifest)
    raise StageFailed(f"no step that it needs has exported {format_name}")


def _check_unchanged(paths: list[Path], files: Mapping[Path, str]) -> None:
    for path in paths:
        if _sha256(path) != files.get(path):
            raise StageFailed(
                "the file is not what the export has written",
                where=str(path),
                hint="Something has changed it; run the export again (--force).",
            )


def _sha256(path: Path) -> str:
    hasher = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while data := file.read(_PART_BYTES):
                hasher.update(data)
    except OSError as error:
        raise reading_failed(error, path) from error
    return hasher.hexdigest()


def _subject(root: Path, manifest: Manifest) -> Subject:
    ((name, signature),) = manifest.signatures.items()
    told = manifest.export
    return Subject(
        file=root / told["main"],
        names=Names(told["inputs"], told["outputs"]),
        signature_name=name,
        signature=signature,
        bound=manifest.bound,
        precision=PRECISIONS[told["precision"]],
        options=told.get("options", {}),
    )
