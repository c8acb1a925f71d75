"""Patterns of paths: what they find, and a digest of that, by which a kept plan knows it again.

``*``, ``?`` and ``[...]`` stand for parts of one name, ``**`` for any number of folders; names that
begin with a dot are found only where the pattern has the dot. (Python's `glob` has these rules.)
"""

from __future__ import annotations

import glob
import os

from freezeflow.values import Digest


def is_pattern(text: str) -> bool:
    """Whether a path has wildcards."""
    return glob.has_magic(text)


def find(pattern: str, folder: str) -> list[str]:
    """What a pattern finds, as absolute paths, sorted.

    Args:
        pattern: It is relative to the folder, or absolute.
        folder: An absolute folder.
    """
    found = glob.iglob(pattern, root_dir=folder, recursive=True)
    return sorted({os.path.normpath(os.path.join(folder, path)) for path in found})


def digest_of(found: list[str]) -> str:
    """A digest of what a pattern found."""
    return Digest.of(b"\0".join(map(os.fsencode, found))).hex


def stem_parts(pattern: str, path: str, folder: str) -> list[str]:
    """The parts of a path in whose place the pattern has wildcards.

    ``models/*/saved`` found ``models/resnet/saved``: ``["resnet"]``. From the first ``**`` to the
    last wildcard all parts count, because it cannot be told which part stands for which.
    """
    wanted = os.path.normpath(os.path.join(folder, pattern)).split(os.sep)
    parts = path.split(os.sep)
    wild = [number for number, part in enumerate(wanted) if is_pattern(part)]
    if not wild:
        return parts[-1:]
    if "**" not in wanted and len(wanted) == len(parts):
        return [parts[number] for number in wild]
    after = len(wanted) - 1 - wild[-1]
    return parts[wild[0] : len(parts) - after]
