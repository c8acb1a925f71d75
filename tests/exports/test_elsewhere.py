"""Frozen graphs where no Python is, and where TensorFlow is not."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.exports.running import DIGITS, ROOT, Branches

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def tensorflow_folder():
    program = "import importlib.util as u; print(u.find_spec('tensorflow').origin)"
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    )
    return Path(found.stdout.strip()).parent


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """The digits, frozen and folded."""
    exports = {"folded": {"to": "folded.pb"}}
    return Branches(
        tmp_path_factory.mktemp("elsewhere"), exports, jobs=1, before=("freeze", "strip", "fold")
    )


@pytest.mark.slow
@pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")
def test_the_c_program_of_the_docs(graphs, tmp_path):
    home = tensorflow_folder()
    program = tmp_path / "run_frozen"
    command = [COMPILER, f"-I{home / 'include'}", ROOT / "docs" / "run_frozen.c", "-o", program]
    command += [f"-L{home}", "-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2"]
    subprocess.run([*command, f"-Wl,-rpath,{home}", "-Wl,--allow-shlib-undefined"], check=True)
    (file, *_) = graphs.published("folded")
    done = subprocess.run(
        [program, file, "image", "probabilities"], capture_output=True, check=True, text=True
    )
    found = [float(number) for number in done.stdout.split()]
    assert len(found) == 10
    assert sum(found) == pytest.approx(1.0, abs=1e-4)
    assert len((ROOT / "docs" / "run_frozen.c").read_text().splitlines()) < 35


OPENCV = """
import sys, cv2, numpy
data = numpy.load(sys.argv[2])
net = cv2.dnn.readNetFromTensorflow(sys.argv[1])
net.setInput(numpy.ascontiguousarray(data["image"].transpose(0, 3, 1, 2)))
print(float(numpy.mean(net.forward().argmax(-1) == data["labels"])))
"""


@pytest.mark.slow
def test_opencv_reads_the_folded_network(graphs):
    """In a process of its own: its reader has crashed on other graphs."""
    pytest.importorskip("cv2")
    (file, *_) = graphs.published("folded")
    done = subprocess.run(
        [sys.executable, "-c", OPENCV, file, DIGITS / "held_out.npz"],
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 0.9
