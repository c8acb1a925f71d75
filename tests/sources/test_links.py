"""SavedModels that consist of links, as the caches of hubs and mounted volumes keep them."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from freezeflow.errors import ModelRefused
from tests.constructs import harness

FEEDS = {"x": np.array(["b", "?"], object)}


@pytest.fixture
def saved(tmp_path):
    """A SavedModel with a variable and a vocabulary file."""
    (tmp_path / "words.txt").write_text("a\nb\n")
    filler = tf.lookup.TextFileInitializer(
        str(tmp_path / "words.txt"),
        *(tf.string, tf.lookup.TextFileIndex.WHOLE_LINE),
        *(tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER),
    )
    module = tf.Module()
    module.table = tf.lookup.StaticHashTable(filler, -1)
    module.scale = tf.Variable(3.0)
    module.call = tf.function(
        lambda x: {"y": module.scale * tf.cast(module.table.lookup(x), tf.float32)},
        input_signature=[tf.TensorSpec([None], tf.string, name="x")],
    )
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures=module.call)
    return tmp_path / "saved"


def in_a_hub_cache(saved, folder):
    """As huggingface_hub keeps it: files by their hash, a folder of links for each revision."""
    blobs, snapshot = folder / "models--org--name/blobs", folder / "models--org--name/snapshots/1f"
    blobs.mkdir(parents=True)
    for path in sorted(path for path in saved.rglob("*") if path.is_file()):
        blob = blobs / hashlib.sha256(path.read_bytes()).hexdigest()
        blob.write_bytes(path.read_bytes())
        link = snapshot / path.relative_to(saved)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return snapshot


def each_file_a_link(saved, folder):
    """As build tools lay out what a step may see."""
    for path in sorted(path for path in saved.rglob("*") if path.is_file()):
        link = folder / "sandbox" / path.relative_to(saved)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    return folder / "sandbox"


def in_a_mounted_volume(saved, folder):
    """As Kubernetes mounts it: links through a link to the present version."""
    saved.rename(folder / "..2026_11_27")
    (folder / "..data").symlink_to("..2026_11_27")
    (folder / "volume").mkdir()
    for path in (folder / "..data").iterdir():
        (folder / "volume" / path.name).symlink_to(path)
    return folder / "volume"


def asset_of(model):
    (asset,) = (model / "assets").iterdir()
    return asset


@pytest.mark.parametrize("laid_out", [in_a_hub_cache, each_file_a_link, in_a_mounted_volume])
def test_a_model_of_links_is_a_model(laid_out, saved, tmp_path):
    (tmp_path / "links").mkdir()
    want = harness.run_original(saved, "serving_default", FEEDS)
    model = laid_out(saved, tmp_path / "links")
    frozen = harness.freeze_model(harness.saved_model(model), tmp_path)
    harness.assert_same(want, harness.run_frozen(frozen, "serving_default", FEEDS))


def to_another_place(asset, secret):
    asset.symlink_to(secret)


def to_a_blob_that_is_a_link(asset, secret):
    blob = asset.parents[3] / "blobs" / "0"
    blob.symlink_to(secret)
    asset.symlink_to(blob)


@pytest.mark.parametrize("lead", [to_another_place, to_a_blob_that_is_a_link])
def test_a_link_that_leads_elsewhere_is_refused(lead, saved, tmp_path):
    (tmp_path / "secret").write_text("secret\n")
    (tmp_path / "links").mkdir()
    model = in_a_hub_cache(saved, tmp_path / "links")
    asset = asset_of(model)
    asset.unlink()
    lead(asset, tmp_path / "secret")
    with pytest.raises(ModelRefused, match="lies outside of the folder of assets") as told:
        harness.freeze_model(harness.saved_model(model), tmp_path)
    assert "cp -rL" in told.value.hint


def test_a_link_that_leads_to_itself_is_a_missing_file(saved, tmp_path):
    (tmp_path / "links").mkdir()
    model = in_a_hub_cache(saved, tmp_path / "links")
    asset = asset_of(model)
    asset.unlink()
    asset.symlink_to(asset.name)
    with pytest.raises(ModelRefused, match=r"asset 'words\.txt' is missing"):
        harness.freeze_model(harness.saved_model(model), tmp_path)


def test_one_link_in_a_folder_of_files_is_refused(saved, tmp_path):
    asset = asset_of(saved)
    elsewhere = Path(saved.parent / "elsewhere.txt")
    asset.rename(elsewhere)
    asset.symlink_to(elsewhere)
    with pytest.raises(ModelRefused, match="lies outside of the folder of assets"):
        harness.freeze_model(harness.saved_model(saved), tmp_path)


def test_a_name_that_leads_out_of_the_folder_is_refused(saved, tmp_path):
    (tmp_path / "links").mkdir()
    model = in_a_hub_cache(saved, tmp_path / "links")
    file = model / "saved_model.pb"
    blob = file.resolve()
    data = blob.read_bytes()
    name = asset_of(model).name.encode()
    way_out = b"../words.t"[: len(name)].ljust(len(name), b"x")
    (file.parent / way_out.decode()).symlink_to(asset_of(model).resolve())
    assert data.count(name) > 0
    blob.write_bytes(data.replace(name, way_out))
    with pytest.raises(ModelRefused, match="lies outside of the folder of assets"):
        harness.freeze_model(harness.saved_model(model), tmp_path)
