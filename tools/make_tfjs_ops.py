"""Writes the list of ops that TensorFlow.js takes, from an installed @tensorflow/tfjs-converter.

Run it as ``python -m tools.make_tfjs_ops NODE_MODULES``.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

TABLE = Path(__file__).resolve().parent.parent / "freezeflow" / "graph" / "data" / "tfjs_ops.txt"


def main(modules: Path) -> None:
    """Reads the converter's own lists, a file for each category."""
    package = modules / "@tensorflow" / "tfjs-converter"
    version = json.loads((package / "package.json").read_text())["version"]
    names: set[str] = set()
    for file in sorted((package / "dist" / "operations" / "op_list").glob("*.js")):
        names |= set(re.findall(r"'?tfOpName'?: '(\w+)'", file.read_text()))
    if not names:
        sys.exit(f"no list of ops in {package}")
    lines = [f"# @tensorflow/tfjs-converter {version}", *sorted(names)]
    TABLE.write_text("\n".join(lines) + "\n")
    print(f"{len(names)} ops of {version}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
