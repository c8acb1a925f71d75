"""The same input gives the same bytes, whatever is different about the machine and the run.

Five models (a CNN, an RNN, tables, TF1, two signatures), each with its result before and after fold, as
graph files and SavedModels, over fourteen variations: one digest each.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ELSEWHERE = ROOT / "tests" / "release" / "elsewhere"

MODELS = ("cnn", "rnn", "table", "tf1", "two")

RECIPE = """
version: 1
models: {include: models/*, signatures: all}
stages:
  - load
  - freeze
  - {id: plain, strip: }
  - fold
  - export: "build/{model}.pb"
  - {id: text, export: "build/{model}.pbtxt", needs: fold}
  - {id: unfolded, export: "build/{model}.unfolded.pb", needs: plain}
  - {id: saved, export: {format: saved_model, to: "build/{model}"}, needs: fold}
"""

# Without fold, and so without TensorFlow: quick enough for every run of the tests.
QUICK = """
version: 1
models: {include: models/*, signatures: all}
stages: [load, freeze, strip, export: "build/{model}.pb"]
"""

# What is different about the environment.
ENVIRONMENTS: Mapping[str, Mapping[str, str]] = {
    "another folder": {},
    "another locale": {"LC_ALL": "C", "LANG": "C", "LANGUAGE": "tr"},
    "another time zone": {"TZ": "Asia/Kathmandu"},
    "two years later": {"PYTHONPATH": str(ELSEWHERE), "FREEZEFLOW_TEST_LATER": "1"},
    "another hash seed": {"PYTHONHASHSEED": "4242"},
    "another home and temporary folder": {"HOME": "{folder}/home", "TMPDIR": "{folder}/tmp"},
    "folders listed backwards": {"PYTHONPATH": str(ELSEWHERE), "FREEZEFLOW_TEST_BACKWARDS": "1"},
}


def project(folder: Path, models: Path, recipe: str) -> Path:
    """A copy of the models with a recipe."""
    shutil.copytree(models, folder / "models")
    for name in ("home", "tmp"):
        (folder / name).mkdir()
    (folder / "recipe.yaml").write_text(recipe)
    return folder


def start(
    folder: Path, environment: Mapping[str, str], *options: str, core: int | None = None
) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "freezeflow", "run", "recipe.yaml", *options]
    if core is not None:
        bound = f"import os, sys; os.sched_setaffinity(0, {{{core}}}); os.execv(sys.argv[1], sys.argv[1:])"
        command = [sys.executable, "-c", bound, *command]
    more = {name: value.format(folder=folder) for name, value in environment.items()}
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "FREEZEFLOW_CACHE_DIR": str(folder / "cache"), **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(folder: Path, environment: Mapping[str, str], *options: str, **more: int) -> str:
    with start(folder, environment, *options, **more) as process:
        out, errors = process.communicate()
    assert process.returncode == 0, errors
    return out


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def run_and_kill(folder: Path) -> None:
    """Kills the run again and again, each time a little later, until one comes to its end."""
    for attempt in range(20):
        # In a session of its own, so that its processes end with it.
        process = subprocess.Popen(
            [sys.executable, "-m", "freezeflow", "run", "recipe.yaml", "--jobs", "2"],
            cwd=folder,
            env={**os.environ, "FREEZEFLOW_CACHE_DIR": str(folder / "cache")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            assert process.wait(timeout=0.4 + 0.7 * attempt) == 0
            assert attempt > 1, "it was never killed"
            return
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    raise AssertionError("it never came to its end")


def with_umask(mask: int, work: Callable[[], object]) -> None:
    before = os.umask(mask)
    try:
        work()
    finally:
        os.umask(before)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.release.models import write_all

    folder = tmp_path_factory.mktemp("models")
    write_all(folder)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_artifact_is_the_same_everywhere(tmp_path, models):
    found: dict[str, dict[str, str]] = {}

    def variation(name: str, work: Callable[[Path], object]) -> None:
        folder = project(tmp_path / f"{len(found)}-{'a' * len(found)}" / "project", models, RECIPE)
        work(folder)
        found[name] = digests(folder / "build")
        shutil.rmtree(folder / "models")

    def again(folder: Path) -> None:
        run(folder, {})
        first = digests(folder / "build")
        shutil.rmtree(folder / "build")
        run(folder, {})
        assert digests(folder / "build") == first

    def from_a_remote(folder: Path) -> None:
        remote = {"FREEZEFLOW_REMOTE_URL": (tmp_path / "remote").as_uri()}
        run(folder, {**remote, "FREEZEFLOW_REMOTE_PUSH": "true"})
        shutil.rmtree(folder / "build")
        shutil.rmtree(folder / "cache")
        run(folder, {**remote, "FREEZEFLOW_REMOTE_PUSH": "false"})

    for name, environment in ENVIRONMENTS.items():
        variation(name, lambda folder, e=environment: run(folder, e))
    variation("another umask", lambda folder: with_umask(0o077, lambda: run(folder, {})))
    variation("one core", lambda folder: run(folder, {}, core=min(os.sched_getaffinity(0))))
    variation("four jobs", lambda folder: run(folder, {}, "--jobs", "4"))
    variation("a warm cache", again)
    variation("forced", lambda folder: run(folder, {}, "--force", "--jobs", "1"))
    variation("from a shared cache", from_a_remote)
    variation("killed and resumed", run_and_kill)

    first, *others = found.values()
    assert len(found) == 14
    for model in MODELS:
        assert {f"{model}.pb", f"{model}.manifest.json", f"{model}.pbtxt"} <= set(first)
        assert {f"{model}.unfolded.pb", f"{model}/saved_model.pb"} <= set(first)
        assert first[f"{model}.pb"] != first[f"{model}.unfolded.pb"]
    for name, other in list(found.items())[1:]:
        different = sorted(file for file in first if other.get(file) != first[file])
        assert (name, different) == (name, [])
        assert other.keys() == first.keys()
    assert len(others) == 13


def test_graphs_are_the_same_everywhere(tmp_path):
    digits = tmp_path / "models"
    shutil.copytree(ROOT / "pipelines" / "digits" / "model", digits / "cnn")
    found = []
    for number, environment in enumerate(ENVIRONMENTS.values()):
        folder = project(tmp_path / str(number), digits, QUICK)
        with_umask(0o077 if number % 2 else 0o022, lambda f=folder, e=environment: run(f, e))
        found.append(digests(folder / "build"))
    assert "cnn.pb" in found[0]
    assert all(other == found[0] for other in found)


def test_the_other_machine_is_another_one(tmp_path):
    # The variations are worth nothing if they change nothing.
    for name in ("a", "b"):
        (tmp_path / name).touch()
    script = "import os, time; print(os.listdir('.'), [e.name for e in os.scandir()], time.time())"
    environment = {**os.environ, **ENVIRONMENTS["folders listed backwards"]}
    environment |= ENVIRONMENTS["two years later"]
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("['b', 'a'] ['b', 'a'] ")
    assert float(done.stdout.split()[-1]) > time.time() + 600 * 24 * 3600
