"""Faults in ONNX files, in models that are sensitive and in others: the check finds each by default."""

import json
import subprocess
import sys

import pytest

from tests.exports.onnx_faults import FAULTS, MODELS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    command = [sys.executable, "-m", "tests.exports.onnx_faults", str(tmp_path_factory.mktemp("f"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_each_fault_is_found(rows):
    assert {row["fault"] for row in rows} == {"", *(fault.__name__ for fault in FAULTS)}
    assert [row for row in rows if row["fault"] and not row["found"]] == []


def test_a_file_without_a_fault_passes(rows):
    honest = [row for row in rows if not row["fault"]]
    assert {row["model"] for row in honest} == set(MODELS)
    assert [row for row in honest if row["found"]] == []
    # The rule for steep models is put to the test, too.
    assert any(row["sway"] for row in honest)
