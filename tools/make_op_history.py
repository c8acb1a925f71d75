#!/usr/bin/env python3
"""Writes what came into TensorFlow's op registry with which release.

    python tools/make_op_history.py            # takes a few minutes, some GB of downloads, a C compiler

For each release, pip downloads the wheel, and the wheel's own C library tells its ops
(``TF_GetAllOpList``) in a process of its own; `version.h` of the wheel tells the number that graphs of
that release carry. What is written, under freezeflow/:

    graph/data/history.json
        releases: release to GraphDef version, the oldest first
        ops: op to the release that had it first; ops of the oldest release are left out
        missing: release to ops of older releases that it does not have
        attrs: op to attribute to the release that had it first; those the op always had are left out
"""

import ctypes
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import zipfile

TARGET = pathlib.Path(__file__).resolve().parent.parent / "freezeflow/graph/data/history.json"

# Release, the Python that its wheel is for, and the platform's tag.
RELEASES = [
    # Libraries of releases before this one do not load any more.
    ("1.15.5", "3.7", "manylinux2010"),
    ("2.0.4", "3.7", "manylinux2010"),
    ("2.1.4", "3.7", "manylinux2010"),
    ("2.2.3", "3.8", "manylinux2010"),
    ("2.3.4", "3.8", "manylinux2010"),
    ("2.4.4", "3.8", "manylinux2010"),
    ("2.5.3", "3.9", "manylinux2010"),
    ("2.6.5", "3.9", "manylinux2010"),
    ("2.7.4", "3.9", "manylinux2010"),
    ("2.8.4", "3.10", "manylinux2010"),
    ("2.9.3", "3.10", "manylinux2014"),
    ("2.10.1", "3.10", "manylinux2014"),
    ("2.11.1", "3.10", "manylinux2014"),
    ("2.12.1", "3.10", "manylinux2014"),
    ("2.13.1", "3.10", "manylinux2014"),
    ("2.14.1", "3.10", "manylinux2014"),
    ("2.15.1", "3.10", "manylinux2014"),
    ("2.16.2", "3.11", "manylinux2014"),
    ("2.17.1", "3.11", "manylinux2014"),
    ("2.18.1", "3.11", "manylinux2014"),
    ("2.19.1", "3.11", "manylinux2014"),
    ("2.20.0", "3.11", "manylinux2014"),
    ("2.21.0", "3.11", "manylinux_2_27"),
]

# Variables of other Pythons that old libraries name; none of them matters for the registry.
MISSING = "int _Py_CheckRecursionLimit = 1000; void *_PyThreadState_Current;"

VERSION = re.compile(rb"#define TF_GRAPH_DEF_VERSION (\d+)")


class Buffer(ctypes.Structure):
    """``TF_Buffer`` of TensorFlow's C API."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("length", ctypes.c_size_t),
        ("deallocator", ctypes.c_void_p),
    ]


def print_ops(folder):
    """Writes the OpList of the libraries in a folder to standard output; never comes back."""
    mode = ctypes.RTLD_GLOBAL | os.RTLD_LAZY
    for file in sorted(folder.rglob("libtensorflow_framework.so*")):
        ctypes.CDLL(str(file), mode=mode)
    files = [*folder.rglob("libtensorflow_cc.so*"), *folder.rglob("_pywrap_tensorflow_internal.so")]
    for file in sorted(files):
        try:
            get_ops = ctypes.CDLL(str(file), mode=mode).TF_GetAllOpList
        except (OSError, AttributeError) as error:
            print(error, file=sys.stderr)
            continue
        get_ops.restype = ctypes.POINTER(Buffer)
        buffer = get_ops().contents
        sys.stdout.buffer.write(ctypes.string_at(buffer.data, buffer.length))
        sys.stdout.flush()
        os._exit(0)  # libraries of another Python are not to be taken down in order
    os._exit(1)


def download(release, python, platform, folder):
    """The wheel of a release; the smaller one for CPUs where there is one."""
    wanted = ["--no-deps", "--only-binary", ":all:", "--python-version", python, "-d", folder]
    for package in ("tensorflow-cpu", "tensorflow"):
        for tag in {platform: 0, "manylinux2014": 0, "manylinux_2_17": 0, "manylinux2010": 0}:
            command = ["pip", "download", "-q", *wanted, "--platform", f"{tag}_x86_64"]
            if not subprocess.run(
                [sys.executable, "-m", *command, f"{package}=={release}"],
                check=False,
                capture_output=True,
            ).returncode:
                (wheel,) = pathlib.Path(folder).glob("*.whl")
                return wheel
    raise SystemExit(f"there is no wheel of {release}")


def ops_of(wheel, folder):
    """GraphDef version and OpList of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        headers = b"".join(
            archive.read(name) for name in names if name.endswith(("/version.h", "_version.h"))
        )
        archive.extractall(folder, [name for name in names if ".so" in name])
    (folder / "missing.c").write_text(MISSING)
    shim = folder / "missing.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", shim, folder / "missing.c"], check=True)
    data = subprocess.run(
        [sys.executable, __file__, "--ops-of", folder],
        check=True,
        capture_output=True,
        env={**os.environ, "LD_PRELOAD": str(shim), "TF_CPP_MIN_LOG_LEVEL": "3"},
    ).stdout
    from tensorflow.core.framework import op_def_pb2  # not where an old library is loaded

    return int(VERSION.search(headers)[1]), op_def_pb2.OpList.FromString(data)


def main():
    releases, first_ops, first_attrs, missing = {}, {}, {}, {}
    for release, python, platform in RELEASES:
        name = release.rpartition(".")[0]
        with tempfile.TemporaryDirectory() as folder:
            wheel = download(release, python, platform, folder)
            number, ops = ops_of(wheel, pathlib.Path(folder))
        releases[name] = number
        for op in ops.op:
            known = op.name in first_ops
            first_ops.setdefault(op.name, name)
            for attr in op.attr:
                since = name if known else first_ops[op.name]
                first_attrs.setdefault(op.name, {}).setdefault(attr.name, since)
        gone = sorted(set(first_ops) - {op.name for op in ops.op})
        if gone:
            missing[name] = gone
        print(f"{release}: GraphDef {number}, {len(ops.op)} ops", flush=True)
    oldest = next(iter(releases))
    later_attrs = {
        op: {attr: since for attr, since in sorted(attrs.items()) if since != first_ops[op]}
        for op, attrs in sorted(first_attrs.items())
    }
    history = {
        "releases": releases,
        "ops": {op: since for op, since in sorted(first_ops.items()) if since != oldest},
        "attrs": {op: attrs for op, attrs in later_attrs.items() if attrs},
        "missing": missing,
    }
    TARGET.write_text(json.dumps(history, indent=0, separators=(",", ":")) + "\n")
    print(f"{TARGET}: {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--ops-of"]:
        print_ops(pathlib.Path(sys.argv[2]))
    main()
