"""Who signed what: DSSE with ed25519, and OpenSSF's model-signing."""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from freezeflow.api import releases
from freezeflow.errors import MissingExtra, UsageError, ValidationFailed
from freezeflow.release import signing
from freezeflow.release.signing import KEY_VARIABLE, new_key, signatures_of


def envelopes(release):
    return {path.name: path.read_bytes() for path in sorted(signatures_of(release).iterdir())}


def test_signing_leaves_the_release_as_it_is(signed, released):
    for path in released.rglob("*"):
        if path.is_file():
            assert (signed / path.relative_to(released)).read_bytes() == path.read_bytes()
    names = sorted(name.split(".")[0] for name in envelopes(signed))
    assert names == ["SHA256SUMS", "provenance", "test-result"]


def test_the_same_signature_every_time(signed, tmp_path):
    before = envelopes(signed)
    shutil.rmtree(signatures_of(signed))
    releases.sign(signed, key=tmp_path / "key")
    assert envelopes(signed) == before


def test_the_envelopes_are_dsse(signed, tmp_path):
    # Checked here without securesystemslib: https://github.com/secure-systems-lab/dsse.
    key = serialization.load_pem_public_key((tmp_path / "key.pub").read_bytes())
    for name, data in envelopes(signed).items():
        envelope = json.loads(data)
        payload = base64.b64decode(envelope["payload"])
        kind = envelope["payloadType"].encode()
        if not name.startswith("SHA256SUMS"):
            assert kind == b"application/vnd.in-toto+json"
            assert json.loads(payload)["_type"] == "https://in-toto.io/Statement/v1"
        encoded = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
        (signature,) = envelope["signatures"]
        key.verify(base64.b64decode(signature["sig"]), encoded)


def test_verify_says_who_signed_what(signed, tmp_path, cli):
    found = releases.verify(signed, keys=[tmp_path / "key.pub"])
    assert found.faults == ()
    assert sorted(item.what for item in found.signatures.signed) == [
        "SHA256SUMS",
        "attestations/provenance.json",
        "attestations/test-result.json",
    ]
    assert {item.key for item in found.signatures.signed} == {str(tmp_path / "key.pub")}
    # Without a key it is said that nothing was checked.
    assert releases.verify(signed).faults == ()
    assert len(releases.verify(signed).signatures.unchecked) == 3
    done = cli("verify", str(signed), "--key", str(tmp_path / "key.pub"))
    assert done.returncode == 0
    assert f"SHA256SUMS is signed by {tmp_path / 'key.pub'} (" in done.stdout


def test_two_people_sign(signed, tmp_path):
    new_key(tmp_path / "second")
    releases.sign(signed, key=tmp_path / "second")
    keys = [tmp_path / "key.pub", tmp_path / "second.pub"]
    found = releases.verify(signed, keys=keys)
    assert found.faults == ()
    assert len(found.signatures.signed) == 6


def test_tar_and_image_have_the_same_signatures(signed, released, tmp_path):
    shutil.copy(released.with_name("release.tar"), tmp_path)
    shutil.copytree(released.with_name("release.oci"), tmp_path / "release.oci")
    for name in ("release.tar", "release.oci"):
        assert releases.verify(tmp_path / name, keys=[tmp_path / "key.pub"]).faults == ()


def test_a_key_that_has_not_signed(signed, tmp_path):
    _, public = new_key(tmp_path / "other")
    faults = releases.verify(signed, keys=[public]).faults
    assert ["has not signed the release" in fault.text for fault in faults] == [True]
    shutil.rmtree(signatures_of(signed))
    assert releases.verify(signed, keys=[tmp_path / "key.pub"]).faults


def test_any_flipped_byte_of_a_signature_is_found(signed, tmp_path):
    for path in signatures_of(signed).iterdir():
        data = path.read_bytes()
        for place in range(0, len(data), max(1, len(data) // 40)):
            path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
            assert releases.verify(signed, keys=[tmp_path / "key.pub"]).faults, (path.name, place)
        path.write_bytes(data)


def test_a_signature_of_another_release(signed, tmp_path):
    readme = signed / "README.md"
    readme.write_text(readme.read_text() + "more\n")
    sums = signed / "SHA256SUMS"
    from freezeflow.store.hashing import sha256_of

    lines = [
        f"{sha256_of(readme.read_bytes())}  README.md" if line.endswith("  README.md") else line
        for line in sums.read_text().splitlines()
    ]
    sums.write_text("\n".join(lines) + "\n")
    faults = releases.verify(signed, keys=[tmp_path / "key.pub"]).faults
    assert any("signs another SHA256SUMS than this one" in fault.text for fault in faults)


def test_what_is_damaged_is_not_signed(signed, tmp_path):
    (signed / "README.md").write_text("another one")
    with pytest.raises(ValidationFailed, match=r"README\.md"):
        releases.sign(signed, key=tmp_path / "key")


# ---------------------------------------------------------------- keys


def test_keys_come_from_files_or_the_environment(released, tmp_path, monkeypatch):
    private, public = new_key(tmp_path / "key")
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    with pytest.raises(UsageError, match="of that name"):
        new_key(tmp_path / "key")
    found = []
    for number, value in enumerate((str(private), private.read_text())):
        monkeypatch.setenv(KEY_VARIABLE, value)
        to = tmp_path / f"signatures-{number}"
        releases.sign(released, signatures=to)
        assert releases.verify(released, keys=[public], signatures=to).faults == ()
        found.append({path.name: path.read_bytes() for path in to.iterdir()})
    assert found[0] == found[1]
    monkeypatch.delenv(KEY_VARIABLE)
    with pytest.raises(UsageError, match="no key"):
        releases.sign(released, signatures=tmp_path / "s")


def test_encrypted_keys(released, tmp_path, monkeypatch):
    private, public = new_key(tmp_path / "key")
    found = serialization.load_pem_private_key(private.read_bytes(), None)
    locked = tmp_path / "locked"
    locked.write_bytes(
        found.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"sesame"),
        )
    )
    with pytest.raises(UsageError, match="cannot be read"):
        releases.sign(released, key=locked, signatures=tmp_path / "s")
    monkeypatch.setenv("FREEZEFLOW_SIGNING_PASSWORD", "sesame")
    releases.sign(released, key=locked, signatures=tmp_path / "s")
    assert releases.verify(released, keys=[public], signatures=tmp_path / "s").faults == ()


def curve_key(folder):
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / "ec", folder / "ec.pub"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return private, public


def test_keys_of_another_kind_are_refused(signed, tmp_path):
    private, public = curve_key(tmp_path)
    with pytest.raises(UsageError, match="no ed25519 key"):
        releases.sign(signed, key=private)
    with pytest.raises(UsageError, match="no ed25519 key"):
        releases.verify(signed, keys=[public])
    (tmp_path / "bad").write_text("no key")
    with pytest.raises(UsageError, match="cannot be read"):
        releases.verify(signed, keys=[tmp_path / "bad"])


def test_without_the_extra(signed, tmp_path, monkeypatch):
    for name in ("securesystemslib", "model_signing"):
        monkeypatch.setitem(sys.modules, name, None)
    for call in (
        lambda: releases.sign(signed, key=tmp_path / "key"),
        lambda: releases.verify(signed, keys=[tmp_path / "key.pub"]),
        lambda: releases.sign(signed, model_key=tmp_path / "key"),
    ):
        with pytest.raises(MissingExtra, match="not installed") as caught:
            call()
        assert "pip install 'freezeflow[" in caught.value.hint


# ---------------------------------------------------------------- model-signing


def test_model_signings_own_verifier_accepts_the_release(released, tmp_path):
    copy = tmp_path / "release"
    shutil.copytree(released, copy)
    private, public = curve_key(tmp_path)
    (signature,) = releases.sign(copy, model_key=private)
    command = [sys.executable, "-W", "ignore", "-m", "model_signing", "verify", "key"]
    words = ["--signature", str(signature), "--public_key", str(public), str(copy)]

    def theirs():
        environment = {**os.environ, "HOME": str(tmp_path)}
        return subprocess.run(
            [*command, *words], env=environment, capture_output=True, text=True, check=False
        )

    done = theirs()
    assert done.returncode == 0, done.stderr + done.stdout
    found = releases.verify(copy, model_key=public)
    assert found.faults == ()
    assert [item.key for item in found.signatures.signed] == [str(public)]
    (copy / "README.md").write_text("another one")
    assert theirs().returncode != 0
    assert signing.MODEL_SIGNATURE in [
        f.where for f in releases.verify(copy, model_key=public).faults
    ]


def test_model_signing_refuses_what_it_cannot_use(released, signed, tmp_path):
    with pytest.raises(UsageError, match="cannot be used"):
        releases.sign(signed, model_key=tmp_path / "key")
    private, _ = curve_key(tmp_path)
    with pytest.raises(UsageError, match="signs folders"):
        releases.sign(released.with_name("release.tar"), model_key=private)
