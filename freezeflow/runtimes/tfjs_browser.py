"""TensorFlow.js in a page of a headless Chromium, on the backend that it chooses there.

That is WebGL, computed by SwiftShader where there is no graphics card, else the processor.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path

from freezeflow.errors import RuntimeRefused
from freezeflow.runtimes import browser, tfjs_runtime
from freezeflow.runtimes.runtime import Runtime, Subject
from freezeflow.values import Json

_HERE = Path(__file__).parent

_PAGE = b"""<!doctype html><meta charset="utf-8"><title>freezeflow</title>
<script src="tf.min.js"></script><script src="tfjs_calls.js"></script><script src="tfjs_page.js"></script>
"""


def answer(subject: Subject, calls: Path, answers: Path) -> Mapping[str, Json]:
    """Answers saved calls with a graph model; tells the ``backend``."""
    file, names = subject.file, subject.names
    library = tfjs_runtime.installed()
    if library is None:
        raise RuntimeRefused(tfjs_runtime.missing())
    ends = {"inputs": dict(names.inputs), "outputs": dict(names.outputs)}
    there = {
        "page.html": _PAGE,
        "names.json": json.dumps(ends).encode(),
        "tf.min.js": (library / "dist" / "tf.min.js").read_bytes(),
        **{name: (_HERE / name).read_bytes() for name in ("tfjs_calls.js", "tfjs_page.js")},
        **{f"calls{suffix}": Path(f"{calls}{suffix}").read_bytes() for suffix in (".json", ".bin")},
    }

    def serve(name: str) -> bytes | None:
        kind, _, below = name.partition("/")
        if kind != "model":
            return there.get(name)
        path = file.parent / below
        return path.read_bytes() if path.is_file() else None

    with browser.browser(answers.with_name("browser")) as opened:
        try:
            found = json.loads(opened.evaluate("page.html", "answers()", serve))
        except RuntimeRefused as error:
            raise RuntimeRefused(f"TensorFlow.js in a page: {error.message}") from error
    Path(f"{answers}.bin").write_bytes(base64.b64decode(found["data"]))
    Path(f"{answers}.json").write_text(json.dumps(found["index"]))
    return {"backend": found["backend"]}


def missing() -> str:
    """What there is to be installed, in words; empty if all is there."""
    if browser.found() is None:
        return (
            "Chromium is not installed (apt-get install chromium; CHROME_PATH names another place)"
        )
    if tfjs_runtime.installed() is None:
        return f"{tfjs_runtime.PACKAGE} is not installed: npm install {tfjs_runtime.PACKAGE}"
    return ""


def version() -> str:
    """The versions of TensorFlow.js and of the browser."""
    return f"{tfjs_runtime.version()}, {browser.version()}"


RUNTIME = Runtime(
    name="tfjs_browser",
    answer=answer,
    tools=(),
    narrowed=tfjs_runtime.RUNTIME.narrowed,
    version=version,
    missing=missing,
)
