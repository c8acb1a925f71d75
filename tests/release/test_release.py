"""The release folder: what it says is true, its documents fit their schemas, its bytes stay the same."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from importlib import resources

import jsonschema
import pytest
import yaml
from referencing import Registry, Resource

from freezeflow.api import releases
from freezeflow.errors import FreezeflowError, StageFailed, UsageError
from freezeflow.release.folder import NotStrict

# A date two years on.
LATER = "1858000000"


def document(released, name):
    return json.loads((released / name).read_bytes())


def digests(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def make(project, to, **options):
    return releases.release(project / "digits.yaml", to, cache_dir=project / "cache", **options)


# ---------------------------------------------------------------- what it holds


def test_every_file_is_named_with_its_digest(released):
    found = digests(released)
    described = document(released, "release.json")
    assert described["format"] == "freezeflow.release/1"
    sums = dict(
        line.split("  ")[::-1] for line in (released / "SHA256SUMS").read_text().splitlines()
    )
    assert sums == {name: digest for name, digest in found.items() if name != "SHA256SUMS"}
    files = {name: file["sha256"] for name, file in described["files"].items()}
    del sums["release.json"]
    assert files == sums
    assert set(found) >= {
        "README.md",
        "artifacts/build/digits.pb",
        "artifacts/build/digits.manifest.json",
        "artifacts/build/saved/saved_model.pb",
        "attestations/provenance.json",
        "attestations/test-result.json",
        "bom.cdx.json",
        "recipe/digits.yaml",
        "recipe/digits.yaml.lock",
        "verdicts/digits/validate.json",
    }


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed")
def test_sha256sum_takes_the_sums(released):
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=released, check=True)


def test_recipe_lock_and_artifacts_are_as_they_were(released, project):
    for name in ("digits.yaml", "digits.yaml.lock"):
        assert (released / "recipe" / name).read_bytes() == (project / name).read_bytes()
    built = digests(project / "build")
    assert digests(released / "artifacts" / "build") == built


def test_no_path_of_this_machine_and_no_key_shows(released, project):
    for path in released.rglob("*"):
        if path.is_file():
            assert str(project.parent).encode() not in path.read_bytes()


def test_the_validation_is_told(released):
    verdict = document(released, "verdicts/digits/validate.json")
    assert verdict["equal"] is True
    (model,) = document(released, "release.json")["models"].values()
    assert model["validated"] == model["artifacts"]
    assert (
        "Every output was equal to the original's, to the byte."
        in (released / "README.md").read_text()
    )


# ---------------------------------------------------------------- schemas


def test_the_bill_of_materials_fits_its_schema(released):
    folder = resources.files("cyclonedx.schema._res")
    names = {
        "spdx.SNAPSHOT.schema.json": "spdx.schema.json",
        "jsf-0.82.SNAPSHOT.schema.json": "jsf-0.82.schema.json",
        "cryptography-defs.SNAPSHOT.schema.json": "cryptography-defs.schema.json",
    }
    base = "http://cyclonedx.org/schema/"
    registry = Registry().with_resources(
        (base + name, Resource.from_contents(json.loads((folder / file).read_text())))
        for file, name in names.items()
    )
    schema = json.loads((folder / "bom-1.7.SNAPSHOT.schema.json").read_text())
    validator = jsonschema.Draft7Validator(schema, registry=registry)
    found = document(released, "bom.cdx.json")
    assert [error.message for error in validator.iter_errors(found)] == []
    assert found["specVersion"] == "1.7"
    (model,) = (c for c in found["components"] if c["type"] == "machine-learning-model")
    (entry,) = model["modelCard"]["modelParameters"]["inputs"]
    assert entry["format"] == "serving_default/image: float32[?,8,8,1]"
    refs = [c["bom-ref"] for c in found["components"]]
    assert len(refs) == len(set(refs))
    for dependency in found["dependencies"]:
        assert set(dependency["dependsOn"]) <= set(refs)
    with pytest.raises(jsonschema.ValidationError):
        validator.validate({**found, "specVersion": 7})


def test_the_statements_fit_in_totos_own_messages(released):
    from google.protobuf import json_format
    from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
    from in_toto_attestation.predicates.test_result.v0 import test_result_pb2
    from in_toto_attestation.v1 import statement_pb2
    from in_toto_attestation.v1.statement import Statement

    for name, kind, message in (
        ("provenance", "https://slsa.dev/provenance/v1", provenance_pb2.Provenance),
        (
            "test-result",
            "https://in-toto.io/attestation/test-result/v0.1",
            test_result_pb2.TestResult,
        ),
    ):
        data = document(released, f"attestations/{name}.json")
        parsed = json_format.ParseDict(data, statement_pb2.Statement())
        Statement.copy_from_pb(parsed).validate()
        assert parsed.predicate_type == kind
        # Unknown and misspelt fields are refused here.
        json_format.ParseDict(data["predicate"], message())


def test_the_provenance_names_everything_that_went_in(released, project):
    data = document(released, "attestations/provenance.json")
    assert {s["name"]: s["digest"]["sha256"] for s in data["subject"]} == {
        f"artifacts/build/{name}": digest for name, digest in digests(project / "build").items()
    }
    definition = data["predicate"]["buildDefinition"]
    assert definition["buildType"] == "urn:freezeflow:build-type:recipe:1"
    named = {
        d["name"]: d.get("digest", {}).get("sha256") for d in definition["resolvedDependencies"]
    }
    for name, digest in digests(project / "model").items():
        if name.startswith(("variables/", "saved_model.pb")):
            assert named[f"source/digits/{name}"] == digest
    assert named["recipe/digits.yaml"] == digests(project)["digits.yaml"]
    assert any(
        d.get("uri", "").startswith("pkg:pypi/tensorflow@")
        for d in definition["resolvedDependencies"]
    )
    # Nothing is claimed beyond what a command line can attest.
    assert data["predicate"]["runDetails"]["builder"]["id"] == "urn:freezeflow:builder:command-line"
    assert "level" not in json.dumps(data).lower()


def test_the_test_result_names_what_was_compared(released):
    data = document(released, "attestations/test-result.json")
    assert data["predicate"]["result"] == "PASSED"
    assert data["predicate"]["passedTests"] == [
        "digits/validate/exact/serving_default/probabilities"
    ]


def test_the_card_is_what_hugging_face_reads(released, project, tmp_path):
    front = yaml.safe_load((released / "README.md").read_text().split("---\n")[1])
    assert front == {
        "library_name": "tensorflow",
        "tags": ["freezeflow", "frozen-graph", "tensorflow"],
    }
    card = tmp_path / "card.md"
    card.write_text("---\nlicense: mit\ntags: [digits]\n---\n# Digits, read\n\nTrained on 1,500.\n")
    make(project, tmp_path / "r", card=card)
    text = (tmp_path / "r" / "README.md").read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["license"] == "mit"
    assert front["tags"] == ["digits", "freezeflow", "frozen-graph", "tensorflow"]
    assert "# Digits, read\n\nTrained on 1,500.\n\n## digits" in text
    card.write_text("---\n- no\n---\n")
    with pytest.raises(UsageError, match="front matter"):
        make(project, tmp_path / "r2", card=card)
    assert not (tmp_path / "r2").exists()


def test_the_image_is_a_modelpack(released):
    layout = released.with_name("release.oci")

    def blob(descriptor):
        data = (layout / "blobs" / descriptor["digest"].replace(":", "/")).read_bytes()
        assert len(data) == descriptor["size"]
        assert f"sha256:{hashlib.sha256(data).hexdigest()}" == descriptor["digest"]
        return data

    assert document(layout, "oci-layout") == {"imageLayoutVersion": "1.0.0"}
    (entry,) = document(layout, "index.json")["manifests"]
    manifest = json.loads(blob(entry))
    assert manifest["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    assert manifest["config"]["mediaType"] == "application/vnd.cncf.model.config.v1+json"
    config = json.loads(blob(manifest["config"]))
    # What the model-spec's schema asks for, and nothing that it does not know.
    assert set(config) == {"descriptor", "config", "modelfs"}
    assert config["descriptor"] == {"name": "digits", "version": "1.2"}
    assert config["config"] == {"format": "tensorflow"}
    assert config["modelfs"]["type"] == "layers"
    assert config["modelfs"]["diffIds"] == [layer["digest"] for layer in manifest["layers"]]
    found = {}
    for layer in manifest["layers"]:
        found[layer["annotations"]["org.cncf.model.filepath"]] = layer["mediaType"]
        blob(layer)
    assert set(found) == set(digests(released))
    prefix = "application/vnd.cncf.model."
    assert found["artifacts/build/digits.pb"] == f"{prefix}weight.v1.raw"
    assert found["artifacts/build/digits.manifest.json"] == f"{prefix}weight.config.v1.raw"
    assert found["README.md"] == f"{prefix}doc.v1.raw"
    assert found["recipe/digits.yaml"] == f"{prefix}code.v1.raw"


def test_the_tar_holds_the_folder(released, tmp_path):
    with tarfile.open(released.with_name("release.tar")) as tar:
        for member in tar:
            assert (member.uid, member.gid, member.uname, member.mtime, member.mode) == (
                0,
                0,
                "",
                0,
                0o644,
            )
        tar.extractall(tmp_path, filter="data")
    assert digests(tmp_path / "release") == digests(released)


# ---------------------------------------------------------------- the same bytes


def everything(folder):
    return {
        name: digests(folder.with_name(f"{folder.name}{name}")) if name != ".tar" else
        hashlib.sha256(folder.with_name(f"{folder.name}.tar").read_bytes()).hexdigest()
        for name in ("", ".oci", ".tar")
    }  # fmt: skip


def test_the_same_release_has_the_same_bytes(released, project, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    before = os.umask(0o077)
    try:
        make(project, "release", version="1.2", tar=True, oci=True)
    finally:
        os.umask(before)
    assert everything(tmp_path / "release") == everything(released)
    assert (tmp_path / "release" / "artifacts").stat().st_mode & 0o777 == 0o755


def test_the_date_is_that_of_the_environment(released, project, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", LATER)
    make(project, tmp_path / "release", version="1.2", tar=True, oci=True)
    dated, undated = digests(tmp_path / "release"), digests(released)
    assert {name for name in dated if dated[name] != undated[name]} == {
        "README.md",
        "SHA256SUMS",
        "attestations/provenance.json",
        "bom.cdx.json",
        "release.json",
    }
    assert "2028-11-16T15:06:40Z" in (tmp_path / "release" / "README.md").read_text()
    with tarfile.open(tmp_path / "release.tar") as tar:
        assert {member.mtime for member in tar} == {int(LATER)}
    for place in ("release", "release.tar", "release.oci"):
        assert releases.verify(tmp_path / place).faults == ()


@pytest.mark.parametrize("text", ["today", "-1", "1.5", "9" * 40])
def test_a_bad_date_is_refused(project, tmp_path, monkeypatch, text):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH"):
        make(project, tmp_path / "r")
    assert not (tmp_path / "r").exists()


# ---------------------------------------------------------------- what should be known


def git(folder, *words):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True)


def codes(done):
    return sorted({finding.code for finding in done.release.findings})


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_clean_tree_has_nothing_to_be_said(project, tmp_path):
    copy = tmp_path / "project"
    shutil.copytree(project, copy)
    (copy / ".gitignore").write_text("build\ncache\n")
    git(copy, "init", "-q")
    git(copy, "add", ".")
    git(copy, "commit", "-qm", "all")
    done = make(copy, tmp_path / "r", strict=True)
    assert done.release.findings == ()
    commit = document(tmp_path / "r", "release.json")["commit"]
    assert len(commit) == 40
    named = document(tmp_path / "r", "attestations/provenance.json")["predicate"]["buildDefinition"]
    assert {"name": "revision", "digest": {"gitCommit": commit}} in named["resolvedDependencies"]
    # An untracked file is no matter, a changed one is.
    (copy / "notes.txt").write_text("")
    assert codes(make(copy, tmp_path / "r")) == []
    (copy / "digits.yaml").write_text((copy / "digits.yaml").read_text() + "# a remark\n")
    done = make(copy, tmp_path / "r")
    assert codes(done) == ["dirty_tree"]
    assert "digits.yaml" in done.release.findings[0].text
    before = digests(tmp_path / "r")
    with pytest.raises(NotStrict, match="nothing was written") as caught:
        make(copy, tmp_path / "r", strict=True)
    assert caught.value.exit_code == 4
    assert digests(tmp_path / "r") == before


@pytest.mark.slow
def test_no_repository_no_lock_no_validation_and_allowed_ops(folder, tmp_path, cli):
    recipe = folder / "small.yaml"
    recipe.write_text(
        recipe.read_text().replace(
            '- export: "${to}"',
            "- {id: plain, export: plain.pb}\n"
            "  - {id: v, validate: {samples: 1, allow_ops: {ReadFile: it is ours}}, needs: strip}\n"
            "  - {id: e, export: e.pb, needs: v}\n"
            "  - {id: later, fold: {}, needs: v}\n"
            "  - {id: x, export: x.pb, needs: later}",
        )
    )
    done = cli("release", "small.yaml", "--to", "r", "--json")
    assert done.returncode == 0, done.stderr
    found = [(f["code"], f["where"]) for f in json.loads(done.stdout)["findings"]]
    # What strip gave was validated, so `plain` holds a validated model, too; what fold gave was not.
    assert sorted(found) == [
        ("no_lock", "small.yaml.lock"),
        ("no_revision", ""),
        ("not_validated", "small/x"),
        ("ops_allowed", "small/v"),
    ]
    assert (
        "ReadFile run although it is not known to be harmless: it is ours"
        in (folder / "r" / "README.md").read_text()
    )
    assert not (folder / "small.yaml.lock").exists()
    strict = cli("release", "small.yaml", "--to", "r2", "--strict")
    assert strict.returncode == 4
    assert "small/x: The model was exported without a validation" in strict.stderr
    assert not (folder / "r2").exists()


# ---------------------------------------------------------------- what is refused


def test_a_release_is_held_to_the_lock(folder, cli):
    assert cli("lock", "small.yaml").returncode == 0
    recipe = folder / "small.yaml"
    recipe.write_text(recipe.read_text().replace("- strip", "- strip: {identities: true}"))
    done = cli("release", "small.yaml", "--to", "r")
    assert done.returncode == 4
    assert "parameter identities of strip" in done.stderr
    assert not (folder / "r").exists()


def test_another_folder_is_not_replaced(project, tmp_path):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "thesis.txt").write_text("mine")
    with pytest.raises(StageFailed):
        make(project, tmp_path / "r")
    assert (tmp_path / "r" / "thesis.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r"]


def test_a_failed_step_makes_no_release(folder, cli):
    recipe = folder / "small.yaml"
    recipe.write_text(recipe.read_text().replace("- freeze", "- freeze: {bind: {nothing: 1}}"))
    done = cli("release", "small.yaml", "--to", "r")
    assert done.returncode == 2
    assert "there is no input 'nothing'" in done.stderr
    assert not (folder / "r").exists()


def test_a_file_that_changes_after_the_run_is_noticed(project, tmp_path, monkeypatch):
    from freezeflow.release import folder as writing

    def tampered(contents):
        artifact = next(iter(contents.artifacts()))
        data = artifact.file.read_bytes()
        artifact.file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        return documents(contents)

    documents = writing._documents
    monkeypatch.setattr(writing, "_documents", tampered)
    copy = tmp_path / "project"
    shutil.copytree(project, copy)
    with pytest.raises(FreezeflowError, match="changed while being read"):
        make(copy, tmp_path / "r")
    assert not (tmp_path / "r").exists()


# ---------------------------------------------------------------- comparing


@pytest.mark.slow
def test_two_releases_are_compared(released, project, tmp_path, cli):
    same = cli("diff", str(released), str(released), "--json")
    assert same.returncode == 0, same.stderr
    data = json.loads(same.stdout)
    assert [model["name"] for model in data["models"]] == [
        "artifacts/build/digits.pb",
        "artifacts/build/saved",
    ]
    assert data["files"] == []
    copy = tmp_path / "project"
    shutil.copytree(project, copy)
    (copy / "digits.yaml.lock").unlink()
    recipe = copy / "digits.yaml"
    recipe.write_text(
        recipe.read_text().replace("- freeze", "- freeze\n  - strip: {identities: true}")
    )
    releases.release(recipe, tmp_path / "r", cache_dir=tmp_path / "cache")
    done = cli("diff", str(released), str(tmp_path / "r"))
    assert done.returncode == 1
    assert "artifacts/build/digits.pb" in done.stdout
    assert "~ artifacts/build/saved/saved_model.pb" in done.stdout
    # A release against one of its models.
    one = cli("diff", str(released), str(released / "artifacts" / "build" / "digits.pb"))
    assert one.returncode == 1
    assert "- model artifacts/build/saved" in one.stdout
    (tmp_path / "r" / "release.json").write_text("{}")
    assert cli("diff", str(released), str(tmp_path / "r")).returncode == 5
