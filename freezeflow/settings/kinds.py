"""The types of settings: each makes a value from what a file or an environment variable says.

A file gives TOML's own types, a variable gives a text. What is wrong is raised as `ValueError`, which
ends a sentence that begins with the setting's name: "is no whole number".
"""

from __future__ import annotations

import binascii
import os
import re
from base64 import b64decode
from pathlib import Path

from freezeflow.values import Json

_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")

_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)")
_BYTES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_BYTES |= {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BYTES |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_SECONDS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}

_KEY_BYTES = 32


def text(given: Json, base: Path) -> str:
    """Any text."""
    if not isinstance(given, str):
        raise ValueError("is no text")
    return given


def path(given: Json, base: Path) -> Path:
    """A path; one that is relative begins where it is written, ``~`` is the home folder."""
    if not isinstance(given, str) or not given:
        raise ValueError("is no path")
    return Path(os.path.normpath(base / Path(given).expanduser()))


def count(given: Json, base: Path) -> int:
    """A whole number from 1."""
    if isinstance(given, str) and given.strip().isdecimal():
        given = int(given)
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        raise ValueError("is no whole number from 1")
    return given


def jobs(given: Json, base: Path) -> int:
    """A whole number from 1, or ``auto`` for the cores that this process may use."""
    if given == "auto":
        return len(os.sched_getaffinity(0))
    return count(given, base)


def times(given: Json, base: Path) -> int:
    """A whole number from 0."""
    if isinstance(given, str) and given.strip().isdecimal():
        given = int(given)
    if not isinstance(given, int) or isinstance(given, bool) or given < 0:
        raise ValueError("is no whole number from 0")
    return given


def flag(given: Json, base: Path) -> bool:
    """Yes or no."""
    if isinstance(given, bool):
        return given
    if isinstance(given, str) and given.strip().lower() in _TRUE + _FALSE:
        return given.strip().lower() in _TRUE
    raise ValueError("is neither true nor false")


def size(given: Json, base: Path) -> int:
    """A number of bytes: ``4GB``, ``512MiB``, or a whole number."""
    found = _quantity(given, _BYTES)
    if found is None:
        raise ValueError("is no size, as 500MB is")
    return int(found)


def duration(given: Json, base: Path) -> float:
    """Seconds: ``90``, ``90s``, ``15m``, ``4h``."""
    found = _quantity(given, _SECONDS)
    if not found:
        raise ValueError("is no length of time, as 90s and 4h are")
    return found


def address(given: Json, base: Path) -> str:
    """Where a shared cache is: a URL, or a folder. It holds no password."""
    found = text(given, base)
    scheme, separator, rest = found.partition("://")
    if not separator:
        return str(path(found, base)) if found else ""
    if "@" in rest.partition("/")[0]:
        raise ValueError("holds a user or a password, which come from the environment only")
    if "?" in rest or "#" in rest:
        raise ValueError(
            "holds a query, which may be a secret: these come from the environment only"
        )
    if scheme not in _SCHEMES:
        raise ValueError(f"is no address: there is {', '.join(_SCHEMES)}, or a folder")
    return found


_SCHEMES = ("s3", "gs", "az", "http", "https", "file")


def public_keys(given: Json, base: Path) -> tuple[str, ...]:
    """Public ed25519 keys in base64; in a variable with commas between them."""
    keys = given.split(",") if isinstance(given, str) else given
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError("is no list of public keys")
    return tuple(_key(key) for key in keys if key.strip())


def secret_key(given: Json, base: Path) -> str:
    """A secret ed25519 key in base64; what it is is not told when it is wrong."""
    return _key(text(given, base))


def _key(given: str) -> str:
    try:
        whole = len(b64decode(given.strip(), validate=True)) == _KEY_BYTES
    except (binascii.Error, ValueError):
        whole = False
    if not whole:
        raise ValueError(
            "is no ed25519 key (32 bytes in base64); `freezeflow cache new-key` makes one"
        )
    return given.strip()


def _quantity(given: Json, units: dict[str, int]) -> float | None:
    """A number times its unit; None when it is neither."""
    if isinstance(given, int | float) and not isinstance(given, bool):
        return float(given) if given >= 0 else None
    match = _QUANTITY.fullmatch(given.strip()) if isinstance(given, str) else None
    if match is None or match[2].lower() not in units:
        return None
    return float(match[1]) * units[match[2].lower()]
