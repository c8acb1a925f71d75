"""Releases, for people and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from freezeflow.release.contents import Finding
from freezeflow.release.folder import Release
from freezeflow.release.signing import SignatureReport
from freezeflow.release.verify import Fault, Verification
from freezeflow.report.text import count, paint, short_path, size
from freezeflow.values import Json

RELEASED = "freezeflow.released/1"
VERIFIED = "freezeflow.verify/1"
SIGNED = "freezeflow.signed/1"

_KINDS = {
    "folder": "release",
    "tar": "release in a tar",
    "oci": "OCI image layout",
    "files": "files",
}


def render_release(made: Release, packed: Sequence[Path], *, color: bool = False) -> str:
    """What was written, and what a user should know about it."""
    nbytes = sum(file.nbytes for file in made.files)
    head = f"{short_path(made.folder)}: {count(len(made.files), 'file')}, {size(nbytes)}"
    lines = [head, f"  sha256 of SHA256SUMS  {made.digest}"]
    lines += [f"  {short_path(path)}" for path in packed]
    for finding in made.findings:
        word = paint("note", "yellow", color=color)
        lines.append(f"  {word}: {_finding(finding)}")
    return "\n".join(lines)


def _finding(finding: Finding) -> str:
    return f"{finding.where}: {finding.text}" if finding.where else finding.text


def release_to_json(made: Release, packed: Sequence[Path], image: str) -> Json:
    """``freezeflow.released/1``."""
    return {
        "format": RELEASED,
        "folder": str(made.folder),
        "sha256sums": made.digest,
        "files": {file.path: {"sha256": file.sha256, "bytes": file.nbytes} for file in made.files},
        "findings": [finding._asdict() for finding in made.findings],
        "packed": [str(path) for path in packed],
        "image": image or None,
    }


def render_verification(
    found: Verification, signatures: SignatureReport, *, color: bool = False
) -> str:
    """What is wrong, or what was checked; then who signed what."""
    faults = (*found.faults, *signatures.faults)
    head = f"{short_path(found.path)} ({_KINDS[found.kind]}): {count(found.files, 'file')}"
    verdict = (
        paint(count(len(faults), "fault"), "red", color=color)
        if faults
        else paint("all is as it was written", "green", color=color)
    )
    lines = [f"{head}, {size(found.nbytes)}: {verdict}"]
    lines += [f"  {_fault(fault)}" for fault in faults]
    if not found.faults:
        lines += [f"  {check}" for check in found.checks]
    for signed in signatures.signed:
        keyid = f" ({signed.keyid[:16]})" if signed.keyid else ""
        lines.append(f"  {signed.what} is signed by {signed.key}{keyid}")
    for unchecked in signatures.unchecked:
        lines.append(
            f"  {unchecked.file}: signed by {unchecked.keyid[:16]}, not checked; give --key"
        )
    return "\n".join(lines)


def _fault(fault: Fault) -> str:
    return f"{fault.where} {fault.text}"


def verification_to_json(found: Verification, signatures: SignatureReport) -> Json:
    """``freezeflow.verify/1``."""
    faults = (*found.faults, *signatures.faults)
    return {
        "format": VERIFIED,
        "path": str(found.path),
        "kind": found.kind,
        "ok": not faults,
        "files": found.files,
        "bytes": found.nbytes,
        "sha256sums": found.digest or None,
        "checks": list(found.checks),
        "faults": [fault._asdict() for fault in faults],
        "signed": [signed._asdict() for signed in signatures.signed],
        "unchecked": [unchecked._asdict() for unchecked in signatures.unchecked],
    }


def signed_to_json(files: Sequence[Path]) -> Json:
    """``freezeflow.signed/1``."""
    return {"format": SIGNED, "files": [str(file) for file in files]}
