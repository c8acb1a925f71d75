"""Signatures as OpenSSF's model-signing makes and checks them, for those who use its tools.

One file, ``model.sig`` beside the DSSE envelopes: a sigstore bundle over every file of the release
folder, by an elliptic curve key (NIST P-256, P-384, P-521). An ECDSA signature holds a random number, so it
is another one every time. Source of the format: https://github.com/sigstore/model-transparency.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from freezeflow.errors import UsageError
from freezeflow.release.signing import MODEL_SIGNATURE, PASSWORD_VARIABLE, missing


def sign_model(folder: Path, to: Path, key: str) -> Path:
    """Signs a release folder.

    Args:
        folder: The release.
        to: The folder for the signature.
        key: The private key's file.

    Raises:
        MissingExtra: model-signing is not installed.
        UsageError: The key cannot be used.
    """
    signing, _ = _library()
    _check_kind(key)
    signature = to / MODEL_SIGNATURE
    to.mkdir(parents=True, exist_ok=True)
    password = os.environ.get(PASSWORD_VARIABLE)
    try:
        config = signing.Config().use_elliptic_key_signer(private_key=key, password=password)
        config.sign(folder, signature)
    except (ValueError, TypeError, OSError) as error:
        raise UsageError(f"the key cannot be used: {error}", where=key) from None
    return signature


def _check_kind(key: str) -> None:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    password = os.environ.get(PASSWORD_VARIABLE)
    try:
        data = Path(key).read_bytes()
        found = load_pem_private_key(data, password.encode() if password else None)
    except (ValueError, TypeError, OSError) as error:
        raise UsageError(f"the key cannot be read: {error}", where=key) from None
    if not isinstance(found, EllipticCurvePrivateKey):
        hint = "model-signing takes an elliptic curve key: P-256, P-384 or P-521."
        raise UsageError("the key cannot be used: it is of another kind", where=key, hint=hint)


def verify_model(folder: Path, signature: Path, key: str) -> str:
    """What is wrong with a signature of a release folder; empty when it is good.

    Raises:
        MissingExtra: model-signing is not installed.
    """
    _, verifying = _library()
    from cryptography.exceptions import InvalidSignature

    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=key)
        config.verify(folder, signature)
    except InvalidSignature:
        return "the signature is not good"
    except (ValueError, TypeError, OSError) as error:
        return str(error) or "the signature cannot be read"
    return ""


def _library() -> tuple[Any, Any]:
    try:
        # model-signing needs it and does not say so.
        import OpenSSL  # noqa: F401
        from model_signing import signing, verifying
    except ImportError:
        raise missing("model-signing", "This needs model-signing and pyOpenSSL") from None
    return signing, verifying
