"""A file that an export has published, as its runtimes are asked about it once more."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from freezeflow.errors import StageFailed
from freezeflow.exports.in_tensorflow import names
from freezeflow.exports.manifest import Manifest, manifest_path, read_manifest
from freezeflow.exports.saved_model import MANIFEST
from freezeflow.runtimes.runtime import FLOAT32, PRECISIONS, Names, Subject
from freezeflow.store.hashing import reading_failed
from freezeflow.values import Json

_PART_BYTES = 1 << 20


def published_subjects(files: Mapping[Path, str], format_name: str) -> list[Subject]:
    """What its runtimes can be asked about, a subject for each signature that the file has.

    All that they have to know stands in the manifest.

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
            told = manifest.export or _told(path, manifest)
            if told["format"] == format_name:
                _check_unchanged([path, *(path.parent / name for name in manifest.files)], files)
                return _subjects(path.parent, manifest, told)
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


def _told(path: Path, manifest: Manifest) -> Mapping[str, Json]:
    """What the manifest of a format of TensorFlow's own leaves unsaid: a graph's names are the tensors'."""
    main = "saved_model.pb"
    if path.name == MANIFEST and main in manifest.files:
        return {"format": "saved_model", "main": main}
    (main,) = [name for name in manifest.files if manifest_path(path.parent / name) == path]
    return {"format": "frozen_graph", "main": main}


def _subjects(root: Path, manifest: Manifest, told: Mapping[str, Json]) -> list[Subject]:
    return [
        Subject(
            file=root / told["main"],
            names=Names(told["inputs"], told["outputs"]) if "inputs" in told else names(signature),
            signature_name=name,
            signature=signature,
            bound=manifest.bound,
            init=manifest.init,
            precision=PRECISIONS[told.get("precision", FLOAT32.name)],
            options=told.get("options", {}),
        )
        for name, signature in manifest.signatures.items()
    ]
