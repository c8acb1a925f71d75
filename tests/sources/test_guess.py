from __future__ import annotations

from pathlib import Path

import pytest

from freezeflow.errors import ModelRefused, UsageError
from freezeflow.sources.guess import find_model


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize(
    ("files", "named", "kind", "path"),
    [
        (["m/saved_model.pb"], "m", "saved_model", "m"),
        (["m/saved_model.pb"], "m/", "saved_model", "m"),
        (["m/saved_model.pbtxt"], "m", "saved_model", "m"),
        (["m/saved_model.cpb"], "m", "saved_model", "m"),
        (["m/saved_model.pb"], "m/saved_model.pb", "saved_model", "m"),
        (["m.keras"], "m.keras", "keras", "m.keras"),
        (["m.h5"], "m.h5", "keras", "m.h5"),
        (["m.hdf5"], "m.hdf5", "keras", "m.hdf5"),
        (["m.pb"], "m.pb", "frozen_graph", "m.pb"),
        (["m.pbtxt"], "m.pbtxt", "frozen_graph", "m.pbtxt"),
        (["m.ckpt.index", "m.ckpt.meta"], "m.ckpt", "checkpoint", "m.ckpt"),
        (["m.ckpt.index"], "m.ckpt", "checkpoint", "m.ckpt"),
        # The old format: the prefix is itself a file, or that of numbered files.
        (["m.ckpt", "m.ckpt.meta"], "m.ckpt", "checkpoint", "m.ckpt"),
        (["m[1]-00000-of-00002", "m[1]-00001-of-00002"], "m[1]", "checkpoint", "m[1]"),
        # An empty prefix is named by its folder.
        (["m/.index", "m/.meta"], "m/", "checkpoint", "m"),
        # A checkpoint whose name is also that of a folder.
        (["m/other", "m.index"], "m", "checkpoint", "m"),
        # A SavedModel holds a checkpoint, too.
        (["m/saved_model.pb", "m/.meta"], "m", "saved_model", "m"),
    ],
)
def test_the_kind_follows_from_the_files(
    tmp_path: Path, files: list[str], named: str, kind: str, path: str
) -> None:
    touch(tmp_path, *files)
    assert find_model(f"{tmp_path}/{named}") == (kind, tmp_path / path)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "m/readme.txt")
    with pytest.raises(ModelRefused, match="holds no saved_model") as refused:
        find_model(str(tmp_path / "m"))
    assert "SavedModel folder" in refused.value.hint


def test_models_in_a_folder_are_named(tmp_path: Path) -> None:
    touch(tmp_path, *(f"m{n}/saved_model.pb" for n in range(5)), "a.keras", "notes.txt")
    with pytest.raises(ModelRefused) as refused:
        find_model(str(tmp_path))
    names = ", ".join(f"{tmp_path}/{name}" for name in ("a.keras", "m0", "m1", "m2"))
    assert refused.value.hint == f"In it are models: {names} and 2 more."


@pytest.mark.parametrize("text", [".", "..", "/"])
def test_folders_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    with pytest.raises(ModelRefused, match="holds no saved_model"):
        find_model(text)
    if text == ".":
        touch(tmp_path, "below/saved_model.pb")
        assert find_model(".") == ("saved_model", Path())


def test_a_near_miss_is_suggested(tmp_path: Path) -> None:
    touch(tmp_path, "model/saved_model.pb")
    with pytest.raises(UsageError, match="no such model") as refused:
        find_model(f"{tmp_path}/modle")
    assert refused.value.hint == f"Did you mean '{tmp_path}/model'?"


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "m.onnx")
    with pytest.raises(ModelRefused, match="no model that is known"):
        find_model(str(tmp_path / "m.onnx"))


def test_nothing_is_a_usage_error(tmp_path: Path) -> None:
    for name in ("m.pb", "m.keras", "m", "m/"):
        with pytest.raises(UsageError, match="there is no such model"):
            find_model(f"{tmp_path}/{name}")
