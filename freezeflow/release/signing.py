"""Signatures of releases: DSSE envelopes with ed25519 keys, offline, the same bytes every time.

They lie beside the release, in ``DIR.signatures``, so that a release is the same signed or not:

    SHA256SUMS.KEYID.dsse.json       over SHA256SUMS, and so over every byte of the release
    provenance.KEYID.dsse.json       over the in-toto statement, as in-toto's own tools take it
    test-result.KEYID.dsse.json      the same

Source of the format: https://github.com/secure-systems-lab/dsse, version 1.0.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from freezeflow.errors import FreezeflowError, MissingExtra, UsageError
from freezeflow.release.contents import json_bytes
from freezeflow.release.folder import PROVENANCE, SUMS, TEST_RESULT
from freezeflow.release.tree import Tree
from freezeflow.release.verify import Fault
from freezeflow.store.files import write_atomically
from freezeflow.store.hashing import reading_failed

if TYPE_CHECKING:
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import CryptoSigner, SSlibKey

# The private key as PEM text, or the path of its file; and its password where it is encrypted.
KEY_VARIABLE = "FREEZEFLOW_SIGNING_KEY"
PASSWORD_VARIABLE = "FREEZEFLOW_SIGNING_PASSWORD"

MODEL_SIGNATURE = "model.sig"

_PEM = "-----BEGIN "
_IN_TOTO = "application/vnd.in-toto+json"
_SUMS_TYPE = "text/vnd.freezeflow.sha256sums"

_SIGNED = {SUMS: _SUMS_TYPE, PROVENANCE: _IN_TOTO, TEST_RESULT: _IN_TOTO}

_ENDING = ".dsse.json"

# Digits of a key's id that name its files.
_DIGITS = 16

# Envelopes and keys are small; nothing larger is read.
_MAX_BYTES = 64 * 1024 * 1024


class Signed(NamedTuple):
    """A signature that is good.

    Args:
        what: The file of the release that is signed.
        keyid: The key's id.
        key: The file of the public key, as the caller named it.
    """

    what: str
    keyid: str
    key: str


class Unchecked(NamedTuple):
    """A signature by a key that the caller did not give: the signature's file and the key's id."""

    file: str
    keyid: str


def signatures_of(path: Path) -> Path:
    """Where the signatures of a release are: beside it, whatever it is packed in."""
    name = path.name
    for ending in (".tar", ".oci"):
        name = name.removesuffix(ending)
    return path.with_name(f"{name}.signatures")


# ---------------------------------------------------------------- signing


def sign(tree: Tree, to: Path, key: str | None) -> list[Path]:
    """Signs a release's sums and statements.

    Args:
        tree: The release, which has been verified.
        to: The folder for the signatures.
        key: The private key's file; None for `KEY_VARIABLE`.

    Raises:
        MissingExtra: securesystemslib is not installed.
        UsageError: There is no key, or it is no ed25519 key.
        FreezeflowError: A signature cannot be written.
    """
    signer = _signer(key)
    written = []
    for name, payload_type in _SIGNED.items():
        if name not in tree.open:
            continue
        envelope = _dsse().Envelope(tree.read(name), payload_type, {})
        signature = envelope.sign(signer)
        file = to / f"{PurePosixPath(name).stem}.{signature.keyid[:_DIGITS]}{_ENDING}"
        write_atomically(file, [json_bytes(envelope.to_dict())])
        written.append(file)
    return written


def new_key(path: Path) -> tuple[Path, Path]:
    """Writes a new ed25519 key: the private one, readable by its owner, and ``.pub`` beside it.

    Raises:
        MissingExtra: securesystemslib is not installed.
        UsageError: There is a file of that name.
        FreezeflowError: They cannot be written.
    """
    public = path.with_name(f"{path.name}.pub")
    for file in (path, public):
        if file.exists():
            raise UsageError(
                "there is a file of that name", where=str(file), hint="A key is never overwritten."
            )
    signer = _signers().CryptoSigner.generate_ed25519()
    write_atomically(path, [signer.private_bytes], mode=0o600)
    pem = signer.public_key.keyval["public"]
    write_atomically(public, [_public_pem(pem)])
    return path, public


def _public_pem(raw: str) -> bytes:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    return Ed25519PublicKey.from_public_bytes(bytes.fromhex(raw)).public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _signer(key: str | None) -> CryptoSigner:
    signers = _signers()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    where, pem = private_key(key)
    password = os.environ.get(PASSWORD_VARIABLE)
    try:
        found = load_pem_private_key(pem, password.encode() if password else None)
    except (ValueError, TypeError) as error:
        hint = f"It is a PEM file; the password of an encrypted one is in {PASSWORD_VARIABLE}."
        raise UsageError(f"the key cannot be read: {error}", where=where, hint=hint) from None
    if not isinstance(found, Ed25519PrivateKey):
        hint = "Make one with `freezeflow sign --new-key FILE`."
        raise UsageError("this is no ed25519 key", where=where, hint=hint)
    return signers.CryptoSigner(found)


def private_key(key: str | None) -> tuple[str, bytes]:
    """Where the private key is from, and its PEM text.

    Raises:
        UsageError: There is none.
        FreezeflowError: Its file cannot be read.
    """
    text = key if key is not None else os.environ.get(KEY_VARIABLE, "")
    if not text:
        raise UsageError(
            "there is no key to sign with",
            hint=f"Name its file with --key, or give it in {KEY_VARIABLE}.",
        )
    if text.startswith(_PEM):
        return KEY_VARIABLE, text.encode()
    return text, _read(Path(text))


# ---------------------------------------------------------------- verifying


class SignatureReport(NamedTuple):
    """What a check of a release's signatures found.

    Args:
        signed: Signatures that are good.
        unchecked: Signatures by keys that were not given.
        faults: What is wrong.
    """

    signed: tuple[Signed, ...]
    unchecked: tuple[Unchecked, ...]
    faults: tuple[Fault, ...]


def verify_signatures(tree: Tree, folder: Path, keys: Sequence[str]) -> SignatureReport:
    """Checks every signature of a release; each given key must have signed the whole of it.

    Args:
        tree: The release.
        folder: Its signatures.
        keys: Files of public keys.

    Raises:
        MissingExtra: securesystemslib is not installed, and there is something to check.
        UsageError: A public key cannot be read.
    """
    files = sorted(folder.glob(f"*{_ENDING}")) if folder.is_dir() else []
    if not (files or keys):
        return SignatureReport((), (), ())
    known = {key.keyid: (key, name) for name in keys for key in [_public_key(name)]}
    signed: list[Signed] = []
    unchecked: list[Unchecked] = []
    faults: list[Fault] = []
    for file in files:
        try:
            found = list(_check_envelope(file, tree, known))
        except _Bad as bad:
            faults.append(Fault(file.name, str(bad)))
            continue
        signed += [item for item in found if isinstance(item, Signed)]
        unchecked += [item for item in found if isinstance(item, Unchecked)]
    whole = {item.keyid for item in signed if item.what == SUMS}
    for keyid, (_, name) in known.items():
        if keyid not in whole:
            faults.append(Fault(name, f"this key ({keyid[:_DIGITS]}) has not signed the release"))
    return SignatureReport(tuple(signed), tuple(unchecked), tuple(faults))


class _Bad(Exception):
    """A signature that is not good, in words."""


def _check_envelope(
    file: Path, tree: Tree, known: dict[str, tuple[SSlibKey, str]]
) -> Iterator[Signed | Unchecked]:
    envelope = _envelope(file)
    short = {keyid[:_DIGITS] for keyid in known}
    what = next((name for name in _SIGNED if _stem(name) == file.name.split(".")[0]), None)
    if what is None or what not in tree.open:
        raise _Bad("signs nothing that is in the release")
    if envelope.payload_type != _SIGNED[what] or envelope.payload != tree.read(what):
        raise _Bad(f"signs another {what} than this one")
    named = file.name.split(".")[1]
    for keyid, signature in envelope.signatures.items():
        if keyid[:_DIGITS] != named or (keyid not in known and named in short):
            raise _Bad("names another key than its file does")
        if keyid not in known:
            yield Unchecked(file.name, keyid)
            continue
        key, name = known[keyid]
        try:
            key.verify_signature(signature, envelope.pae())
        except _unverified() as error:
            raise _Bad(f"the signature by {name} is not good") from error
        yield Signed(what, keyid, name)


def _stem(name: str) -> str:
    return PurePosixPath(name).stem


def _envelope(file: Path) -> Envelope:
    data = _read(file)
    try:
        found = _dsse().Envelope.from_dict(json.loads(data))
        if json_bytes(found.to_dict()) != data:
            raise _Bad("is not as it was written")
    except (ValueError, KeyError, TypeError, AttributeError, _format_error()) as error:
        raise _Bad(f"is no DSSE envelope: {error}") from None
    return found


def _public_key(name: str) -> SSlibKey:
    signers = _signers()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        found = load_pem_public_key(_read(Path(name)))
    except ValueError as error:
        hint = "It is a PEM file, as `freezeflow sign --new-key` writes it."
        raise UsageError(f"the public key cannot be read: {error}", where=name, hint=hint) from None
    if not isinstance(found, Ed25519PublicKey):
        raise UsageError("this is no ed25519 key", where=name)
    return signers.SSlibKey.from_crypto(found)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES)
    except OSError as error:
        raise reading_failed(error, path) from error


# ---------------------------------------------------------------- the library


def _dsse() -> Any:
    _signers()
    from securesystemslib import dsse

    return dsse


def _signers() -> Any:
    try:
        import cryptography  # noqa: F401  which securesystemslib signs with
        from securesystemslib import signer
    except ImportError:
        raise missing("sign", "Signatures need securesystemslib") from None
    return signer


def _unverified() -> type[Exception]:
    from securesystemslib import exceptions

    found: type[Exception] = exceptions.UnverifiedSignatureError
    return found


def _format_error() -> type[Exception]:
    from securesystemslib import exceptions

    found: type[Exception] = exceptions.FormatError
    return found


def missing(extra: str, what: str) -> FreezeflowError:
    """The error for a library that an extra brings."""
    return MissingExtra(
        f"{what}, which is not installed", hint=f"pip install 'freezeflow[{extra}]'"
    )
