"""What goes into a step's key, and how two keys differ."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from freezeflow.errors import FreezeflowError
from freezeflow.plan import Plan, Step
from freezeflow.store.listings import Listings
from freezeflow.store.stats import StatCache
from freezeflow.store.store import Store
from freezeflow.values import Digest, Json, ModelSource

Preimage = Mapping[str, Json]


class KeyInput(NamedTuple):
    """A step whose inputs are known.

    Args:
        plan: The plan that it belongs to.
        step: The step.
        inputs: Content digests of the models that it needs, in order.
        files: What the steps that it needs have published: path to SHA-256.
    """

    plan: Plan
    step: Step
    inputs: tuple[Digest, ...]
    files: Mapping[str, str]


class Change(NamedTuple):
    """A field of a preimage that differs: its path, and both values (None where it was absent)."""

    field: str
    before: Json
    after: Json


def preimages(wanted: Sequence[KeyInput], store: Store) -> list[Preimage | FreezeflowError]:
    """The preimage of each step's key, or why there is none (a file that it reads is missing)."""
    sources = {item.step.source for item in wanted if _reads_source(item.step)}
    listings = _listings(sources, store.listings)
    listed = [_files_of(item.step, listings) for item in wanted]
    paths = {path for files in listed if isinstance(files, _Files) for path in files.all()}
    digests = _digests(list(paths), store.stats)
    return [
        files if isinstance(files, FreezeflowError) else _preimage(item, files, digests)
        for item, files in zip(wanted, listed, strict=True)
    ]


def changes(before: Preimage, after: Preimage) -> tuple[Change, ...]:
    """Every field that differs, by its path (``params.seed``), sorted."""
    old, new = dict(_flat("", before)), dict(_flat("", after))
    return tuple(
        Change(field, old.get(field), new.get(field))
        for field in sorted(old.keys() | new.keys())
        if old.get(field) != new.get(field)
    )


class _Files(NamedTuple):
    """What a step reads: the source's files (empty if it does not read it), and its own."""

    source: tuple[Path, ...]
    own: Mapping[str, Path]

    def all(self) -> Iterator[Path]:
        yield from self.source
        yield from self.own.values()


# Raised whenever a source lists its files by other rules.
_LISTED_BY = 2

_Listing = tuple[Path, ...] | FreezeflowError


def _files_of(step: Step, listings: Mapping[ModelSource, _Listing]) -> _Files | FreezeflowError:
    if not _reads_source(step):
        return _Files((), _expanded(step.input_files))
    found = listings[step.source]
    if isinstance(found, FreezeflowError):
        return found
    return _Files(found, _expanded(step.input_files))


def _expanded(files: Mapping[str, Path]) -> Mapping[str, Path]:
    """With every file of a folder in the folder's place."""
    if not any(path.is_dir() for path in files.values()):
        return files
    found = {}
    for name, path in files.items():
        below = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in below:
            if file == path or file.is_file():
                found[name if file == path else f"{name}/{file.relative_to(path)}"] = file
    return found


def source_paths(sources: Collection[ModelSource], store: Store) -> set[str]:
    """The files and folders of sources, as they are known to be."""
    names = [_listing_name(source) for source in sources]
    return store.listings.paths(names)


def _listing_name(source: ModelSource) -> str:
    return f"{_LISTED_BY} {source!r}"


def _listings(sources: Collection[ModelSource], known: Listings) -> dict[ModelSource, _Listing]:
    names = {_listing_name(source): source for source in sources}
    found: dict[ModelSource, _Listing] = {
        names[name]: files for name, files in known.get(list(names)).items()
    }
    for name, source in names.items():
        if source not in found:
            found[source] = _list_source(name, source, known)
    return found


def _list_source(name: str, source: ModelSource, known: Listings) -> _Listing:
    from freezeflow.sources.registry import source_files

    started = time.time_ns()
    try:
        files = source_files(source)
    except FreezeflowError as error:
        return error
    known.remember(name, files, source.path, started)
    return files


def _reads_source(step: Step) -> bool:
    return step.role == "load" or step.reads_source


def _digests(paths: Sequence[Path], stats: StatCache) -> dict[Path, Digest | FreezeflowError]:
    try:
        return dict(stats.digests(paths))
    except FreezeflowError:
        # One of them cannot be read; that is the fault of the steps that need it only.
        return {path: _digest(path, stats) for path in paths}


def _digest(path: Path, stats: StatCache) -> Digest | FreezeflowError:
    try:
        return stats.digests([path])[path]
    except FreezeflowError as error:
        return error


def _preimage(
    item: KeyInput, files: _Files, digests: Mapping[Path, Digest | FreezeflowError]
) -> Preimage | FreezeflowError:
    known: dict[Path, str] = {}
    for path in files.all():
        digest = digests[path]
        if isinstance(digest, FreezeflowError):
            return digest
        known[path] = digest.hex
    step = item.step
    return {
        "stage": step.stage,
        "stage_version": step.stage_version,
        "params": {k: v for k, v in step.params.items() if k not in step.unkeyed},
        "inputs": [digest.hex for digest in item.inputs],
        "source": _source(step.source, files.source, known) if _reads_source(step) else None,
        "input_files": {name: known[path] for name, path in files.own.items()},
        **({"needed_files": dict(item.files)} if step.reads_files else {}),
        "output_files": [os.path.relpath(path, step.base) for path in step.output_files],
        "tools": dict(step.tools),
        # A manifest names the recipe, as far as it is about its file.
        "recipe": step.recipe_digest or None,
    }


def _source(source: ModelSource, files: Sequence[Path], known: Mapping[Path, str]) -> Json:
    root = str(source.path)
    return {
        "kind": source.kind,
        "tags": None if source.tags is None else list(source.tags),
        "signatures": None if source.signatures is None else list(source.signatures),
        "inputs": list(source.inputs),
        "outputs": list(source.outputs),
        "custom_objects": list(source.custom_objects),
        "averages": source.averages,
        "files": {source_name(str(path), root): known[path] for path in files},
    }


def source_digests(preimage: Preimage, source: ModelSource) -> dict[str, str]:
    """Absolute path to BLAKE3 of each of the source's files; none where the key has none of them."""
    of_source: Any = preimage["source"]
    if of_source is None:
        return {}
    root = str(source.path)
    return {
        os.path.abspath(source_file(name, root)): digest
        for name, digest in of_source["files"].items()
    }


def source_name(path: str, source: str) -> str:
    """A source's file by a name that does not tell where the source is."""
    if path.startswith(f"{source}/"):
        return path[len(source) + 1 :]
    return os.path.relpath(path, os.path.dirname(source))


def source_file(name: str, source: str) -> str:
    """The file of a source that `source_name` named."""
    inside = os.path.join(source, name)
    if os.path.isdir(source) and os.path.exists(inside):
        return inside
    return os.path.normpath(os.path.join(os.path.dirname(source), name))


def _flat(prefix: str, value: Json) -> Iterator[tuple[str, Json]]:
    if isinstance(value, Mapping):
        for key, below in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else str(key), below)
    else:
        yield prefix, value
