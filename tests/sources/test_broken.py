"""Broken models are refused in a few lines, whatever is broken, and never give other weights."""

from __future__ import annotations

import random
import shutil

import pytest

from freezeflow.errors import ModelRefused
from tests.sources.conftest import KINDS
from tests.sources.damage import attempt, copy_of, damaged, files_of, frozen_bytes, holds_weights
from tests.sources.edits import edited, graph_file

QUICK, MANY = 60, 400


def try_damages(good, kind, seed, count, tmp_path):
    source, root = good(kind)
    want = frozen_bytes(source, tmp_path)
    copy = copy_of(source, root, tmp_path / "copy")
    rng, refused = random.Random(f"{kind} {seed}"), 0
    for number in range(count):
        original = rng.choice(files_of(root))
        target = tmp_path / "copy" / original.relative_to(root)
        target.write_bytes(damaged(original.read_bytes(), rng))
        have = attempt(copy, tmp_path)
        refused += have is None
        if holds_weights(original):
            assert have in (None, want), f"{original.name}, damage {number}: other weights"
        target.write_bytes(original.read_bytes())
    assert frozen_bytes(copy, tmp_path) == want
    return refused


def try_edits(good, kind, seed, count, tmp_path):
    source, root = good(kind)
    copy = copy_of(source, root, tmp_path / "copy")
    rng, refused = random.Random(f"{kind} {seed}"), 0
    for number in range(count):
        graph_file(copy).write_bytes(edited(source, rng, 1 + number % 2))
        refused += attempt(copy, tmp_path) is None
    return refused


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_bytes(kind, good, tmp_path):
    assert try_damages(good, kind, 0, QUICK, tmp_path) > QUICK // 4


@pytest.mark.parametrize("kind", KINDS)
def test_edited_graphs(kind, good, tmp_path):
    assert try_edits(good, kind, 0, QUICK, tmp_path) > QUICK // 6


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 4))
@pytest.mark.parametrize("kind", KINDS)
def test_many_damages(kind, seed, good, tmp_path):
    try_damages(good, kind, seed, MANY, tmp_path)
    shutil.rmtree(tmp_path / "copy")
    try_edits(good, kind, seed, MANY, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_cut_short(kind, good, tmp_path):
    """At every 16th of its length, at the first bytes, and just before its end."""
    source, root = good(kind)
    want = frozen_bytes(source, tmp_path)
    copy = copy_of(source, root, tmp_path / "copy")
    for original in files_of(root):
        data = original.read_bytes()
        target = tmp_path / "copy" / original.relative_to(root)
        for length in {*(len(data) * part // 16 for part in range(16)), 1, 7, len(data) - 1}:
            target.write_bytes(data[:length])
            have = attempt(copy, tmp_path)
            # A vocabulary has no checksum; a message may end between two fields.
            if holds_weights(original):
                assert have in (None, want), f"{original.name} of {length} bytes"
        target.write_bytes(data)


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_missing(kind, good, tmp_path):
    source, root = good(kind)
    copy = copy_of(source, root, tmp_path / "copy")
    for original in files_of(root):
        target = tmp_path / "copy" / original.relative_to(root)
        target.unlink()
        with pytest.raises(ModelRefused) as refused:
            frozen_bytes(copy, tmp_path)
        assert len(str(refused.value).splitlines()) <= 3
        target.write_bytes(original.read_bytes())


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_empty_or_something_else(kind, good, tmp_path):
    source, root = good(kind)
    copy = copy_of(source, root, tmp_path / "copy")
    for original in (f for f in files_of(root) if f.parent.name != "assets"):
        target = tmp_path / "copy" / original.relative_to(root)
        for data in (b"", b"\0" * 4096, b"\xff" * 4096, b"<html>404</html>\n" * 20, b"PK\x03\x04"):
            target.write_bytes(data)
            with pytest.raises(ModelRefused):
                frozen_bytes(copy, tmp_path)
        target.write_bytes(original.read_bytes())


@pytest.mark.parametrize(
    ("kind", "other"),
    [("tf2_module", "keras_export"), ("tf1_saved_model", "tf2_module")],
)
def test_variables_of_another_model(kind, other, good, tmp_path):
    source, root = good(kind)
    copy = copy_of(source, root, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy/variables")
    shutil.copytree(good(other)[1] / "variables", tmp_path / "copy/variables")
    with pytest.raises(ModelRefused, match=r"no tensor|belong") as refused:
        frozen_bytes(copy, tmp_path)
    assert refused.value.where and refused.value.hint


def test_data_of_another_checkpoint(good, tmp_path):
    """The index is of one training step, the data of another, of the same size."""
    source, root = good("checkpoint")
    copy = copy_of(source, root, tmp_path / "copy")
    data = tmp_path / "copy/model.ckpt.data-00000-of-00001"
    data.write_bytes(bytes(data.stat().st_size))
    with pytest.raises(ModelRefused, match=r"checksum|crc|damaged|sum"):
        frozen_bytes(copy, tmp_path)
