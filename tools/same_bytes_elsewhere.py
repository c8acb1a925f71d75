"""Do other versions of Python and TensorFlow give the same bytes? Run by hand; see docs/release.md.

    python -m tools.same_bytes_elsewhere /tmp/py313/bin/python /tmp/tf220/bin/python

Each is the interpreter of an environment into which this project is installed. The models of
``tests/test_same_bytes.py`` are built here, once, and frozen there, without fold and with it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.release.models import write_all
from tests.test_same_bytes import MODELS, RECIPE, digests

_VERSIONS = """
import platform
from importlib.metadata import version
print("Python", platform.python_version(), "TensorFlow", version("tensorflow"), "NumPy", version("numpy"),
      "protobuf", version("protobuf"))
"""


def main() -> int:
    """Freezes everywhere, and tells which files differ from those of this interpreter."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_all(folder / "models")
        found = {python: build(python, folder) for python in [sys.executable, *sys.argv[1:]]}
    first = found[sys.executable]
    for python, files in found.items():
        different = sorted(file for file in first if files.get(file) != first[file])
        free = [file for file in different if ".unfolded." in file]
        print(versions(python))
        print(f"  without TensorFlow: {len(MODELS)} models, {len(free)} files differ: {free}")
        print(
            f"  with fold: {len(different) - len(free)} of {len(first)} files differ: {different}"
        )
    return 0


def build(python: str, folder: Path) -> dict[str, str]:
    """What the recipe gives there: file to SHA-256."""
    project = folder / Path(python).parts[-3]
    project.mkdir()
    shutil.copytree(folder / "models", project / "models")
    (project / "recipe.yaml").write_text(RECIPE)
    environment = {**os.environ, "FREEZEFLOW_CACHE_DIR": str(project / "cache")}
    command = [python, "-m", "freezeflow", "run", "recipe.yaml"]
    subprocess.run(command, cwd=project, env=environment, check=True, capture_output=True)
    return digests(project / "build")


def versions(python: str) -> str:
    """The versions that are installed there."""
    done = subprocess.run([python, "-c", _VERSIONS], capture_output=True, text=True, check=True)
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
