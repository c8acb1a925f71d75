from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.cli.conftest import Cli


def test_shows_signatures_variables_and_ops(cli: Cli) -> None:
    done = cli("inspect", "model")
    assert (done.returncode, done.stderr) == (0, "")
    words = [line.split() for line in done.stdout.splitlines()]
    assert ["kind", "SavedModel"] in words
    assert ["signature", "serving_default"] in words
    assert ["input", "image", "float32", "[?,", "8,", "8,", "1]", "serving_default_image"] in words
    assert "  17 variables, 62.3 KB, " in done.stdout
    assert ["36.9", "KB", "float32", "[3,", "3,", "32,", "32]", "conv2d_2/kernel_1"] in words
    assert "  freezes into 83 nodes, " in done.stdout
    assert "other ops (--all lists them)" in done.stdout


def test_all_lists_everything(cli: Cli) -> None:
    done = cli("inspect", "model", "--all", "--signature", "serve")
    assert "--all" not in done.stdout
    assert "signature serve\n" in done.stdout
    assert "serving_default\n" not in done.stdout
    assert sum("batch_normalization" in line for line in done.stdout.splitlines()) == 12


def test_json(cli: Cli, folder: Path) -> None:
    data = json.loads(cli("inspect", "model", "--json").stdout)
    assert data["format"] == "freezeflow.inspect/1"
    assert data["freezes"] is True
    assert data["tag_sets"] == [["serve"]]
    assert data["bytes"] == sum(
        path.stat().st_size
        for path in (folder / "model").rglob("*")
        if path.is_file() and path.name != "fingerprint.pb"
    )
    found = data["signatures"]["serving_default"]
    assert set(found) == {
        *("inputs", "outputs", "variables", "variable_bytes", "assets", "tables", "writes"),
        *("random_ops", "frozen_nodes", "frozen_bytes", "obstacle"),
    }
    assert found["variable_bytes"] == sum(v["bytes"] for v in found["variables"])
    assert data["graph"]["ops"]["VarHandleOp"] > 17


def test_bytes_after_a_freeze_are_those_of_the_file(cli: Cli, folder: Path) -> None:
    data = json.loads(cli("inspect", "model", "--json", "--signature", "serve").stdout)
    assert cli("freeze", "model", "--signature", "serve", "-o", "graph.pb").returncode == 0
    size = (folder / "graph.pb").stat().st_size
    assert data["signatures"]["serve"]["frozen_bytes"] == size


def test_what_was_trained_and_what_is_stored_twice(cli: Cli, folder: Path) -> None:
    """Keras 3 writes every weight twice; moving averages are not trained."""
    data = json.loads(cli("inspect", "model", "--json").stdout)
    variables = data["signatures"]["serve"]["variables"]
    assert {v["name"] for v in variables if not v["trainable"]} == {
        v["name"] for v in variables if "moving_" in v["name"]
    }
    checkpoint = data["checkpoint"]
    assert checkpoint["duplicates"] >= len(variables)
    assert checkpoint["duplicate_bytes"] >= sum(v["bytes"] for v in variables)
    text = cli("inspect", "model").stdout
    assert "of them trainable (" in text
    assert "stored more than once)" in text
    assert "(not trainable)" in text


def test_weights_are_read_only_on_request(cli: Cli, folder: Path) -> None:
    path = folder / "model/variables/variables.data-00000-of-00001"
    data = bytearray(path.read_bytes())
    for place in range(0, len(data), 512):
        data[place] ^= 1
    path.write_bytes(data)
    assert "does not freeze" in cli("inspect", "model", "--check-weights").stdout
    assert cli("freeze", "model", "-o", "graph.pb").returncode == 5


def test_without_tensorflow(imported: Callable[..., set[str]]) -> None:
    assert not imported("inspect", "model") & {"tensorflow", "numpy", "rich", "yaml", "sqlite3"}


def test_says_what_would_stop_a_freeze(cli: Cli, folder: Path) -> None:
    data = folder / "model/variables/variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:1000])
    done = cli("inspect", "model")
    assert done.returncode == 0
    assert "does not freeze" in done.stdout
    assert "variables.data-00000-of-00001" in done.stdout
    found = json.loads(cli("inspect", "model", "--json").stdout)
    assert found["freezes"] is False
    assert found["signatures"]["serve"]["obstacle"]["kind"] == "ModelRefused"
    assert found["signatures"]["serve"]["inputs"]["image"]["dtype"] == "float32"


def test_a_graph_without_signatures_says_what_it_needs(cli: Cli, folder: Path) -> None:
    assert cli("freeze", "model", "-o", "graph.pb").returncode == 0
    done = cli("inspect", "graph.pb", "--outputs", "probabilites")
    assert "Did you mean 'probabilities'" in done.stdout
    found = cli("inspect", "graph.pb")
    assert "freezes into 83 nodes" in found.stdout
    assert "graph file" in found.stdout


def test_a_signature_that_is_none_is_an_obstacle(cli: Cli) -> None:
    found = json.loads(cli("inspect", "model", "--signature", "thaw", "--json").stdout)
    assert "no signature 'thaw'" in found["signatures"]["thaw"]["obstacle"]["message"]
    assert found["freezes"] is False


def test_what_is_no_model_is_refused(cli: Cli, folder: Path) -> None:
    (folder / "empty").mkdir()
    assert cli("inspect", "empty").returncode == 5
    assert cli("inspect", "nowhere").returncode == 2
