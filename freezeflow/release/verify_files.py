"""Checks published files where there is no release: against the lock, and the manifests beside them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from freezeflow.errors import FreezeflowError, UsageError
from freezeflow.exports.manifest import FORMAT as MANIFEST
from freezeflow.exports.manifest import manifest_path, read_manifest
from freezeflow.release.contents import json_bytes
from freezeflow.release.lock import LockedFile, read_lock
from freezeflow.release.lock_file import lock_path, lock_text
from freezeflow.release.verify import Fault, Verification
from freezeflow.store.hashing import reading_failed, sha256_of_file

_IN_FOLDER = "freezeflow.manifest.json"


def verify_recipe(recipe: Path) -> Verification:
    """Checks what a recipe published against its lock and its manifests.

    Args:
        recipe: The recipe, or its lock.

    Raises:
        UsageError: There is no lock, or it is damaged.
    """
    path = recipe if recipe.suffix == ".lock" else lock_path(recipe)
    lock = read_lock(path)
    faults = []
    if _read(path) != lock_text(lock.to_json()).encode():
        faults.append(Fault(str(path), "is not as it was written"))
    locked = {
        path.parent / name: file
        for model in lock.models.values()
        for name, file in model.files().items()
    }
    faults += _compared(locked, path.name)
    manifests = [file for file in locked if file.name.endswith("manifest.json") and file.is_file()]
    for manifest in manifests:
        faults += _check_manifest(manifest)
    return _verification(recipe, [path, *locked], faults, (f"{path.name}: every file",))


def verify_exported(path: Path) -> Verification:
    """Checks an exported model against the manifest beside it.

    Args:
        path: A graph file, the folder of an exported SavedModel, or a manifest.

    Raises:
        UsageError: There is no manifest.
    """
    manifest = _manifest_of(path)
    faults = _check_manifest(manifest)
    files = [manifest]
    with contextlib.suppress(FreezeflowError):
        files += [manifest.parent / name for name in read_manifest(manifest).files]
    return _verification(path, files, faults, (f"{manifest.name}: the files beside it",))


def _manifest_of(path: Path) -> Path:
    found = path
    if path.is_dir():
        found = path / _IN_FOLDER
    elif not path.name.endswith("manifest.json"):
        found = manifest_path(path)
    if not found.is_file():
        raise UsageError(
            "there is no release here, and no manifest to check it against",
            where=str(path),
            hint="Name a release, a recipe that has a lock, or an exported model with its manifest.",
        )
    return found


def _verification(
    path: Path, files: list[Path], faults: list[Fault], checks: tuple[str, ...]
) -> Verification:
    there = [file for file in dict.fromkeys(files) if file.is_file()]
    return Verification(
        path=path,
        kind="files",
        files=len(there),
        nbytes=sum(file.stat().st_size for file in there),
        checks=(*checks, "manifests: the files beside them"),
        faults=tuple(dict.fromkeys(faults)),
    )


def _compared(expected: dict[Path, LockedFile], said_by: str) -> Iterator[Fault]:
    for file, said in expected.items():
        if not file.is_file():
            yield Fault(str(file), f"is missing; {said_by} names it")
        elif (sha256_of_file(file), file.stat().st_size) != said:
            yield Fault(str(file), f"is not what {said_by} says")


def _check_manifest(manifest: Path) -> list[Fault]:
    data = _read(manifest)
    try:
        if json_bytes(json.loads(data)) != data:
            return [Fault(str(manifest), "is not as it was written")]
        said = read_manifest(manifest)
    except (ValueError, FreezeflowError):
        return [Fault(str(manifest), f"is no {MANIFEST}")]
    files = {
        manifest.parent / name: LockedFile(file.sha256, file.nbytes)
        for name, file in said.files.items()
    }
    return list(_compared(files, manifest.name))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise reading_failed(error, path) from error
