"""Tools that freezeflow is measured beside, each in an environment of its own that is made here."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Tool(NamedTuple):
    """A tool that is ready, or why it is not.

    Args:
        program: Path of its program; empty where it is not there.
        version: What it says of itself.
        missing: Why it is skipped.
    """

    program: str
    version: str = ""
    missing: str = ""


def from_registry(folder: Path, program: str, packages: Sequence[str]) -> Tool:
    """A program of Python packages, installed into a folder unless it is there already."""
    home = folder / program
    path = home / "bin" / program
    if not path.exists():
        shutil.rmtree(home, ignore_errors=True)
        venv.create(home, with_pip=True)
        command = [str(home / "bin" / "python"), "-m", "pip", "install", "-q", *packages]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            shutil.rmtree(home, ignore_errors=True)
            reason = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
            return Tool("", missing=f"cannot be installed: {reason[:80]}")
    return Tool(str(path), _version([str(path), "--version"]))


def from_system(program: str) -> Tool:
    """A program of the machine."""
    path = shutil.which(program)
    if path is None:
        return Tool("", missing="not installed")
    return Tool(path, _version([path, "--version"]))


def plotting(folder: Path) -> str | None:
    """A Python with matplotlib; None where it cannot be had."""
    home = folder / "plot"
    python = home / "bin" / "python"
    check = [str(python), "-c", "import matplotlib"]
    if python.exists() and not subprocess.run(check, check=False).returncode:
        return str(python)
    venv.create(home, with_pip=True)
    done = subprocess.run([str(python), "-m", "pip", "install", "-q", "matplotlib"], check=False)
    if done.returncode:
        print("matplotlib cannot be installed: no plot", file=sys.stderr)
        return None
    return str(python)


def _version(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout.strip().splitlines() or [""])[0]
