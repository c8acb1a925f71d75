"""Exported graph models in a page of a headless browser."""

import functools
import http.server
import json
import subprocess
import threading

import numpy as np
import pytest
import tensorflow as tf

from freezeflow.errors import RuntimeRefused
from freezeflow.runtimes import browser, tfjs_browser, tfjs_runtime
from tests.exports.conftest import WISHES
from tests.exports.running import DIGITS, Branches

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.found() is None, reason="Chromium is not installed"),
]

EXPORTS = {
    "full": {"to": "full", "format": "tfjs", "check": False},
    "half": {"to": "half", "format": "tfjs", "quantize": "float16", "check": False},
}
CHECKS = {
    "full-in-page": ("full", {"runtime": "tfjs_browser", **WISHES, "labels": "labels"}),
    "half-in-page": ("half", {"runtime": "tfjs_browser"}),
    "too-strict": ("half", {"runtime": "tfjs_browser", "atol": 0.0, "rtol": 0.0}),
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory, tfjs):
    if not tfjs:
        pytest.skip("Node.js or npm is not here, or npm cannot install @tensorflow/tfjs")
    return Branches(tmp_path_factory.mktemp("pages"), EXPORTS, jobs=1, checks=CHECKS)


def test_the_page_answers_as_the_original_does(pages):
    verdict = pages.facts("full-in-page")["runtime_verdicts"][0]
    assert verdict["runtime"].startswith("tfjs_browser 4.")
    assert "Chromium" in verdict["runtime"] or "Chrome" in verdict["runtime"]
    assert verdict["backend"] in ("webgl", "cpu")
    assert verdict["outputs"]["probabilities"]["max_abs"] < 1e-4
    assert verdict["accuracy"]["result"] > 0.9
    half = pages.facts("half-in-page")["runtime_verdicts"][0]
    assert half["precision"] == "float16"
    assert "is not what the original gives" in pages.error("too-strict").message
    assert any(
        "chrom" in version.lower() for version in pages.plan_step("half-in-page").tools.values()
    )


def test_an_error_in_the_page_is_told(tmp_path):
    with (
        browser.browser(tmp_path / "profile") as opened,
        pytest.raises(RuntimeRefused, match="gone"),
    ):
        opened.evaluate("p.html", "Promise.reject(new Error('gone'))", {"p.html": b"<p>"}.get)


PAGE = """<!doctype html><meta charset="utf-8"><script src="tf.min.js"></script><script>
(async () => {
  const given = await (await fetch('given.json')).json();
  const found = {};
  for (const backend of ['cpu', 'webgl']) {
    if (!await tf.setBackend(backend).catch(() => false)) continue;
    const model = await tf.loadGraphModel('model/model.json');
    const result = await model.executeAsync({[given.input]: tf.tensor(given.image)}, [given.output]);
    found[backend] = await (Array.isArray(result) ? result[0] : result).array();
  }
  await fetch('found', {method: 'POST', body: JSON.stringify(found)});
})().catch((error) => fetch('found', {method: 'POST', body: JSON.stringify({error: `${error}`})}));
</script>"""


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder on this machine, and waits for what a page sends back."""

    def __init__(self, folder):
        class Handler(http.server.SimpleHTTPRequestHandler):
            def do_POST(self):
                length = int(self.headers["Content-Length"])
                self.server.found = json.loads(self.rfile.read(length))
                self.send_response(204)
                self.end_headers()
                self.server.done.set()

            def log_message(self, *args):
                pass

        self.found, self.done = None, threading.Event()
        super().__init__(("127.0.0.1", 0), functools.partial(Handler, directory=folder))


def test_a_page_of_a_web_server_gets_the_same_numbers(pages, tmp_path):
    """As users serve it: over HTTP, without anything of freezeflow's in the page."""
    images = np.load(DIGITS / "held_out.npz")["image"][:5]
    signature = tf.saved_model.load(str(DIGITS / "model")).signatures["serving_default"]
    (expected,) = (value.numpy() for value in signature(image=tf.constant(images)).values())
    manifest = json.loads((pages.folder / "full" / "freezeflow.manifest.json").read_text())
    (name,), (output,) = (manifest["export"][side].values() for side in ("inputs", "outputs"))
    (tmp_path / "index.html").write_text(PAGE)
    (tmp_path / "model").symlink_to(pages.folder / "full")
    (tmp_path / "tf.min.js").symlink_to(tfjs_runtime.installed() / "dist" / "tf.min.js")
    given = {"image": images.tolist(), "input": name, "output": output}
    (tmp_path / "given.json").write_text(json.dumps(given))
    with Server(tmp_path) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/index.html"
        profile = f"--user-data-dir={tmp_path / 'profile'}"
        flags = ["--headless=new", "--no-sandbox", "--use-angle=swiftshader", profile]
        flags += ["--disable-dev-shm-usage", "--enable-unsafe-swiftshader"]
        process = subprocess.Popen(
            [browser.found(), *flags, address],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            assert server.done.wait(120), "the page sent nothing"
        finally:
            process.terminate()
            process.wait()
            server.shutdown()
    assert "cpu" in server.found, server.found
    for backend, values in server.found.items():
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5, err_msg=backend)


def test_what_is_missing_is_told(monkeypatch):
    monkeypatch.setattr(browser, "found", lambda: None)
    assert "apt-get install chromium" in tfjs_browser.missing()
