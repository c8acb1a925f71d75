"""From a prefix to a checkpoint, or to a refusal that helps."""

from __future__ import annotations

import pytest
import tensorflow as tf

from freezeflow.checkpoint import open_checkpoint
from freezeflow.errors import ModelRefused
from tests.checkpoint.written import fetch, save, save_v1

TENSOR = {"t": tf.constant([1, 2, 3])}
EXPECTED = [((3,), b"\1\0\0\0\2\0\0\0\3\0\0\0")]


def test_an_empty_file_name(tmp_path):
    save(f"{tmp_path}/", TENSOR)
    assert (tmp_path / ".index").is_file()
    assert fetch(tmp_path, "t") == fetch(f"{tmp_path}/", "t") == EXPECTED


def test_a_folder_and_a_checkpoint_of_one_name(tmp_path):
    (tmp_path / "a").mkdir()
    save(f"{tmp_path}/a/", {"t": tf.constant(b"in the folder")})
    save(tmp_path / "a", TENSOR)
    assert fetch(tmp_path / "a", "t") == EXPECTED
    assert fetch(f"{tmp_path}/a/", "t") == [((), (b"in the folder",))]


def test_the_format_is_told_from_the_files(tmp_path):
    save(tmp_path / "new", TENSOR)
    save_v1(tmp_path / "old", TENSOR)
    for name in ("new", "old"):
        assert fetch(tmp_path / name, "t") == EXPECTED
        assert open_checkpoint(tmp_path / name).files[0].is_file()


@pytest.mark.parametrize(
    ("prefix", "message", "hint"),
    [
        ("model", "no checkpoint", "model.ckpt-1"),
        ("model.ckpt-1.index", "one file of a checkpoint", "model.ckpt-1"),
        ("model.ckpt-1.data-00000-of-00001", "one file of a checkpoint", "model.ckpt-1"),
        ("", "no checkpoint", "model.ckpt-1"),
        ("nowhere/at/all", "no checkpoint", ".index"),
        ("others/a", "no checkpoint", "and 3 more"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(tmp_path, prefix, message, hint):
    save(tmp_path / "model.ckpt-1", TENSOR)
    (tmp_path / "others").mkdir()
    for number in range(8):
        (tmp_path / "others" / f"{number}.index").touch()
    with pytest.raises(ModelRefused, match=message) as refusal:
        open_checkpoint(tmp_path / prefix)
    assert refusal.value.where == str(tmp_path / prefix)
    assert hint in refusal.value.hint


def test_a_data_file_whose_index_is_gone(tmp_path):
    save(tmp_path / "a", TENSOR)
    (tmp_path / "a.index").unlink()
    for name in ("a", "a.data-00000-of-00001"):
        with pytest.raises(ModelRefused, match="no checkpoint") as refusal:
            open_checkpoint(tmp_path / name)
        assert ".index" in refusal.value.hint


def test_any_other_file_is_refused(tmp_path):
    (tmp_path / "a").write_bytes(b"not a table " * 20)
    with pytest.raises(ModelRefused, match="not a table"):
        open_checkpoint(tmp_path / "a")
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(ModelRefused, match="too short"):
        open_checkpoint(tmp_path / "a")
