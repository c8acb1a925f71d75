"""The example package of docs/plugins.md: installed with pip, used from the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

v1 = tf.compat.v1
ROOT = Path(__file__).resolve().parents[2]
COMMAND = str(Path(sys.executable).with_name("freezeflow"))
KERNEL = np.random.default_rng(2).standard_normal((12, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package in it, as pip installs it."""
    folder = tmp_path_factory.mktemp("installed")
    source = tmp_path_factory.mktemp("source")
    for file in (ROOT / "examples" / "uint8-input").iterdir():
        if file.is_file():
            (source / file.name).write_bytes(file.read_bytes())
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--disable-pip-version-check", "--target", str(folder)]
    subprocess.run([*command, str(source)], check=True)
    return folder


@pytest.fixture
def cli(installed: Path, tmp_path: Path):
    environment = {
        **os.environ,
        "PYTHONPATH": str(installed),
        "FREEZEFLOW_CACHE_DIR": str(tmp_path / "cache"),
        "XDG_CONFIG_HOME": str(tmp_path / "settings"),
        "COLUMNS": "100",
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip

    return run


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    with tf.Graph().as_default() as graph:
        image = v1.placeholder(tf.float32, [None, 12], name="image")
        tf.identity(tf.matmul(image, KERNEL), name="scores")
    (tmp_path / "graph.pb").write_bytes(graph.as_graph_def().SerializeToString())
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "version: 1\nname: bytes\n"
        "model: {frozen_graph: graph.pb, inputs: [image], outputs: [scores]}\n"
        "stages:\n  - load\n  - uint8_input: {input: image, scale: 0.5}\n  - strip\n"
        '  - export: "build/out.pb"\n'
    )
    return path


def test_the_example_runs(cli, recipe: Path, tmp_path: Path) -> None:
    assert "Let an input take bytes" in cli("stages").stdout
    assert cli("check", "recipe.yaml").returncode == 0
    done = cli("run", "recipe.yaml", "--json")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "build" / "out.manifest.json").read_text())
    ends = manifest["signatures"]["serving_default"]
    assert ends["inputs"]["image"]["dtype"] == "uint8"
    graph = tf.Graph()
    with graph.as_default():
        graph_def = v1.GraphDef.FromString((tmp_path / "build" / "out.pb").read_bytes())
        tf.graph_util.import_graph_def(graph_def, name="")
    image = np.arange(24, dtype=np.uint8).reshape(2, 12)
    with v1.Session(graph=graph) as session:
        scores = session.run(
            ends["outputs"]["scores"]["tensor"], {ends["inputs"]["image"]["tensor"]: image}
        )
    np.testing.assert_allclose(scores, (image * 0.5) @ KERNEL, rtol=1e-5)


def test_its_mistakes_are_told_as_our_own_are(cli, recipe: Path) -> None:
    text = recipe.read_text()
    recipe.write_text(text.replace("scale: 0.5", "scal: 0.5"))
    done = cli("check", "recipe.yaml")
    assert done.returncode == 3
    assert "recipe.yaml:6:" in done.stderr + done.stdout
    assert "scale" in done.stderr + done.stdout
    recipe.write_text(text.replace("input: image", "input: picture"))
    done = cli("run", "recipe.yaml")
    assert done.returncode == 1
    assert "no signature has an input 'picture'" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_a_changed_result_is_made_again_and_an_unchanged_one_is_not(cli, recipe: Path) -> None:
    assert cli("run", "recipe.yaml").returncode == 0
    again = json.loads(cli("run", "recipe.yaml", "--json").stdout)
    assert "ran" not in json.dumps(again)
