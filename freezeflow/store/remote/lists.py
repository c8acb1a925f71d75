"""Lists of the entries of a shared cache, for servers that cannot list what they hold.

A list is a small object that names keys of entries. Each signer's lists are numbered from 0, and whoever
pushes adds one with the next number that names what the others do not. Lists are created and never
changed, so two writers never lose each other's keys where the server creates atomically. Where it does
not, the list of one of them is lost, which is seen by reading it again, or made good by the next push
of the same results. A list is believed in nothing but which entries to ask for.
"""

from __future__ import annotations

import json
from collections.abc import Collection

from freezeflow.store.actions import canonical_json
from freezeflow.store.remote.entries import NotAccepted, list_path, seal, unseal
from freezeflow.store.remote.transport import Transport
from freezeflow.values import Digest

FORMAT = "freezeflow.list/1"

# Lists that are read together. When all of so many are missing or do not count, no more are looked for.
_AT_ONCE = 16

# How often the next number is tried, when others take it.
_ATTEMPTS = 16


def encode_list(keys: Collection[Digest], signing_key: str = "") -> bytes:
    """A list as bytes, signed where there is a key."""
    payload = {"format": FORMAT, "keys": sorted(key.hex for key in keys)}
    return seal(canonical_json(payload), signing_key)


def decode_list(data: bytes, trusted_keys: Collection[str] = ()) -> set[Digest]:
    """The keys that a list names.

    Raises:
        NotAccepted: It is damaged, of another format, or not signed as it must be.
    """
    try:
        fields = json.loads(unseal(data, trusted_keys))
        if fields["format"] != FORMAT:
            raise ValueError(fields["format"])
        return {_key(digits) for digits in fields["keys"]}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise NotAccepted(f"is no list of {FORMAT}") from error


def read_lists(
    transport: Transport, signer: str, trusted_keys: Collection[str]
) -> tuple[set[Digest], int]:
    """All keys that a signer's lists name, and the first number behind them that has no list."""
    keys: set[Digest] = set()
    behind = start = 0
    while True:
        paths = [list_path(start + number, signer) for number in range(_AT_ONCE)]
        found = transport.read(paths)
        counting = 0
        for number, path in enumerate(paths):
            if path in found:
                behind = start + number + 1
                try:
                    keys |= decode_list(found[path], trusted_keys)
                    counting += 1
                except NotAccepted:
                    pass  # the entries that it names are named again by who pushes them
        if not counting or paths[-1] not in found:
            return keys, behind
        start += _AT_ONCE


def add_to_lists(
    transport: Transport, keys: Collection[Digest], signer: str, signing_key: str
) -> None:
    """Has every one of some keys named by a list."""
    trusted = (signer,) if signer else ()
    for _ in range(_ATTEMPTS):
        named, behind = read_lists(transport, signer, trusted)
        new = {key for key in keys if key not in named}
        if not new:
            return
        path, data = list_path(behind, signer), encode_list(new, signing_key)
        # What comes back may be another's; then the keys are not named yet.
        transport.create(path, data)


def _key(digits: str) -> Digest:
    if len(digits) != 64 or set(digits) - set("0123456789abcdef"):
        raise ValueError("no digest")
    return Digest(digits)
