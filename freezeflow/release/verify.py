"""Checks what was published against everything that is said about it, without TensorFlow.

Every byte of a release is covered: artifacts and documents by `SHA256SUMS`, and this file by being what
the others come to. On top of that, manifest, lock, provenance, test result and bill of materials must
agree with the artifacts and with each other.
"""

from __future__ import annotations

import dataclasses
import json
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from freezeflow.errors import FreezeflowError, UsageError
from freezeflow.exports.manifest import FORMAT as MANIFEST
from freezeflow.release.contents import json_bytes
from freezeflow.release.folder import (
    BOM,
    DESCRIPTION,
    FORMAT,
    PROVENANCE,
    SUMS,
    TEST_RESULT,
    sums_text,
)
from freezeflow.release.lock import Lock, parse_lock
from freezeflow.release.packing import PackedFile
from freezeflow.release.statements import PROVENANCE as PROVENANCE_TYPE
from freezeflow.release.statements import TEST_RESULT as TEST_RESULT_TYPE
from freezeflow.release.tree import Tree
from freezeflow.values import Json

_SUM = re.compile(r"([0-9a-f]{64})  (.+)")


class Fault(NamedTuple):
    """Something that is not as it is said to be.

    Args:
        where: The file.
        text: What is wrong with it.
    """

    where: str
    text: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What a check of a release found.

    Args:
        path: What was checked.
        kind: ``folder``, ``tar``, ``oci`` or ``files``.
        files: How many files were hashed.
        nbytes: Their bytes.
        checks: What was checked, in words.
        faults: What is wrong; empty when all is well.
        digest: SHA-256 of its `SHA256SUMS`; empty without one.
    """

    path: Path
    kind: str
    files: int
    nbytes: int
    checks: tuple[str, ...]
    faults: tuple[Fault, ...]
    digest: str = ""

    @property
    def ok(self) -> bool:
        """Nothing is wrong."""
        return not self.faults


def verify_tree(path: Path, tree: Tree) -> Verification:
    """Checks a release.

    Args:
        path: Where it is, for the report.
        tree: Its files.
    """
    hashed = {name: tree.hashed(name) for name in sorted(tree.open)}
    faults = [Fault(path.name, text) for text in tree.faults]
    faults += _check_sums(tree, hashed)
    checks = [f"{SUMS}: every file, none missing, none besides"]
    for words, check in _CHECKS:
        try:
            faults += check(tree, hashed)
        except (KeyError, ValueError, TypeError, AttributeError, FreezeflowError) as error:
            faults.append(Fault(words.partition(":")[0], f"cannot be understood: {error}"))
        checks.append(words)
    return Verification(
        path=path,
        kind=tree.kind,
        files=len(hashed),
        nbytes=sum(file.nbytes for file in hashed.values()),
        checks=tuple(checks),
        faults=tuple(dict.fromkeys(faults)),
        digest=hashed[SUMS].sha256 if SUMS in hashed else "",
    )


_Hashed = Mapping[str, PackedFile]


def _check_sums(tree: Tree, hashed: _Hashed) -> Iterator[Fault]:
    if SUMS not in hashed:
        yield Fault(SUMS, "is missing")
        return
    listed: dict[str, str] = {}
    text = tree.read(SUMS).decode(errors="replace")
    for line in text.splitlines():
        found = _SUM.fullmatch(line)
        if found:
            listed[found[2]] = found[1]
    for name in sorted(listed.keys() - hashed.keys()):
        yield Fault(name, "is missing")
    for name in sorted(hashed.keys() - listed.keys() - {SUMS}):
        yield Fault(name, "does not belong to the release")
    for name in sorted(listed.keys() & hashed.keys()):
        if hashed[name].sha256 != listed[name]:
            yield Fault(name, f"is not what {SUMS} says: {hashed[name].sha256}")
    files = {name: PackedFile(name, sha256, 0) for name, sha256 in listed.items()}
    if sums_text(files) != text:
        yield Fault(SUMS, "is not as it was written")


def _check_description(tree: Tree, hashed: _Hashed) -> Iterator[Fault]:
    data = _document(tree, DESCRIPTION)
    if data["format"] != FORMAT:
        yield Fault(DESCRIPTION, f"its format is {data['format']!r}, not {FORMAT}")
    files = data["files"]
    yield from _missing(DESCRIPTION, files, hashed)
    for name in sorted(hashed.keys() - files.keys() - {SUMS, DESCRIPTION}):
        yield Fault(name, f"{DESCRIPTION} does not know it")
    for name, said in files.items():
        found = hashed.get(name)
        if found is not None and (found.sha256, found.nbytes) != (said["sha256"], said["bytes"]):
            yield Fault(name, f"is not what {DESCRIPTION} says")


def _check_manifests(tree: Tree, hashed: _Hashed) -> Iterator[Fault]:
    for name in sorted(hashed):
        if not (name.startswith("artifacts/") and name.endswith("manifest.json")):
            continue
        data = _document(tree, name)
        if data.get("format") != MANIFEST:
            continue
        folder = posixpath.dirname(name)
        files = {posixpath.join(folder, file): said for file, said in data["files"].items()}
        yield from _missing(name, files, hashed)
        for file, said in files.items():
            found = hashed.get(file)
            if found is not None and (found.sha256, found.nbytes) != (
                said["sha256"],
                said["bytes"],
            ):
                yield Fault(file, f"is not what {name} says")


def _check_lock(tree: Tree, hashed: _Hashed) -> Iterator[Fault]:
    description = _document(tree, DESCRIPTION)
    name = description["lock"]
    lock = _lock(tree, name)
    released = {path for model in description["models"].values() for path in model["artifacts"]}
    locked: set[str] = set()
    for model in description["models"]:
        for path, file in lock.models[model].files().items():
            place = posixpath.join(
                "artifacts", *("_" if part == ".." else part for part in path.split("/"))
            )
            locked.add(place)
            found = hashed.get(place)
            if found is None or (found.sha256, found.nbytes) != (file.sha256, file.nbytes):
                yield Fault(place, f"is not what {name} says")
    for place in sorted(released - locked):
        yield Fault(place, f"{name} does not know it")


def _check_provenance(tree: Tree, hashed: _Hashed) -> Iterator[Fault]:
    data = _document(tree, PROVENANCE)
    yield from _check_statement(PROVENANCE, data, PROVENANCE_TYPE, hashed)
    artifacts = {name for name in hashed if name.startswith("artifacts/")}
    subjects = {subject["name"] for subject in data["subject"]}
    for name in sorted(artifacts - subjects):
        yield Fault(name, f"{PROVENANCE} does not know it")
    for dependency in data["predicate"]["buildDefinition"]["resolvedDependencies"]:
        if dependency["name"].startswith("recipe/"):
            yield from _check_digest(PROVENANCE, dependency, hashed)


def _check_tests(tree: Tree, hashed: _Hashed) -> Iterator[Fault]:
    if TEST_RESULT not in hashed:
        return
    data = _document(tree, TEST_RESULT)
    yield from _check_statement(TEST_RESULT, data, TEST_RESULT_TYPE, hashed)
    for resource in data["predicate"]["configuration"]:
        yield from _check_digest(TEST_RESULT, resource, hashed)


def _check_bom(tree: Tree, hashed: _Hashed) -> Iterator[Fault]:
    data = _document(tree, BOM)
    parts = [part for model in data["components"] for part in model.get("components", [])]
    for part in parts:
        found = hashed.get(part["name"])
        if found is None or found.sha256 != part["hashes"][0]["content"]:
            yield Fault(part["name"], f"is not what {BOM} says")


_CHECKS: tuple[tuple[str, Callable[[Tree, _Hashed], Iterator[Fault]]], ...] = (
    (f"{DESCRIPTION}: every file and size", _check_description),
    ("manifests: the files beside them", _check_manifests),
    ("lock: every artifact", _check_lock),
    (f"{PROVENANCE}: subjects, recipe and lock", _check_provenance),
    (f"{TEST_RESULT}: subjects, recipe and lock", _check_tests),
    (f"{BOM}: hashes", _check_bom),
)


def _check_statement(where: str, data: Json, kind: str, hashed: _Hashed) -> Iterator[Fault]:
    if data["predicateType"] != kind:
        yield Fault(where, f"is a statement of another type: {data['predicateType']!r}")
    for subject in data["subject"]:
        yield from _check_digest(where, subject, hashed)


def _check_digest(where: str, resource: Json, hashed: _Hashed) -> Iterator[Fault]:
    found = hashed.get(resource["name"])
    if found is None or found.sha256 != resource["digest"]["sha256"]:
        yield Fault(resource["name"], f"is not what {where} says")


def _missing(where: str, files: Mapping[str, Json], hashed: _Hashed) -> Iterator[Fault]:
    for name in sorted(files.keys() - hashed.keys()):
        yield Fault(name, f"is missing; {where} names it")


def _document(tree: Tree, name: str) -> Json:
    """A JSON document that is written as freezeflow writes it."""
    if name not in tree.open:
        raise UsageError(f"{name} is missing")
    data = tree.read(name)
    found = json.loads(data)
    if json_bytes(found) != data:
        raise ValueError(f"{name} is not as it was written")
    return found


def _lock(tree: Tree, name: str) -> Lock:
    return parse_lock(tree.read(name).decode(), Path(name))
