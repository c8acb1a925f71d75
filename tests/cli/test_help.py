from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from freezeflow.cli.root import COMMANDS, root
from freezeflow.version import VERSION
from tests.cli.conftest import Cli

HEAVY = {
    "freezeflow.api",
    "google.protobuf",
    "jsonschema",
    "networkx",
    "numpy",
    "rich",
    "sqlite3",
    "tensorflow",
    "yaml",
}


def test_the_help_lists_every_command_with_its_line(cli: Cli) -> None:
    done = cli("--help")
    assert done.returncode == 0
    for name, line in COMMANDS.items():
        assert any(found.split() == [name, *line.split()] for found in done.stdout.splitlines())


def test_the_help_imports_no_command(imported: Callable[..., set[str]]) -> None:
    found = imported("--help")
    assert not found & HEAVY
    assert not {f"freezeflow.cli.{name}" for name in COMMANDS} & found


@pytest.mark.parametrize("command", ["", *COMMANDS, *(f"cache {n}" for n in ("info", "gc"))])
def test_help_fits_a_screen(command: str) -> None:
    found = CliRunner(env={"COLUMNS": "80"}).invoke(root, [*command.split(), "--help"])
    assert found.exit_code == 0
    lines = found.output.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    assert "Usage:" in lines[0]


def test_a_command_alone_shows_what_there_is(cli: Cli) -> None:
    done = cli()
    # Older versions of click count this as asking for help, newer ones as wrong usage.
    assert done.returncode in (0, 2)
    assert "Commands:" in done.stdout + done.stderr


def test_a_near_miss_is_suggested(cli: Cli) -> None:
    done = cli("frezee")
    assert done.returncode == 2
    assert "Did you mean 'freeze'?" in done.stderr
    assert done.stdout == ""


def test_version(cli: Cli) -> None:
    assert cli("--version").stdout == f"freezeflow, version {VERSION}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_name_the_command(cli: Cli, shell: str) -> None:
    done = cli("completion", shell)
    assert done.returncode == 0
    assert "_FREEZEFLOW_COMPLETE" in done.stdout


def test_the_shell_is_told_what_fits(cli: Cli) -> None:
    done = cli(_FREEZEFLOW_COMPLETE="bash_complete", COMP_WORDS="freezeflow in", COMP_CWORD="1")
    assert [line.partition(",")[2] for line in done.stdout.splitlines()] == ["inspect", "init"]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("show small.yaml ", ["load", "freeze", "strip", "export"]),
        ("show small.yaml f", ["freeze"]),
        ("show --select s", []),
        ("show small.yaml --select s", ["small"]),
        ("run small.yaml --only e", ["export"]),
        ("show absent.yaml ", []),
    ],
)
def test_the_shell_is_told_what_a_recipe_has(cli: Cli, line: str, offered: list[str]) -> None:
    words = ["freezeflow", *line.split(" ")]
    done = cli(
        _FREEZEFLOW_COMPLETE="bash_complete",
        COMP_WORDS=" ".join(words).rstrip(),
        COMP_CWORD=str(len(words) - 1),
    )
    assert done.stderr == ""
    assert [found.partition(",")[2] for found in done.stdout.split()] == offered


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not here")
def test_fish_shows_descriptions_whole(cli: Cli) -> None:
    script = cli("completion", "fish").stdout
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"{script}\ncomplete -C 'freezeflow rebu'"],
        env={**os.environ, "PATH": path}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == f"rebuild\t{COMMANDS['rebuild']}\n"


def test_the_bash_script_is_valid(cli: Cli) -> None:
    script = cli("completion", "bash").stdout
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
