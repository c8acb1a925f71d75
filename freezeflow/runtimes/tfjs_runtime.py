"""TensorFlow.js under Node.js, on its processor backend."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from freezeflow.errors import RuntimeRefused
from freezeflow.runtimes.runtime import Runtime, Subject
from freezeflow.values import Json

PACKAGE = "@tensorflow/tfjs"

_SCRIPT = Path(__file__).with_suffix(".js")


def answer(subject: Subject, calls: Path, answers: Path) -> Mapping[str, Json]:
    """Answers saved calls with a graph model."""
    file, names = subject.file, subject.names
    node, library = shutil.which("node"), installed()
    if node is None or library is None:
        raise RuntimeRefused(missing())
    ends = json.dumps({"inputs": dict(names.inputs), "outputs": dict(names.outputs)})
    command = [node, str(_SCRIPT), str(library), str(file), ends, str(calls), str(answers)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, check=False)
    refused = Path(f"{answers}.refused")
    if refused.is_file():
        raise RuntimeRefused(f"TensorFlow.js: {refused.read_text().splitlines()[0]}")
    if done.returncode != 0:
        raise RuntimeRefused(f"Node.js ended with code {done.returncode}")
    return {}


def installed() -> Path | None:
    """The folder of TensorFlow.js, looked for as Node.js does: here and above, NODE_PATH, globally."""
    for folder in _module_folders():
        if (folder / PACKAGE / "package.json").is_file():
            return folder / PACKAGE
    return None


def missing() -> str:
    """What there is to be installed, in words; empty if all is there."""
    if shutil.which("node") is None:
        return "Node.js is not installed"
    if installed() is None:
        return f"{PACKAGE} is not installed: npm install {PACKAGE}"
    return ""


def version() -> str:
    """The version of TensorFlow.js; empty where it is not installed."""
    found = installed()
    if found is None:
        return ""
    told: str = json.loads((found / "package.json").read_text())["version"]
    return told


def _module_folders() -> Iterator[Path]:
    here = Path.cwd()
    yield from (folder / "node_modules" for folder in (here, *here.parents))
    yield from map(Path, filter(None, os.environ.get("NODE_PATH", "").split(os.pathsep)))
    node = shutil.which("node")
    if node is not None:
        yield Path(node).parent.parent / "lib" / "node_modules"
    yield Path("/usr/local/lib/node_modules")


RUNTIME = Runtime(
    name="tfjs",
    answer=answer,
    tools=(),
    narrowed={
        "float64": "float32",
        "bfloat16": "float32",
        **dict.fromkeys(("int8", "int16", "int64", "uint8", "uint16", "uint32"), "int32"),
    },
    version=version,
    missing=missing,
)
