"""Entries of a shared cache: what a step gave, in a form that does not tell where it ran.

An entry is a file of two or three lines: canonical JSON, the digest of that line, and, where it is
signed, ``ed25519``, the public key and the signature. Nothing that it says is believed before it is
checked: it must belong to the key that was asked for, name only digests, and publish only files that
the step publishes.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from freezeflow.store.actions import Action, ActionFile, Outputs, canonical_json, key_of
from freezeflow.store.remote.signing import is_signed_by, public_key_of, sign
from freezeflow.values import Digest, Json

FORMAT = "freezeflow.entry/1"

# The part of a shared cache that belongs to this format.
_ROOT = "v1"

_SIGNATURE = re.compile(rb"(ed25519 [\w+/=]{1,100} [\w+/=]{1,100}\n)?", re.ASCII)

_DIGITS = re.compile(r"[0-9a-f]{64}")


class Weight(NamedTuple):
    """A tensor that lay in a file of the model's source when the step ran.

    Args:
        digest: Of its bytes.
        nbytes: Their number.
        file: The source's file, by the name that the key has for it; None where it lay elsewhere.
        offset: First byte there.
    """

    digest: Digest
    nbytes: int
    file: str | None
    offset: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What a shared cache knows of a step.

    Args:
        key: Digest of the preimage.
        preimage: What the key was made of.
        outputs: What the step gave, without its log.
        facts: Its facts.
        sizes: Bytes of each blob of the outputs.
        weights: Tensors of its model that lie in no blob of the outputs.
    """

    key: Digest
    preimage: Mapping[str, Json]
    outputs: Outputs
    facts: Mapping[str, Json]
    sizes: Mapping[Digest, int]
    weights: tuple[Weight, ...]

    def action_file(self, recipe: str, step: str) -> ActionFile:
        """The entry as an action of the local cache."""
        facts = canonical_json(self.facts).decode()
        return ActionFile(
            action=Action(key=self.key, outputs=self.outputs, facts_json=facts),
            preimage=self.preimage,
            recipe=recipe,
            step=step,
        )


class NotAccepted(Exception):
    """An entry is not what was asked for; the text says why."""


def entry_path(key: Digest, public_key: str = "") -> str:
    """Where an entry lies; those of each signer lie apart, so that none stands in another's way."""
    return f"{_ROOT}/entries/{_signer(public_key)}/{key.hex[:2]}/{key.hex[2:]}.json"


def list_path(number: int, public_key: str = "") -> str:
    """Where a signer's list with a number lies."""
    return f"{_ROOT}/lists/{_signer(public_key)}/{number}.json"


def _signer(public_key: str) -> str:
    return Digest.of(public_key.encode()).hex[:16] if public_key else "unsigned"


def entries_folder(public_key: str = "") -> str:
    """The folder of a signer's entries."""
    return entry_path(Digest("0" * 64), public_key).rsplit("/", 2)[0]


def key_in_path(path: str) -> Digest | None:
    """The key of the entry at a path; None for a path of anything else."""
    digits = "".join(path.removesuffix(".json").split("/")[-2:])
    return Digest(digits) if path.endswith(".json") and _DIGITS.fullmatch(digits) else None


def blob_path(digest: Digest) -> str:
    """Where a blob or a weight lies."""
    return f"{_ROOT}/blobs/{digest.hex[:2]}/{digest.hex[2:]}"


def file_path(sha256: str) -> str:
    """Where a file that a step published lies."""
    return f"{_ROOT}/files/{sha256[:2]}/{sha256[2:]}"


def encode_entry(entry: Entry, signing_key: str = "") -> bytes:
    """An entry as bytes, signed where there is a key."""
    payload = canonical_json(
        {
            "format": FORMAT,
            "preimage": entry.preimage,
            "outputs": entry.outputs.to_json(),
            "facts": entry.facts,
            "sizes": {digest.hex: size for digest, size in entry.sizes.items()},
            "weights": [[w.digest.hex, w.nbytes, w.file, w.offset] for w in entry.weights],
        }
    )
    return seal(payload, signing_key)


def decode_entry(data: bytes, key: Digest, trusted_keys: Collection[str] = ()) -> Entry:
    """The entry that some bytes hold.

    Args:
        data: The bytes.
        key: The key that was asked for.
        trusted_keys: Public keys; with any, the entry needs the signature of one.

    Raises:
        NotAccepted: It is damaged, of another format, of another key, or not signed as it must be.
    """
    payload = unseal(data, trusted_keys)
    try:
        entry = _entry(json.loads(payload))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NotAccepted(f"is no entry of {FORMAT}") from error
    if entry.key != key:
        raise NotAccepted("belongs to another step")
    return entry


def seal(payload: bytes, signing_key: str = "") -> bytes:
    """A line with its digest and, where there is a key, its signature."""
    lines = [payload, Digest.of(payload).hex.encode()]
    if signing_key:
        words = ["ed25519", public_key_of(signing_key), sign(signing_key, payload)]
        lines.append(" ".join(words).encode())
    return b"\n".join(lines) + b"\n"


def unseal(data: bytes, trusted_keys: Collection[str]) -> bytes:
    """The line that was sealed.

    Raises:
        NotAccepted: It is damaged, or not signed as it must be.
    """
    payload, _, rest = data.partition(b"\n")
    check, _, signature = rest.partition(b"\n")
    if check != Digest.of(payload).hex.encode() or not _SIGNATURE.fullmatch(signature):
        raise NotAccepted("is damaged")
    if trusted_keys:
        _check_signature(payload, signature.decode().split(), trusted_keys)
    return payload


def may_publish(path: str, outputs: Sequence[str]) -> bool:
    """Whether a published file is one that a step with these outputs writes.

    Both are relative to the recipe's folder. A file that belongs to an output lies beside it, under a
    name that begins as its name does: ``out.manifest.json`` for ``out.pb``.
    """
    folder, name = os.path.split(path)
    for output in outputs:
        beside, output_name = os.path.split(output)
        stem = output_name.partition(".")[0]
        if folder == beside and stem and "\0" not in name and f"{name}.".startswith(f"{stem}."):
            return True
    return False


def _check_signature(payload: bytes, words: Sequence[str], trusted: Collection[str]) -> None:
    if not words:
        raise NotAccepted("has no signature")
    if words[1] not in trusted:
        raise NotAccepted("is signed with a key that is not trusted")
    if not is_signed_by(words[1], payload, words[2]):
        raise NotAccepted("has a signature that does not fit")


def _entry(fields: Json) -> Entry:
    if fields["format"] != FORMAT:
        raise ValueError(fields["format"])
    outputs = Outputs.from_json(fields["outputs"])
    sizes = {_digest(digits): _size(size) for digits, size in fields["sizes"].items()}
    for digest in outputs.blobs():
        if digest not in sizes:
            raise ValueError(f"no size of {digest}")
    for file in outputs.files:
        _digest(file.sha256)
        _size(file.nbytes)
        if not may_publish(file.path, fields["preimage"]["output_files"]):
            raise NotAccepted(f"publishes {file.path!r}, which is none of the step's files")
    return Entry(
        key=key_of(fields["preimage"]),
        preimage=fields["preimage"],
        outputs=outputs,
        facts=dict(fields["facts"]),
        sizes=sizes,
        weights=tuple(_weight(*row) for row in fields["weights"]),
    )


def _weight(digits: str, nbytes: int, file: str | None, offset: int) -> Weight:
    if file is not None and not isinstance(file, str):
        raise ValueError("no name of a file")
    return Weight(_digest(digits), _size(nbytes), file, _size(offset))


def _digest(digits: str) -> Digest:
    if not _DIGITS.fullmatch(digits):
        raise ValueError("no digest")
    return Digest(digits)


def _size(size: int) -> int:
    if type(size) is not int or size < 0:
        raise ValueError("no size")
    return size
