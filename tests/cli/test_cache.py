from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Cli


@pytest.fixture
def filled(cli: Cli) -> Cli:
    assert cli("run", "small.yaml").returncode == 0
    return cli


def flip_a_bit(folder: Path) -> None:
    blob = max((folder / "cache/blobs").glob("*/*"), key=lambda path: path.stat().st_size)
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.chmod(0o644)
    blob.write_bytes(data)


def test_info_and_list(filled: Cli, folder: Path) -> None:
    data = json.loads(filled("cache", "info", "--json").stdout)
    assert data["format"] == "freezeflow.cache-info/1"
    assert (data["folder"], data["actions"]) == (str(folder / "cache"), 4)
    assert data["adopted_bytes"] == 60416
    assert "results" in filled("cache", "info").stdout

    entries = json.loads(filled("cache", "list", "--json").stdout)["entries"]
    assert sorted(entry["stage"] for entry in entries) == ["export", "freeze", "load", "strip"]
    assert "small.yaml: freeze" in filled("cache", "list").stdout


def test_an_empty_cache_says_so(cli: Cli) -> None:
    assert cli("cache", "list").stdout == "the cache is empty\n"


def test_verify_finds_a_flipped_bit(filled: Cli, folder: Path) -> None:
    whole = filled("cache", "verify")
    assert (whole.returncode, whole.stdout) == (0, "all of it is whole\n")
    flip_a_bit(folder)
    done = filled("cache", "verify")
    assert done.returncode == 1
    assert "damaged blob" in done.stdout
    data = json.loads(filled("cache", "verify", "--json").stdout)
    assert (data["format"], data["ok"]) == ("freezeflow.cache-verify/1", False)

    run = filled("run", "small.yaml")
    assert run.returncode == 0
    assert "the cache is damaged" in run.stderr
    assert filled("cache", "verify").returncode == 0


def test_gc(filled: Cli, folder: Path) -> None:
    data = json.loads(filled("cache", "gc", "--json").stdout)
    assert data == {
        "format": "freezeflow.gc/1",
        "dry_run": False,
        "actions": 0,
        "blobs": 0,
        "bytes": 0,
        "logs": 0,
        "failures": 0,
        "plans": 0,
    }
    dry = filled("cache", "gc", "--all", "--dry-run")
    assert dry.stdout.startswith("4 results and ")
    assert "Nothing to do" in filled("run", "small.yaml").stdout
    assert "deleted" in filled("cache", "gc", "--all").stdout
    assert not list((folder / "cache/blobs").glob("*/*"))
    assert "4 ran" in filled("run", "small.yaml").stdout


def test_gc_keeps_what_a_recipe_uses(filled: Cli, folder: Path) -> None:
    assert filled("run", "small.yaml", "--set", "to=build/other.pb").returncode == 0
    data = json.loads(filled("cache", "gc", "--keep", "small.yaml", "--json").stdout)
    assert (data["actions"], data["plans"]) == (1, 0)
    assert "Nothing to do" in filled("run", "small.yaml").stdout
    (folder / "small.yaml").unlink()
    done = filled("cache", "gc", "--all")
    assert done.stdout.startswith("4 results, ")
    assert "2 kept plans deleted" in done.stdout


@pytest.mark.parametrize(("text", "kept"), [("1kB", False), ("2.5 MB", True), ("1G", True)])
def test_gc_to_a_size(filled: Cli, text: str, kept: bool) -> None:
    assert filled("cache", "gc", "--max-size", text).returncode == 0
    assert ("Nothing to do" in filled("run", "small.yaml").stdout) is kept


def test_a_size_that_is_none(cli: Cli) -> None:
    done = cli("cache", "gc", "--max-size", "lots")
    assert done.returncode == 2
    assert "'lots' is no size" in done.stderr
