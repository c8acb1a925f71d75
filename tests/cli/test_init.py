from __future__ import annotations

from pathlib import Path

import freezeflow
from tests.cli.conftest import Cli


def test_the_starter_recipe_is_valid_and_runs(cli: Cli, folder: Path) -> None:
    done = cli("init", "model", "-o", "recipes/start.yaml")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "recipes/start.yaml: run it with `freezeflow run recipes/start.yaml`\n"
    recipe = freezeflow.load_recipes(folder / "recipes/start.yaml")[0]
    stages = [item.stage for item in recipe.stages]
    assert stages == ["load", "freeze", "strip", "fold", "validate", "export"]
    assert recipe.source.path == folder / "model"
    assert recipe.source.signatures == ("serving_default",)
    assert cli("run", "recipes/start.yaml", "--only", "strip").returncode == 0


def test_signatures_that_were_asked_for_are_kept(cli: Cli) -> None:
    words = ("--signature", "serve", "--signature", "serving_default")
    done = cli("init", "model", *words)
    assert "\n  signatures: [serve, serving_default]\n" in done.stdout


def test_it_is_printed_without_a_file(cli: Cli) -> None:
    done = cli("init", "model")
    assert "#   takes image: float32 [?, 8, 8, 1]\n" in done.stdout
    assert "\n  saved_model: model\n" in done.stdout


def test_a_file_that_is_there_is_kept(cli: Cli, folder: Path) -> None:
    before = (folder / "small.yaml").read_text()
    done = cli("init", "model", "-o", "small.yaml")
    assert done.returncode == 2
    assert "--force" in done.stderr
    assert (folder / "small.yaml").read_text() == before
    assert cli("init", "model", "-o", "small.yaml", "--force").returncode == 0
    assert (folder / "small.yaml").read_text() != before


def test_a_model_that_does_not_freeze_gets_a_word_about_it(cli: Cli, folder: Path) -> None:
    data = folder / "model/variables/variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:1000])
    done = cli("init", "model", "-o", "start.yaml")
    assert done.returncode == 0
    assert "# Mind: it does not freeze as it is: " in (folder / "start.yaml").read_text()
    assert cli("check", "start.yaml").returncode == 0


def test_graphs_keep_the_names_they_were_asked_for(cli: Cli, folder: Path) -> None:
    assert cli("freeze", "model", "-o", "graph.pb").returncode == 0
    words = ("--inputs", "image:0", "--outputs", "probabilities")
    assert cli("init", "graph.pb", *words, "-o", "start.yaml").returncode == 0
    recipe = freezeflow.load_recipes(folder / "start.yaml")[0]
    assert recipe.source.outputs == ("probabilities",)
    assert cli("run", "start.yaml", "--only", "strip").returncode == 0
