"""Files that stand where a model's file should be: pointers, pages, folders, loops, closed doors."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from freezeflow.errors import ModelRefused
from freezeflow.values import ModelSource
from tests.sources.conftest import KINDS
from tests.sources.damage import closed_to_us, copy_of, files_of, frozen_bytes

LFS = b"""version https://git-lfs.github.com/spec/v1
oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393
size 12345678
"""
ANNEX = b"/annex/objects/SHA256E-s123--4d7a214614ab2935c943f9e0ff69d22eadbb8f32.pb\n"
PAGE = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head></html>\n"


@pytest.fixture
def each_file(good, request, tmp_path):
    """Each file of a good model of the kind, as a path in a copy that may be spoilt."""
    source, root = good(request.param)
    copy = copy_of(source, root, tmp_path / "copy")

    def files():
        for original in files_of(root):
            target = tmp_path / "copy" / original.relative_to(root)
            yield copy, target
            if target.is_dir() and not target.is_symlink():
                target.rmdir()
            target.unlink(missing_ok=True)
            target.write_bytes(original.read_bytes())
        assert frozen_bytes(copy, tmp_path)

    return files


each_kind = pytest.mark.parametrize("each_file", KINDS, indirect=True)


def refusal(source, scratch):
    with pytest.raises(ModelRefused) as refused:
        frozen_bytes(source, scratch)
    assert refused.value.exit_code == 5
    assert 1 <= len(str(refused.value).splitlines()) <= 3
    return refused.value


@each_kind
@pytest.mark.parametrize(
    ("data", "says", "hint"),
    [
        (LFS, "a Git LFS pointer", "git lfs pull"),
        (ANNEX, "a git-annex pointer", "git annex get"),
        (PAGE, "an HTML page", "Download"),
    ],
    ids=["lfs", "annex", "html"],
)
def test_pointers_and_pages(data, says, hint, each_file, tmp_path):
    for source, target in each_file():
        if data == PAGE and target.parent.name == "assets":
            continue  # a vocabulary may well be HTML
        target.write_bytes(data)
        error = refusal(source, tmp_path)
        assert says in error.message, error
        assert hint in error.hint
        assert error.where == str(target)


@each_kind
def test_folders_and_loops(each_file, tmp_path):
    for source, target in each_file():
        target.unlink()
        target.mkdir()
        refusal(source, tmp_path)
        target.rmdir()
        target.symlink_to(target.name)
        refusal(source, tmp_path)
        target.unlink()
        target.symlink_to("nowhere")
        refusal(source, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_may_not_be_read(kind, good, tmp_path):
    source, root = good(kind)
    folder = Path(tempfile.mkdtemp())  # one that everybody may enter
    folder.chmod(0o755)
    try:
        copy = copy_of(source, root, folder / "copy")
        scratch = folder / "scratch"
        scratch.mkdir(mode=0o777)
        for original in files_of(root):
            undo = closed_to_us(folder / "copy" / original.relative_to(root))
            try:
                assert "cannot be read: Permission denied" in refusal(copy, scratch).message
            finally:
                undo()
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("ending", [".keras", ".h5"])
def test_keras_files(ending, tmp_path):
    for data, says in ((LFS, "Git LFS"), (PAGE, "HTML")):
        path = tmp_path / f"model{ending}"
        path.write_bytes(data)
        source = ModelSource(kind="keras", path=path)
        assert says in refusal(source, tmp_path).message
