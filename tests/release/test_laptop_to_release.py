"""Every command of the page "from laptop to release", of the workflow and of the hooks does what it says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import ROOT

PAGE = ROOT / "docs" / "laptop-to-release.md"
WORKFLOW = ROOT / "docs" / "examples" / "github-actions.yml"
HOOKS = ROOT / ".pre-commit-hooks.yaml"
BIN = Path(sys.executable).parent

# What a step of the workflow gets from GitHub.
GITHUB = {"GITHUB_REF_NAME": "v1.0"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed"),
]


def blocks(language):
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder ``digits`` with a SavedModel in ``model``."""
    folder = tmp_path_factory.mktemp("laptop") / "digits"
    shutil.copytree(ROOT / "pipelines" / "digits" / "model", folder / "model")
    return folder


@pytest.fixture(scope="module")
def environment(folder):
    identity = {"NAME": "A Reader", "EMAIL": "reader@example.org"}
    return {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "FREEZEFLOW_CACHE_DIR": str(folder.parent / "cache"),
        "HOME": str(folder.parent),
        "GIT_CONFIG_NOSYSTEM": "1",
        **{
            f"GIT_{who}_{what}": v
            for who in ("AUTHOR", "COMMITTER")
            for what, v in identity.items()
        },
    }


def bash(script, folder, environment):
    command = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def walked(folder, environment):
    """The page from its first command to its last, in one shell."""
    out = bash("\n".join(blocks("sh")), folder, environment)
    return folder, out


def test_the_page(walked):
    folder, out = walked
    assert len(blocks("sh")) >= 9
    assert "digits.yaml.lock holds: 1 model" in out
    assert out.count("The same bytes: 2 files built from nothing") == 2
    assert "is signed by ../release.key.pub" in out
    assert (folder / "releases" / "digits-1.0.oci" / "index.json").is_file()
    assert "note:" not in out


def test_the_workflow(walked, environment):
    folder, _ = walked
    steps = yaml.safe_load(WORKFLOW.read_text())["jobs"]["models"]["steps"]
    scripts = {step["name"]: step["run"] for step in steps if "run" in step}
    # What needs GitHub, and what has been installed already.
    for name in ("Install", "Publish"):
        del scripts[name]
    key = (folder.parent / "release.key").read_text()
    for script in scripts.values():
        bash(script, folder, {**environment, **GITHUB, "FREEZEFLOW_SIGNING_KEY": key})
    names = sorted(path.name for path in (folder / "releases").glob("v1.0*"))
    assert names == ["v1.0", "v1.0.signatures", "v1.0.tar"]
    for script in scripts.values():
        bash(script, folder, {**environment, **GITHUB, "FREEZEFLOW_SIGNING_KEY": ""})


def pre_commit(*words, folder, environment):
    command = [sys.executable, "-m", "pre_commit", *words]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_the_hooks(walked, environment, tmp_path):
    pytest.importorskip("pre_commit")
    folder, _ = walked
    checked = pre_commit("validate-manifest", str(HOOKS), folder=folder, environment=environment)
    assert checked.returncode == 0, checked.stdout
    # The hooks as a repository of their own, and the page's configuration with its address.
    source = tmp_path / "freezeflow"
    source.mkdir()
    shutil.copy(HOOKS, source)
    bash("git init -q; git add .; git commit -qm hooks; git tag v0.1.0", source, environment)
    (config,) = blocks("yaml")
    config = config.replace("https://example.org/freezeflow", str(source))
    (folder / ".pre-commit-config.yaml").write_text(config)
    words = ("run", "--all-files", "--verbose")
    good = pre_commit(*words, folder=folder, environment=environment)
    assert good.returncode == 0, good.stdout + good.stderr
    assert good.stdout.count("Passed") == 2
    recipe = folder / "digits.yaml"
    before = recipe.read_text()
    try:
        recipe.write_text(before.replace("max_bytes: 100000", "max_bytes: 7"))
        other = pre_commit(*words, folder=folder, environment=environment)
        assert other.returncode == 1
        assert "locked 100000, now 7" in other.stdout
        recipe.write_text(before.replace("max_bytes", "max_byte"))
        wrong = pre_commit(*words, folder=folder, environment=environment)
        assert "Did you mean 'max_bytes'?" in wrong.stdout
    finally:
        recipe.write_text(before)
        (folder / ".pre-commit-config.yaml").unlink()
