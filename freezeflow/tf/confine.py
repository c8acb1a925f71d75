"""Confines this process before it runs anything of a model: limits, no writing outside, no network.

Resource limits work everywhere. Landlock (Linux 5.13 on, no privilege needed) limits where files may
be written and, from its fourth version, TCP; a network namespace takes the network away where the
kernel lets us have one. What was in force is recorded, because it is part of a verdict.
Source of the numbers: ``linux/landlock.h``, ``linux/sched.h``, and the syscall tables.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from freezeflow.values import Json

_CREATE_RULESET = 444
_ADD_RULE = 445
_RESTRICT_SELF = 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1
_SET_NO_NEW_PRIVS = 38

_WRITE_FILE = 1 << 1
_WRITES = (
    _WRITE_FILE
    | 1 << 4  # remove a folder
    | 1 << 5  # remove a file
    | 1 << 6  # make a character device
    | 1 << 7  # make a folder
    | 1 << 8  # make a file
    | 1 << 9  # make a socket
    | 1 << 10  # make a pipe
    | 1 << 11  # make a block device
    | 1 << 12  # make a symbolic link
)
_REFER = 1 << 13
_TRUNCATE = 1 << 14
_TCP = 1 << 0 | 1 << 1  # bind, connect
_SCOPES = 1 << 0 | 1 << 1  # abstract unix sockets, signals

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000

_DEVICES = (Path("/dev/null"),)


class _Ruleset(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


_in_force: dict[str, Json] | None = None


def in_force() -> dict[str, Json] | None:
    """What `confine` put in force in this process; None where it was not called."""
    return _in_force


def adopt(record: dict[str, Json] | None) -> None:
    """Notes what a parent process put in force; confinement is inherited, the record is not."""
    global _in_force
    _in_force = record


def confine(
    writable: Sequence[Path], *, memory_bytes: int | None, cpu_seconds: int | None
) -> dict[str, Json]:
    """Confines this process and every process that it starts; there is no way back.

    Temporary files and the home folder move into the first writable folder.

    Args:
        writable: Folders, existing, in which files may be written.
        memory_bytes: Private memory that the process may have, in bytes.
        cpu_seconds: Processor time after which the kernel ends the process.

    Returns:
        What is in force, as JSON: ``writes`` (``landlock`` or ``not confined``), ``landlock`` (its
        version, 0 without), ``network`` (``namespace``, ``no tcp``, or ``not confined``),
        ``memory_bytes`` and ``cpu_seconds`` (null where there is no limit).
    """
    global _in_force
    home = str(writable[0])
    os.environ.update(HOME=home, TMPDIR=home)
    tempfile.tempdir = home
    own_network = _leave_network()
    version = _landlock(writable)
    _in_force = {
        "writes": "landlock" if version else "not confined",
        "landlock": version,
        "network": "namespace" if own_network else "no tcp" if version >= 4 else "not confined",
        "memory_bytes": _limit("RLIMIT_DATA", memory_bytes),
        "cpu_seconds": _limit("RLIMIT_CPU", cpu_seconds),
    }
    _limit("RLIMIT_CORE", 0)
    return _in_force


def _limit(name: str, value: int | None) -> int | None:
    """Sets a resource limit; gives the one that is in force, None where there is none."""
    number = getattr(resource, name)
    _, most = resource.getrlimit(number)
    if value is not None:
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(number, (value, value))
    soft, _ = resource.getrlimit(number)
    return None if soft == resource.RLIM_INFINITY else soft


def _leave_network() -> bool:
    """Moves into a network namespace that has no network; False where the kernel refuses."""
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) == 0:
        return True
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        return False
    _keep_identity(user, group)
    return True


def _keep_identity(user: int, group: int) -> None:
    """Maps the user into the new namespace as himself, so that files stay his."""
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    except OSError:
        # Rights to files do not depend on it; only the ids that are shown do.
        return


def _landlock(writable: Sequence[Path]) -> int:
    """Confines writing to the folders; the version of Landlock in force, 0 where there is none."""
    if not sys.platform.startswith("linux"):
        return 0
    libc = ctypes.CDLL(None, use_errno=True)
    version = int(libc.syscall(_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION))
    if version < 1:
        return 0
    ruleset = _ruleset(libc, version)
    if ruleset < 0:
        return 0
    try:
        rights = _file_rights(version)
        for folder in writable:
            _allow(libc, ruleset, folder, rights)
        for device in _DEVICES:
            if device.exists():
                _allow(libc, ruleset, device, rights & (_WRITE_FILE | _TRUNCATE))
        if libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            return 0
        return 0 if libc.syscall(_RESTRICT_SELF, ruleset, 0) != 0 else version
    finally:
        os.close(ruleset)


def _file_rights(version: int) -> int:
    rights = _WRITES
    if version >= 2:
        rights |= _REFER
    if version >= 3:
        rights |= _TRUNCATE
    return rights


def _ruleset(libc: ctypes.CDLL, version: int) -> int:
    attributes = _Ruleset(
        _file_rights(version), _TCP if version >= 4 else 0, _SCOPES if version >= 6 else 0
    )
    # The kernel refuses a structure longer than it knows only where the rest is not zero.
    return int(
        libc.syscall(_CREATE_RULESET, ctypes.byref(attributes), ctypes.sizeof(attributes), 0)
    )


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, rights: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = _PathBeneath(rights, descriptor)
        if libc.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.byref(rule), 0) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
    finally:
        os.close(descriptor)
