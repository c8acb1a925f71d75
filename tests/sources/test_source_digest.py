"""The digest of a source: from its files, each of which is read for it once at most."""

import io
import json
from pathlib import Path

import pytest

import freezeflow
from freezeflow.engine.context import StepContext
from freezeflow.sources import registry
from freezeflow.store.hashing import hash_file
from freezeflow.values import ModelSource

MODEL = Path(__file__).resolve().parents[2] / "pipelines" / "digits" / "model"


@pytest.fixture
def hashed(monkeypatch):
    """The files that a source's digest has hashed."""
    paths = []

    def recording(path):
        paths.append(path)
        return hash_file(path)

    monkeypatch.setattr(registry, "hash_file", recording)
    return paths


def test_what_is_known_is_not_read_again(tmp_path, hashed):
    source = ModelSource(kind="saved_model", path=MODEL)
    files = registry.source_files(source)
    found = registry.source_digest(source, {})
    assert hashed == list(files)
    hashed.clear()
    known = {str(path): hash_file(path) for path in files}
    assert registry.source_digest(source, known) == found
    context = StepContext(tmp_path, tmp_path, None, io.StringIO(), hashed=known)
    assert registry.load_source(source, context).source_digest == found
    assert hashed == []


def test_a_run_hashes_a_source_for_its_key_only(tmp_path, monkeypatch, hashed):
    monkeypatch.setenv("FREEZEFLOW_CACHE_DIR", str(tmp_path / "cache"))
    stages = ["load", "freeze", {"export": {"to": "run.pb"}}]
    recipe = {"version": 1, "model": {"saved_model": str(MODEL)}, "stages": stages}
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    freezeflow.run(tmp_path / "r.yaml")
    assert hashed == []
    freezeflow.freeze_to(MODEL, tmp_path / "direct.pb")
    manifests = [
        json.loads((tmp_path / f"{n}.manifest.json").read_text()) for n in ("run", "direct")
    ]
    assert manifests[0]["source"] == manifests[1]["source"]
