"""The release folder: what is in it, and how it is written.

    release.json            what there is: every file with SHA-256, size and role; findings
    SHA256SUMS              the same for `sha256sum -c`, release.json included
    README.md               the model card
    artifacts/              what the recipe exported, by the path from the recipe
    recipe/                 recipe and lock as used
    verdicts/               MODEL/STEP.json for each validation
    attestations/           in-toto statements: provenance, test-result
    bom.cdx.json            CycloneDX 1.7

Signatures are not in it: it is the same, signed or not.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from freezeflow.errors import FreezeflowError, ModelRefused
from freezeflow.exports.folders import published_folder
from freezeflow.exports.manifest import read_manifest
from freezeflow.release.bom import bom
from freezeflow.release.card import card
from freezeflow.release.contents import Artifact, Contents, Finding, json_bytes
from freezeflow.release.packing import Label, PackedFile
from freezeflow.release.statements import provenance, test_result
from freezeflow.sources.graph_file import location_of
from freezeflow.store.files import write_atomically
from freezeflow.store.hashing import changed_while_read, reading_failed, sha256_of
from freezeflow.values import Json, Signature
from freezeflow.version import VERSION

FORMAT = "freezeflow.release/1"
DESCRIPTION = "release.json"
SUMS = "SHA256SUMS"
CARD = "README.md"
BOM = "bom.cdx.json"
PROVENANCE = "attestations/provenance.json"
TEST_RESULT = "attestations/test-result.json"

# A file's place to its role.
_ROLES = (
    ("artifacts/", "artifact"),
    ("recipe/", "recipe"),
    ("verdicts/", "verdict"),
    ("attestations/", "attestation"),
    (CARD, "card"),
    (BOM, "bom"),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A release that was written.

    Args:
        folder: Where.
        files: Every file in it.
        label: Its name, version, date and commit.
        findings: What a user should know.
        digest: SHA-256 of `SUMS`, which stands for the whole.
    """

    folder: Path
    files: tuple[PackedFile, ...]
    label: Label
    findings: tuple[Finding, ...]
    digest: str


def write_release(contents: Contents, to: Path) -> Release:
    """Writes a release folder, whole or not at all; an older release there is replaced.

    Raises:
        StageFailed: Something else is there.
        UsageError: The user's card is not right.
        FreezeflowError: It cannot be written, or an artifact has changed since the run.
    """
    documents = _documents(contents)
    files = {a.path: PackedFile(a.path, a.sha256, a.nbytes) for a in contents.artifacts()}
    for path, data in documents.items():
        files[path] = PackedFile(path, sha256_of(data), len(data))
    documents[DESCRIPTION] = json_bytes(_description(contents, files))
    described = PackedFile(
        DESCRIPTION, sha256_of(documents[DESCRIPTION]), len(documents[DESCRIPTION])
    )
    documents[SUMS] = sums_text({**files, DESCRIPTION: described}).encode()
    with published_folder(to, belongs=DESCRIPTION) as folder:
        for artifact in contents.artifacts():
            _copy(artifact, folder)
        for path, data in documents.items():
            write_atomically(folder / path, [data])
    sums = PackedFile(SUMS, sha256_of(documents[SUMS]), len(documents[SUMS]))
    return Release(
        folder=to,
        files=tuple(sorted([*files.values(), described, sums])),
        label=label_of(contents),
        findings=contents.findings,
        digest=sums.sha256,
    )


def sums_text(files: Mapping[str, PackedFile]) -> str:
    """The lines of `SUMS`, sorted by path."""
    return "".join(f"{files[path].sha256}  {path}\n" for path in sorted(files))


def label_of(contents: Contents) -> Label:
    """What an image of a release says about itself."""
    commit = "" if contents.revision is None else contents.revision.commit
    return Label(contents.name, contents.version, contents.date, commit)


def _copy(artifact: Artifact, folder: Path) -> None:
    try:
        content = location_of(artifact.file, 0, artifact.nbytes)
    except OSError as error:
        raise reading_failed(error, artifact.file) from error
    written = write_atomically(folder / artifact.path, [content])
    if (written.sha256, written.nbytes) != (artifact.sha256, artifact.nbytes):
        raise changed_while_read(artifact.file)


def _documents(contents: Contents) -> dict[str, bytes]:
    signatures = _signatures(contents)
    found = {
        CARD: card(contents, signatures).encode(),
        BOM: json_bytes(bom(contents, signatures)),
        PROVENANCE: json_bytes(provenance(contents)),
        f"recipe/{contents.recipe_name}": contents.recipe,
        f"recipe/{contents.recipe_name}.lock": contents.lock,
    }
    tested = test_result(contents)
    if tested is not None:
        found[TEST_RESULT] = json_bytes(tested)
    for model in contents.models:
        for step, verdict in model.verdicts.items():
            found[f"verdicts/{model.name}/{step}.json"] = json_bytes(verdict)
    return found


def _signatures(contents: Contents) -> dict[str, Mapping[str, Signature]]:
    """Model to its signatures, from the first manifest among what it consists of."""
    found: dict[str, Mapping[str, Signature]] = {}
    for model in contents.models:
        for artifact in model.artifacts:
            if model.name not in found and artifact.path.endswith("manifest.json"):
                try:
                    found[model.name] = read_manifest(artifact.file).signatures
                except ModelRefused:
                    # Another format's file of that name.
                    continue
    return found


def _description(contents: Contents, files: Mapping[str, PackedFile]) -> Json:
    return {
        "format": FORMAT,
        "name": contents.name,
        "version": contents.version,
        "date": contents.date,
        "commit": None if contents.revision is None else contents.revision.commit,
        "freezeflow": VERSION,
        "recipe": f"recipe/{contents.recipe_name}",
        "lock": f"recipe/{contents.recipe_name}.lock",
        "files": {
            path: {"sha256": file.sha256, "bytes": file.nbytes, "role": _role(path)}
            for path, file in files.items()
        },
        "models": {
            model.name: {
                "artifacts": [artifact.path for artifact in model.artifacts],
                "validated": [artifact.path for artifact in model.validated_artifacts()],
            }
            for model in contents.models
        },
        "findings": [finding._asdict() for finding in contents.findings],
    }


def read_description(folder: Path) -> dict[str, str]:
    """The artifacts of a release: path to SHA-256, as its description says.

    Raises:
        ModelRefused: The description is damaged or of another format.
        FreezeflowError: It cannot be read.
    """
    path = folder / DESCRIPTION
    try:
        data = json.loads(path.read_bytes())
        if data["format"] != FORMAT:
            raise ValueError(f"its format is {data['format']!r}")
        return {
            name: file["sha256"]
            for name, file in sorted(data["files"].items())
            if file["role"] == "artifact"
        }
    except OSError as error:
        raise reading_failed(error, path) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelRefused(f"this is no {FORMAT}: {error}", where=str(path)) from None


def _role(path: str) -> str:
    return next((role for start, role in _ROLES if path.startswith(start)), "document")


class NotStrict(FreezeflowError):
    """A release with findings was asked to have none: exit code 4.

    Attributes:
        findings: What was found.
    """

    exit_code = 4

    def __init__(self, findings: tuple[Finding, ...]) -> None:
        lines = [f"{f.where}: {f.text}" if f.where else f.text for f in findings]
        super().__init__(
            "the release would not be without findings; nothing was written", hint="\n".join(lines)
        )
        self.findings = findings
