"""The shared cache on the command line: two machines are two caches and two copies of the tree."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Cli


@pytest.fixture
def other(folder: Path) -> dict[str, str]:
    """The environment of another machine."""
    return {"FREEZEFLOW_CACHE_DIR": str(folder / "other-cache")}


def test_a_run_takes_what_another_gave(cli: Cli, folder: Path, other: dict[str, str]) -> None:
    (folder / "freezeflow.toml").write_text('remote = "shared"\n')
    first = cli("run", "small.yaml", FREEZEFLOW_REMOTE_PUSH="true")
    assert first.returncode == 0
    assert "shared cache: 4 results pushed" in first.stderr
    made = (folder / "build/small.pb").read_bytes()
    shutil.rmtree(folder / "build")
    second = cli("run", "small.yaml", **other)
    assert "shared cache: 4 results fetched" in second.stderr
    assert "Nothing to do" in second.stdout
    assert (folder / "build/small.pb").read_bytes() == made


def test_push_and_pull(cli: Cli, folder: Path, other: dict[str, str]) -> None:
    assert cli("run", "small.yaml").returncode == 0
    shared = str(folder / "shared")
    done = cli("cache", "push", "--remote", shared)
    assert (done.returncode, done.stdout.partition(",")[0]) == (0, "4 results pushed")
    assert (
        cli("cache", "push", "small.yaml", "--remote", shared).stdout == "0 results pushed, 0 B\n"
    )
    shutil.rmtree(folder / "build")
    done = cli("cache", "pull", "small.yaml", "--remote", shared, "--json", **other)
    data = json.loads(done.stdout)
    assert (data["format"], data["fetched"]) == ("freezeflow.traffic/1", 4)
    assert "Nothing to do" in cli("run", "small.yaml", **other).stdout
    assert (folder / "build/small.manifest.json").exists()


def test_pull_everything(cli: Cli, folder: Path, other: dict[str, str]) -> None:
    shared = str(folder / "shared")
    assert (
        cli(
            "run", "small.yaml", FREEZEFLOW_REMOTE_URL=shared, FREEZEFLOW_REMOTE_PUSH="1"
        ).returncode
        == 0
    )
    done = cli("cache", "pull", "--remote", shared, **other)
    assert done.stdout.startswith("4 results fetched")
    assert cli("cache", "verify", **other).returncode == 0
    assert "Nothing to do" in cli("run", "small.yaml", **other).stdout


def test_plan_tells_what_would_come(cli: Cli, folder: Path, other: dict[str, str]) -> None:
    shared = str(folder / "shared")
    remote = {"FREEZEFLOW_REMOTE_URL": shared}
    assert cli("run", "small.yaml", **remote, FREEZEFLOW_REMOTE_PUSH="1").returncode == 0
    shutil.rmtree(folder / "build")
    done = cli("plan", "small.yaml", "--json", **other, **remote)
    steps = json.loads(done.stdout)["plans"][0]["steps"]
    assert [step["state"] for step in steps] == ["remote"] * 4
    assert not (folder / "build").exists()
    assert "0 of 4 steps would run, 4 would come from the shared cache." in (
        cli("plan", "small.yaml", **other, **remote).stdout
    )
    info = json.loads(cli("cache", "info", "--json", **other).stdout)
    assert (info["actions"], info["blobs"]) == (0, 0)
    down = {"FREEZEFLOW_REMOTE_URL": "http://127.0.0.1:1/x", "FREEZEFLOW_REMOTE_TIMEOUT": "0.5"}
    done = cli("plan", "small.yaml", **other, **down)
    assert done.returncode == 0
    assert "4 of 4 steps would run." in done.stdout
    assert done.stderr.count("going on without it") == 1


def test_keys(cli: Cli, folder: Path, other: dict[str, str]) -> None:
    keys = json.loads(cli("cache", "new-key", "--json").stdout)
    signing = {"FREEZEFLOW_REMOTE_SIGNING_KEY": keys["secret"], "FREEZEFLOW_REMOTE_PUSH": "1"}
    (folder / "freezeflow.toml").write_text(
        f'[remote]\nurl = "shared"\ntrusted_keys = ["{keys["public"]}"]\n'
    )
    first = cli("run", "small.yaml", **signing)
    assert "4 results pushed" in first.stderr
    assert "4 results fetched" in cli("run", "small.yaml", **other).stderr
    assert keys["secret"] not in first.stderr + first.stdout
    for path in folder.rglob("*"):
        assert path.is_dir() or keys["secret"].encode() not in path.read_bytes()
    shown = cli("cache", "new-key").stdout.splitlines()
    assert shown[0].startswith("FREEZEFLOW_REMOTE_SIGNING_KEY=")
    assert shown[1].startswith("remote.trusted_keys = [")


def test_commands_tell_what_is_wrong(cli: Cli, folder: Path) -> None:
    done = cli("cache", "push")
    assert done.returncode == 2
    assert "there is no shared cache" in done.stderr
    done = cli("cache", "pull", "--remote", "http://127.0.0.1:1/x", FREEZEFLOW_REMOTE_TIMEOUT="0.5")
    assert done.returncode == 1
    assert "http://127.0.0.1:1/x" in done.stderr
    assert "Traceback" not in done.stderr
    done = cli("cache", "pull", "--remote", str(folder / "nowhere"))
    assert done.returncode == 1
    assert "there is no such folder" in done.stderr
    done = cli("cache", "push", "--remote", "ftp://host/x")
    assert done.returncode == 2
    assert "is no address" in done.stderr
    assert not (folder / "nowhere").exists()


def test_where_nothing_is_missed_the_remote_is_not_opened(cli: Cli, imported: object) -> None:
    assert cli("run", "small.yaml").returncode == 0
    done = cli("run", "small.yaml", FREEZEFLOW_REMOTE_URL="http://127.0.0.1:1/x")
    assert (done.returncode, done.stderr) == (0, "")
