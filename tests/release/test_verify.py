"""Whatever byte of whatever published file is another one, it is found."""

from __future__ import annotations

import json
import random
import shutil

import pytest

from freezeflow.api import releases
from freezeflow.errors import UsageError


def flip(path, offset, bit=0):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1 << bit
    path.write_bytes(data)


def copied(released, tmp_path, ending):
    source = released.with_name(f"release{ending}")
    target = tmp_path / source.name
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy(source, target)
    return target


@pytest.mark.parametrize("ending", ["", ".tar", ".oci"])
def test_a_release_as_it_was_written(released, ending):
    found = releases.verify(released.with_name(f"release{ending}"))
    assert found.faults == ()
    assert found.verification.files == len([p for p in released.rglob("*") if p.is_file()])


@pytest.mark.parametrize("ending", ["", ".tar", ".oci"])
def test_any_flipped_byte_of_any_file_is_found(released, tmp_path, ending):
    copy = copied(released, tmp_path, ending)
    files = [copy] if copy.is_file() else [p for p in sorted(copy.rglob("*")) if p.is_file()]
    generator = random.Random(7)
    for path in files:
        data = path.read_bytes()
        tries = 300 if ending == ".tar" else 8
        places = {0, len(data) - 1, *(generator.randrange(len(data)) for _ in range(tries))}
        for place in places:
            flip(path, place, bit := generator.randrange(8))
            faults = releases.verify(copy).faults
            assert faults, (path.name, place)
            # A name in the sums that is another one is told as two files.
            if not ending and path.name != "SHA256SUMS":
                assert path.relative_to(copy).as_posix() in {fault.where for fault in faults}
            flip(path, place, bit)
    assert releases.verify(copy).faults == ()


def test_every_byte_of_the_sums_and_of_the_description(released, tmp_path):
    copy = copied(released, tmp_path, "")
    sums = copy / "SHA256SUMS"
    for place in range(0, len(sums.read_bytes()), 7):
        flip(sums, place, place % 8)
        assert releases.verify(copy).faults, place
        flip(sums, place, place % 8)


@pytest.mark.parametrize("ending", ["", ".oci"])
def test_missing_and_additional_files(released, tmp_path, ending):
    copy = copied(released, tmp_path, ending)
    for path in [p for p in sorted(copy.rglob("*")) if p.is_file()]:
        data = path.read_bytes()
        path.unlink()
        if path.name == "oci-layout":
            # Then it is a folder that looks like an image layout and is none.
            assert releases.verify(copy).faults
        else:
            assert releases.verify(copy).faults, path
        path.write_bytes(data)
    (copy / "more").write_text("")
    assert [fault.text for fault in releases.verify(copy).faults]
    (copy / "more").unlink()
    (copy / "link").symlink_to("README.md")
    assert any("no plain file" in fault.text for fault in releases.verify(copy).faults)


def test_a_tar_cut_short_or_longer(released, tmp_path):
    copy = copied(released, tmp_path, ".tar")
    whole = copy.read_bytes()
    for data in (whole[:-512], whole[: len(whole) // 2], whole + b"\0" * 512, whole + b"x"):
        copy.write_bytes(data)
        assert releases.verify(copy).faults


def rewrite(folder, name, change):
    """Changes a document and everything that names its digest, as someone with care would."""
    from freezeflow.release.contents import json_bytes
    from freezeflow.release.folder import sums_text
    from freezeflow.release.packing import PackedFile
    from freezeflow.store.hashing import sha256_of

    data = change((folder / name).read_bytes())
    (folder / name).write_bytes(data)
    description = json.loads((folder / "release.json").read_bytes())
    if name != "release.json":
        description["files"][name].update(sha256=sha256_of(data), bytes=len(data))
        (folder / "release.json").write_bytes(json_bytes(description))
    files = {
        path.relative_to(folder).as_posix(): sha256_of(path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and path.name != "SHA256SUMS"
    }
    sums = sums_text({name: PackedFile(name, digest, 0) for name, digest in files.items()})
    (folder / "SHA256SUMS").write_text(sums)


@pytest.mark.parametrize(
    ("name", "said_by"),
    [
        ("artifacts/build/digits.pb", "digits.manifest.json"),
        ("artifacts/build/digits.manifest.json", "lock"),
        ("artifacts/build/saved/saved_model.pb", "freezeflow.manifest.json"),
        ("recipe/digits.yaml", "provenance.json"),
        ("recipe/digits.yaml.lock", "provenance.json"),
    ],
)
def test_documents_that_contradict_each_other(released, tmp_path, name, said_by):
    copy = copied(released, tmp_path, "")
    rewrite(copy, name, lambda data: data + b"\n")
    faults = releases.verify(copy).faults
    assert any(said_by in f"{fault.where} {fault.text}" for fault in faults), faults


def test_a_lock_or_provenance_of_another_release(released, tmp_path):
    copy = copied(released, tmp_path, "")

    def other(data):
        text = data.decode()
        digest = json.loads((released / "release.json").read_bytes())["files"][
            "artifacts/build/digits.pb"
        ]["sha256"]
        assert digest in text
        return text.replace(digest, "0" * 63 + "a").encode()

    for name in ("recipe/digits.yaml.lock", "attestations/provenance.json", "bom.cdx.json"):
        before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}
        rewrite(copy, name, other)
        assert any(
            fault.where == "artifacts/build/digits.pb" and name in fault.text
            for fault in releases.verify(copy).faults
        )
        for path, data in before.items():
            path.write_bytes(data)


# ---------------------------------------------------------------- without a release


def test_what_a_recipe_published(cli, folder):
    assert cli("lock", "small.yaml").returncode == 0
    done = cli("verify", "small.yaml")
    assert done.returncode == 0
    assert "3 files" in done.stdout
    for name in ("build/small.pb", "build/small.manifest.json"):
        path = folder / name
        size = path.stat().st_size
        flip(path, size // 2)
        assert cli("verify", "small.yaml").returncode == 4, name
        flip(path, size // 2)
    model = cli("verify", "build/small.pb", "--json")
    assert json.loads(model.stdout)["ok"] is True
    flip(folder / "build" / "small.pb", 5000)
    model = cli("verify", "build/small.pb")
    assert model.returncode == 4
    assert "build/small.pb is not what small.manifest.json says" in model.stdout
    (folder / "build" / "small.pb").unlink()
    assert "is missing; small.yaml.lock names it" in cli("verify", "small.yaml").stdout


def test_an_exported_saved_model(released):
    assert releases.verify(released / "artifacts" / "build" / "saved").faults == ()


def test_nothing_to_verify(tmp_path):
    for name in ("nowhere", "nowhere.tar", "nowhere.yaml"):
        with pytest.raises(UsageError):
            releases.verify(tmp_path / name)
    with pytest.raises(UsageError, match="only a release is signed"):
        releases.verify(tmp_path / "x.pb", keys=["k"])


def test_verify_needs_no_tensorflow(imported, released):
    found = imported("verify", str(released))
    assert not found & {"tensorflow", "keras", "numpy", "networkx", "rich", "securesystemslib"}
