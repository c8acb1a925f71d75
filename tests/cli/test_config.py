from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Cli


def test_values_and_where_they_come_from(cli: Cli, folder: Path) -> None:
    (folder / "freezeflow.toml").write_text("jobs = 2\n")
    done = cli("config", FREEZEFLOW_KEEP_GOING="yes")
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
    assert rows["jobs"] == ["2", f"{folder}/freezeflow.toml:1"]
    assert rows["keep_going"] == ["true", "FREEZEFLOW_KEEP_GOING"]
    assert rows["cache_dir"] == [f"{folder}/cache", "FREEZEFLOW_CACHE_DIR"]
    data = json.loads(cli("config", "--json").stdout)
    assert data["format"] == "freezeflow.config/1"
    assert data["settings"]["jobs"]["value"] == 2
    assert data["settings"]["jobs"]["variable"] == "FREEZEFLOW_JOBS"


def test_the_recipe_says_which_project(cli: Cli, folder: Path) -> None:
    (folder / "inner").mkdir()
    (folder / "inner" / "freezeflow.toml").write_text("jobs = 2\n")
    assert "inner/freezeflow.toml:1" in cli("config", "inner/some.yaml").stdout
    assert "freezeflow.toml" not in cli("config").stdout


def test_commands_obey(cli: Cli, folder: Path) -> None:
    (folder / "freezeflow.toml").write_text('cache_dir = "kept"\n')
    assert cli("run", "small.yaml", FREEZEFLOW_CACHE_DIR="").returncode == 0
    assert (folder / "kept" / "index.db").exists()
    assert not (folder / "cache").exists()
    data = json.loads(cli("cache", "info", "--json", FREEZEFLOW_CACHE_DIR="").stdout)
    assert data["folder"] == str(folder / "kept")


def test_mistakes_are_told_with_their_lines(cli: Cli, folder: Path) -> None:
    (folder / "freezeflow.toml").write_text("jobs = 2\nkeep_goin = true\n")
    done = cli("run", "small.yaml")
    assert done.returncode == 2
    assert f"{folder}/freezeflow.toml:2:1: there is no setting 'keep_goin'" in done.stderr
    assert "Did you mean 'keep_going'?" in done.stderr
    assert not (folder / "cache").exists()
