import json

import pytest

from freezeflow.exports.coreml import FORMAT

pytestmark = pytest.mark.slow


def test_the_structure_is_checked_and_the_report_says_so(ran_slowly):
    facts = ran_slowly.facts("coreml")
    assert facts["structure"]["kind"] == "mlProgram"
    assert facts["check"] is None
    assert "only the structure was checked" in facts["note"]
    assert FORMAT.extra == "coreml"


def test_the_package(ran_slowly):
    folder = ran_slowly.folder / "cm" / "m.mlpackage"
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"Manifest.json", "freezeflow.manifest.json"} <= names
    assert any(name.endswith("weight.bin") for name in names)
    manifest = json.loads((folder / "freezeflow.manifest.json").read_text())
    assert manifest["export"]["inputs"] == {"image": "image"}
    assert set(manifest["files"]) == names - {"freezeflow.manifest.json"}


def test_the_entries_have_the_same_names_again(ran_slowly):
    one, other = (ran_slowly.folder / "cm" / f"{name}.mlpackage" / "Manifest.json" for name in "ma")
    assert one.read_bytes() == other.read_bytes()
