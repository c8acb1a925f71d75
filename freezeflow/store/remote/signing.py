"""Signatures of entries: ed25519 (RFC 8032), keys and signatures in base64."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

from freezeflow.errors import MissingExtra

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

# Stands before what is signed, so that a signature of something else is none of an entry.
_DOMAIN = b"freezeflow.entry/1\n"


class KeyPair(NamedTuple):
    """A new pair of keys, each 32 bytes in base64."""

    secret: str
    public: str


def new_key_pair() -> KeyPair:
    """Makes a pair of keys.

    Raises:
        MissingExtra: The library is not installed.
    """
    private = _private(None)
    return KeyPair(b64encode(private.private_bytes_raw()).decode(), _public(private))


def public_key_of(secret: str) -> str:
    """The public key that belongs to a secret one."""
    return _public(_private(secret))


def trusted_keys(given: Sequence[str], own: str) -> tuple[str, ...]:
    """Whose signatures count: the keys given, and one's own; none where there are none.

    Raises:
        MissingExtra: There are some, and the library that checks signatures is not installed.
    """
    keys = tuple(dict.fromkeys([*given, *([own] if own else [])]))
    if keys and find_spec("cryptography") is None:
        raise _missing()
    return keys


def sign(secret: str, payload: bytes) -> str:
    """The signature of an entry's payload."""
    return b64encode(_private(secret).sign(_DOMAIN + payload)).decode()


def is_signed_by(public: str, payload: bytes, signature: str) -> bool:
    """Whether a signature of a payload was made with the secret key that belongs to a public one."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = Ed25519PublicKey.from_public_bytes(b64decode(public))
        key.verify(b64decode(signature, validate=True), _DOMAIN + payload)
    except (InvalidSignature, ValueError):
        return False
    return True


def _private(secret: str | None) -> Ed25519PrivateKey:
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ModuleNotFoundError:
        raise _missing() from None

    if secret is None:
        return Ed25519PrivateKey.generate()
    return Ed25519PrivateKey.from_private_bytes(b64decode(secret))


def _public(private: Ed25519PrivateKey) -> str:
    return b64encode(private.public_key().public_bytes_raw()).decode()


def _missing() -> MissingExtra:
    return MissingExtra(
        "its signatures need the package cryptography",
        hint="pip install 'freezeflow[remote]'",
    )
