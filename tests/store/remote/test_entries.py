"""Entries: nothing that they say is believed before it is checked."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from freezeflow.store.actions import Outputs, PublishedFile, canonical_json, key_of
from freezeflow.store.remote.entries import (
    Entry,
    NotAccepted,
    Weight,
    decode_entry,
    encode_entry,
    entry_path,
    key_in_path,
    may_publish,
)
from freezeflow.store.remote.signing import new_key_pair, public_key_of
from freezeflow.values import Digest

GRAPH, RECORD, OWNED, WEIGHT = (Digest.of(name) for name in (b"g", b"r", b"o", b"w"))
PREIMAGE = {"stage": "export", "output_files": ["build/out.pb"], "source": None}


def make_entry(**changes: Any) -> Entry:
    outputs = Outputs(
        graph=GRAPH,
        record=RECORD,
        owned=(OWNED,),
        files=(PublishedFile(path="build/out.pb", sha256="0" * 64, nbytes=5),),
    )
    entry = Entry(
        key=key_of(PREIMAGE),
        preimage=PREIMAGE,
        outputs=outputs,
        facts={"nodes": 3},
        sizes={GRAPH: 1, RECORD: 2, OWNED: 3},
        weights=(Weight(WEIGHT, 7, "variables/data", 9), Weight(OWNED, 7, None, 0)),
    )
    return dataclasses.replace(entry, **changes)


def test_what_was_written_is_read() -> None:
    entry = make_entry()
    assert decode_entry(encode_entry(entry), entry.key) == entry
    assert key_in_path(entry_path(entry.key)) == entry.key
    assert key_in_path("v1/entries/unsigned/ab/cd.json") is None


def test_any_flipped_bit_is_damage() -> None:
    data = encode_entry(make_entry())
    for place in range(0, len(data) - 1, 7):
        flipped = bytearray(data)
        flipped[place] ^= 4
        with pytest.raises(NotAccepted, match="damaged"):
            decode_entry(bytes(flipped), make_entry().key)
    for length in (0, 10, len(data) - 5):
        with pytest.raises(NotAccepted):
            decode_entry(data[:length], make_entry().key)


def test_an_entry_of_another_step_is_none() -> None:
    with pytest.raises(NotAccepted, match="another step"):
        decode_entry(encode_entry(make_entry()), Digest("0" * 64))


def rewritten(**changes: Any) -> bytes:
    """An entry with other fields and a digest that fits."""
    payload = json.loads(encode_entry(make_entry()).partition(b"\n")[0])
    data = canonical_json({**payload, **changes})
    return data + b"\n" + Digest.of(data).hex.encode() + b"\n"


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "freezeflow.entry/2"},
        {"sizes": {}},
        {"sizes": {"../../x": 3}},
        {"sizes": {GRAPH.hex: -1, RECORD.hex: 2, OWNED.hex: 3}},
        {"sizes": []},
        {
            "outputs": {
                "graph": "../../../etc/passwd",
                "record": RECORD.hex,
                "files": [],
                "owned": [],
                "log": None,
            }
        },
        {"outputs": None},
        {"weights": [["x", 1, None, 0]]},
        {"weights": [[WEIGHT.hex, 1, 5, 0]]},
        {"weights": [[WEIGHT.hex, True, None, 0]]},
        {"weights": 5},
        {"facts": 5},
        {"preimage": None},
    ],
    ids=str,
)
def test_a_lying_entry_is_none(changes: dict[str, Any]) -> None:
    with pytest.raises(NotAccepted):
        decode_entry(rewritten(**changes), make_entry().key)


def test_an_entry_publishes_only_files_of_its_step() -> None:
    outputs = dataclasses.replace(
        make_entry().outputs, files=(PublishedFile(path="../.bashrc", sha256="0" * 64, nbytes=5),)
    )
    with pytest.raises(NotAccepted, match=r"publishes '\.\./\.bashrc'"):
        decode_entry(encode_entry(make_entry(outputs=outputs)), make_entry().key)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("build/out.pb", True),
        ("build/out.manifest.json", True),
        ("build/out", True),
        ("build/outer.pb", False),
        ("build/other.pb", False),
        ("build/out.pb/below", False),
        ("out.pb", False),
        ("../build/out.pb", False),
        ("build/../out.pb", False),
        ("/build/out.pb", False),
        ("", False),
    ],
)
def test_files_of_a_step(path: str, allowed: bool) -> None:
    assert may_publish(path, ["build/out.pb"]) is allowed


def test_signatures() -> None:
    ours, others = new_key_pair(), new_key_pair()
    assert public_key_of(ours.secret) == ours.public
    entry = make_entry()
    signed = encode_entry(entry, ours.secret)
    assert decode_entry(signed, entry.key, [ours.public]) == entry
    assert decode_entry(signed, entry.key, [others.public, ours.public]) == entry
    assert decode_entry(signed, entry.key) == entry
    with pytest.raises(NotAccepted, match="no signature"):
        decode_entry(encode_entry(entry), entry.key, [ours.public])
    with pytest.raises(NotAccepted, match="not trusted"):
        decode_entry(signed, entry.key, [others.public])


def test_a_signature_is_of_one_entry_and_one_key() -> None:
    ours, others = new_key_pair(), new_key_pair()
    entry, other = make_entry(), make_entry(facts={"nodes": 4})
    signature = encode_entry(other, ours.secret).splitlines()[2]
    forged = encode_entry(entry) + signature + b"\n"
    with pytest.raises(NotAccepted, match="does not fit"):
        decode_entry(forged, entry.key, [ours.public])
    theirs = encode_entry(entry, others.secret).splitlines()[2].split()
    renamed = b" ".join([theirs[0], ours.public.encode(), theirs[2]])
    with pytest.raises(NotAccepted, match="does not fit"):
        decode_entry(encode_entry(entry) + renamed + b"\n", entry.key, [ours.public])
    with pytest.raises(NotAccepted, match="does not fit"):
        words = b"ed25519 " + ours.public.encode() + b" abc\n"
        decode_entry(encode_entry(entry) + words, entry.key, [ours.public])
    with pytest.raises(NotAccepted, match="damaged"):
        decode_entry(encode_entry(entry) + b"more", entry.key)


def test_each_signer_has_a_folder() -> None:
    pair = new_key_pair()
    assert entry_path(Digest("0" * 64), pair.public) != entry_path(Digest("0" * 64))
