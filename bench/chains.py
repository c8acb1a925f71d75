"""The same shape of work for other tools: some models, six stages one after another for each.

Their stages copy a small file, since nothing of it is run: outputs are made here, and each tool is told,
by the means that it has for that, that they are up to date.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bench.environments import Tool

STAGES = 6

# What runs only to see that there is nothing to do, by tool.
COMMANDS = {
    "make": ["{program}", "-s"],
    "doit": ["{program}", "--verbosity", "0"],
    "snakemake": ["{program}", "--cores", "1", "--quiet", "all"],
    "dvc": ["{program}", "repro", "-q"],
}


def prepare(name: str, tool: Tool, models: int, folder: Path) -> None:
    """Makes a folder in which the tool finds everything done."""
    for number in range(models):
        _write(folder / "s0" / f"m{number:05}", f"model {number}")
    stamp = 1_700_000_000
    for stage in range(STAGES + 1):
        for number in range(models):
            path = folder / f"s{stage}" / f"m{number:05}"
            if stage:
                _write(path, f"model {number}")
            os.utime(path, (stamp + stage, stamp + stage))
    _PREPARE[name](tool.program, models, folder)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _steps(models: int) -> Iterator[tuple[str, str, str]]:
    """Name, input and output of each step."""
    for number in range(models):
        for stage in range(STAGES):
            name = f"m{number:05}"
            yield f"{name}_{stage}", f"s{stage}/{name}", f"s{stage + 1}/{name}"


def _make(program: str, models: int, folder: Path) -> None:
    last = " ".join(f"s{STAGES}/m{number:05}" for number in range(models))
    rules = [f"{to}: {source}\n\tcp $< $@\n" for _, source, to in _steps(models)]
    (folder / "Makefile").write_text(f"all: {last}\n" + "".join(rules))


def _doit(program: str, models: int, folder: Path) -> None:
    (folder / "dodo.py").write_text(
        f"""
def task_step():
    for number in range({models}):
        for stage in range({STAGES}):
            source, to = f"s{{stage}}/m{{number:05}}", f"s{{stage + 1}}/m{{number:05}}"
            yield {{
                "name": f"{{number}}_{{stage}}",
                "file_dep": [source],
                "targets": [to],
                "actions": [f"cp {{source}} {{to}}"],
            }}
"""
    )
    _run([program, "reset-dep"], folder)


def _snakemake(program: str, models: int, folder: Path) -> None:
    rules = [
        f"rule s{stage + 1}:\n    input: 's{stage}/{{m}}'\n    output: 's{stage + 1}/{{m}}'\n"
        "    shell: 'cp {input} {output}'\n"
        for stage in range(STAGES)
    ]
    (folder / "Snakefile").write_text(
        f"rule all:\n    input: [f's{STAGES}/m{{n:05}}' for n in range({models})]\n"
        + "".join(rules)
    )
    _run([program, "--cores", "1", "--touch", "--quiet", "all"], folder)


def _dvc(program: str, models: int, folder: Path) -> None:
    _run([program, "init", "--no-scm", "-q"], folder)
    _run([program, "config", "core.analytics", "false"], folder)
    stages = [
        f"  {name}:\n    cmd: cp {source} {to}\n    deps: [{source}]\n    outs: [{to}]\n"
        for name, source, to in _steps(models)
    ]
    (folder / "dvc.yaml").write_text("stages:\n" + "".join(stages))
    _run([program, "commit", "-f", "-q"], folder)


_PREPARE = {"make": _make, "doit": _doit, "snakemake": _snakemake, "dvc": _dvc}


def _run(command: list[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
