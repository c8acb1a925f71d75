"""Runs tests of extras with the lowest versions that ``pyproject.toml`` allows.

Run it as ``python -m tools.try_lowest FOLDER [EXTRAS ...]``, with ``uv`` on the path. Extras that belong
together get an environment of their own in FOLDER, with the lowest version of each package that is named
directly, theirs and freezeflow's, that can be had together on Python 3.11; the tests' own packages are
the newest. It prints a row for each, and keeps what the tests said in FOLDER.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

PYTHON = "3.11"

# What is run with which extras; the formats are tried together, as most of their tests run all of them.
TESTS = {
    "": ["exports/test_in_tensorflow.py", "exports/test_xla.py", "constructs"],
    "coreml,onnx,openvino,tflite": [
        "exports/test_coreml.py",
        "exports/test_onnx.py",
        "exports/test_openvino.py",
        "exports/test_recurrent.py",
        "exports/test_tflite.py",
        "exports/test_validate_in_runtime.py",
    ],
    "dask": ["engine/test_dask_pool.py"],
    "images": ["proof/test_images.py"],
    "keras2": ["sources/test_keras.py"],
    "model-signing,remote,sign": ["release", "store"],
}
FOR_TESTS = ("hypothesis", "pytest", "pytest-timeout")

# Names of packages in a requirement.
_NAME = re.compile(r"[\w.-]+")


def main() -> None:
    """Makes the environments, and runs the tests."""
    folder = Path(sys.argv[1]).resolve()
    print("| extras | versions | tests |\n| --- | --- | --- |")
    for extra in sys.argv[2:] or TESTS:
        print(f"| {extra or 'none'} | {' | '.join(_tried(folder, extra))} |", flush=True)


def _tried(folder: Path, extra: str) -> tuple[str, str]:
    """The versions, and the last line of the tests."""
    home = folder / (extra or "none")
    python = home / "bin" / "python"
    log = folder / f"{extra or 'none'}.txt"
    if not python.exists():
        _call(["uv", "venv", "-q", "--python", PYTHON, str(home)])
        install = ["uv", "pip", "install", "-q", "--python", str(python)]
        _call([*install, *FOR_TESTS])
        wanted = f"{ROOT}[{extra}]" if extra else str(ROOT)
        _call([*install, "--resolution", "lowest-direct", "-e", wanted])
    tests = [str(Path("tests", name)) for name in TESTS[extra]]
    command = [str(python), "-m", "pytest", "-q", "-m", "not slow", *tests]
    # Warnings of older packages are not looked at.
    with log.open("w") as out:
        subprocess.run([*command, "-W", "default"], cwd=ROOT, stdout=out, stderr=out, check=False)
    last = (log.read_text().splitlines() or [""])[-1]
    return _versions(python, extra), last


def _versions(python: Path, extras: str) -> str:
    """What there is of the packages that extras name; without one, of those that all need."""
    code = "import importlib.metadata as m, json; print(json.dumps(m.requires('freezeflow')))"
    wanted = [f'extra == "{extra}"' for extra in extras.split(",") if extra]
    named = sorted(
        {
            _NAME.match(line)[0]
            for line in json.loads(_call([str(python), "-c", code]))
            if (any(each in line for each in wanted) if wanted else ";" not in line)
        }
    )
    code = "import importlib.metadata as m, json; print(json.dumps([m.version(x) for x in %r]))"
    versions = json.loads(_call([str(python), "-c", code % (named,)]))
    return ", ".join(" ".join(pair) for pair in zip(named, versions, strict=True))


def _call(command: Sequence[str]) -> str:
    done = subprocess.run(
        command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr or done.stdout)
    return done.stdout


if __name__ == "__main__":
    main()
