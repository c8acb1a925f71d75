"""Folders that appear whole or not at all, also where a process is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from freezeflow.errors import FreezeflowError, StageFailed
from freezeflow.exports.folders import published_folder
from freezeflow.store import kernel


def write(target: Path, text: str) -> None:
    with published_folder(target, belongs="mark") as folder:
        (folder / "mark").write_text(text)


def tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def killed(work: str, target: Path) -> None:
    """Runs the work in a process that kills itself."""
    script = f"""
        import os, signal
        from pathlib import Path
        from freezeflow.exports import folders
        from freezeflow.store import kernel
        def die(*_): os.kill(os.getpid(), signal.SIGKILL)
        target = Path({os.fspath(target)!r})
        {work}
        with folders.published_folder(target, belongs="mark") as folder:
            (folder / "mark").write_text("new")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.fixture(params=["in one step", "in two steps"])
def exchanging(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "in two steps":
        monkeypatch.setattr(kernel, "exchange", lambda one, other: False)


@pytest.mark.usefixtures("exchanging")
def test_an_older_folder_is_replaced(tmp_path: Path) -> None:
    write(tmp_path / "model", "old")
    (tmp_path / "model" / "more").write_text("old")
    write(tmp_path / "model", "new")
    assert tree(tmp_path) == {"model/mark": "new"}
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.usefixtures("exchanging")
def test_an_older_folder_stays_when_the_block_fails(tmp_path: Path) -> None:
    write(tmp_path / "model", "old")
    with pytest.raises(RuntimeError), published_folder(tmp_path / "model", belongs="mark"):
        raise RuntimeError
    assert tree(tmp_path) == {"model/mark": "old"}


def test_something_else_stays(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "letter").write_text("mine")
    with pytest.raises(StageFailed, match="something else is there"):
        write(tmp_path / "model", "new")
    assert tree(tmp_path) == {"model/letter": "mine"}


def test_two_folders_change_places(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mark").write_text(name)
    assert kernel.exchange(tmp_path / "one", tmp_path / "other")
    assert tree(tmp_path) == {"one/mark": "other", "other/mark": "one"}
    assert not kernel.exchange(tmp_path / "one", tmp_path / "none")


def test_what_a_killed_process_left_goes(tmp_path: Path) -> None:
    target = tmp_path / "model"
    killed("folders.settle = die", target)
    assert list(tree(tmp_path)) == [".model.parts/model/mark"]
    write(target, "newer")
    assert tree(tmp_path) == {"model/mark": "newer"}
    assert os.listdir(tmp_path) == ["model"]


def test_an_older_folder_that_a_killed_process_took_away_comes_back(tmp_path: Path) -> None:
    target = tmp_path / "model"
    write(target, "old")
    in_the_middle = """
        kernel.exchange = lambda one, other: False
        rename = os.rename
        os.rename = lambda a, b: die() if Path(b) == target else rename(a, b)
    """
    killed(textwrap.dedent(in_the_middle).strip().replace("\n", "\n        "), target)
    assert not target.exists()
    with pytest.raises(RuntimeError), published_folder(target, belongs="mark"):
        raise RuntimeError
    assert tree(tmp_path) == {"model/mark": "old"}


def test_two_writers_of_one_folder(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with published_folder(target, belongs="mark") as folder:
        (folder / "mark").write_text("one")
        write(target, "two")
        assert tree(target) == {"mark": "two"}
    assert tree(tmp_path) == {"model/mark": "one"}
    assert os.listdir(tmp_path) == ["model"]


def test_a_file_has_the_name_of_a_folder_above(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file")
    with pytest.raises(FreezeflowError, match="cannot be written"):
        write(tmp_path / "models" / "model", "new")
