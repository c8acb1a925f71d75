"""Imports run one way; what is imported is declared; the version is one."""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from freezeflow.version import VERSION

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MODULES = sorted((ROOT / "freezeflow").rglob("*.py"))

# Of the standard library, also where Python is too old to have it.
KNOWN = sys.stdlib_module_names | {"tomllib"}

# They come with TensorFlow, which names the versions that go with it; tf_keras is an extra.
WITH_TENSORFLOW = {"h5py", "keras", "ml_dtypes", "tf_keras"}

# Extras whose packages freezeflow imports where they are used.
EXTRAS = (
    "coreml",
    "dask",
    "images",
    "model-signing",
    "onnx",
    "openvino",
    "remote",
    "sign",
    "tflite",
)

# Modules that are not called like their package.
PACKAGES = {
    "PIL": "pillow",
    "ai_edge_litert": "ai-edge-litert",
    "OpenSSL": "pyopenssl",
    "google": "protobuf",
    "model_signing": "model-signing",
    "yaml": "pyyaml",
}


def lint_imports(folder):
    script = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [script, "--no-cache"], cwd=folder, capture_output=True, text=True, check=False
    )


def test_the_contracts_hold():
    found = lint_imports(ROOT)
    assert found.returncode == 0, found.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("store/files.py", "import freezeflow.engine.run", "One way through the house"),
        ("sources/keras.py", "import freezeflow.stages.stage", "One way through the house"),
        ("graph/walk.py", "import tensorflow", "TensorFlow only in freezeflow.tf"),
        ("stages/fold.py", "import google.protobuf", "Messages stay with"),
        ("stages/strip.py", "import freezeflow.messages", "Messages stay with"),
        ("anew.py", "", "One way through the house"),
    ],
    ids=lambda value: value.split("/")[-1],
)
def test_the_contracts_can_break(tmp_path, file, line, contract):
    shutil.copytree(ROOT / "freezeflow", tmp_path / "freezeflow")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "freezeflow" / file).open("a", encoding="utf-8") as stream:
        # Inside a function: that, too, is an import.
        stream.write(f"\n\ndef added():\n    {line or 'pass'}\n")
    found = lint_imports(tmp_path)
    assert found.returncode == 1
    assert " 0 broken" not in found.stdout
    assert contract in found.stdout


def loaded_by(names):
    """What is loaded when these modules are, in a fresh interpreter."""
    script = (
        f"import importlib, json, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        f"print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(json.loads(done.stdout))


def test_only_the_tensorflow_room_needs_tensorflow():
    names = [module_name(path) for path in MODULES if path.name != "__main__.py"]
    names = [name for name in names if not name.startswith(("freezeflow.tf", "freezeflow.proof"))]
    loaded = loaded_by(names)
    assert "freezeflow.engine.run" in loaded
    assert not loaded & {"tensorflow", "keras", "h5py", "ml_dtypes", "numpy", "freezeflow.tf"}


def test_the_proof_room_needs_numpy_alone():
    names = [module_name(path) for path in MODULES if "proof" in path.parts]
    loaded = loaded_by(names)
    assert "numpy" in loaded
    assert not loaded & {"tensorflow", "keras", "h5py", "PIL", "freezeflow.tf"}


def test_every_import_is_a_declared_dependency():
    extras = PROJECT["project"]["optional-dependencies"]
    requirements = [*PROJECT["project"]["dependencies"]]
    requirements += [package for name in EXTRAS for package in extras[name]]
    declared = {normal(requirement) for requirement in requirements}
    used = {
        PACKAGES.get(name, name)
        for path in MODULES
        for name in imported(path)
        if name not in KNOWN | WITH_TENSORFLOW | {"freezeflow"}
    }
    assert used == declared


def test_the_version_is_that_of_the_package():
    assert PROJECT["project"]["version"] == VERSION


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path):
    """First parts of the names that a file imports, inside functions, too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def normal(requirement):
    name = re.match(r"[\w.-]+", requirement)
    assert name
    return name[0].lower()
