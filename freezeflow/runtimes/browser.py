"""A headless Chromium without a network: it is led over pipes, which bring all that a page asks for.

Source of the protocol: https://chromedevtools.github.io/devtools-protocol/, over
``--remote-debugging-pipe``: JSON messages that end in a zero byte, on descriptors 3 and 4.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import functools
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from freezeflow.errors import RuntimeRefused

# Where a page believes to be; no name server is ever asked for it.
ORIGIN = "http://freezeflow.localhost/"

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")

# Its own sandbox takes rights that a confined process does not have; the confinement is the sandbox.
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--log-level=3",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--no-default-browser-check",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--remote-debugging-pipe",
)

# It makes a socket among its temporary files, whose path may have about 100 characters.
_HERE = "/proc/self/cwd"

# Longer than this no page is silent, however large its model.
_SILENCE_S = 300.0


def found() -> str | None:
    """The browser, by CHROME_PATH or its usual names."""
    names = (os.environ.get("CHROME_PATH", ""), *_NAMES)
    return next((path for name in names if name and (path := shutil.which(name))), None)


@functools.cache
def version() -> str:
    """What the browser says of itself; empty where there is none."""
    program = found()
    if program is None:
        return ""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return " ".join(done.stdout.split()[:2])


# Becomes the browser, with the pipes where it looks for them.
_START = """
import os, sys
for given, wanted in zip(map(int, sys.argv[1:3]), (3, 4)):
    os.dup2(given, wanted)
os.execv(sys.argv[3], sys.argv[3:])
"""


def _high(descriptor: int) -> int:
    """The same under a number that is in nobody's way."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(descriptor)
    return moved


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser that ends with the block; `folder` is made, for its profile.

    Raises:
        RuntimeRefused: There is none.
    """
    program = found()
    if program is None:
        raise RuntimeRefused("there is no Chromium")
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    folder.mkdir()
    profile = f"--user-data-dir={folder}"
    theirs = [_high(theirs_in), _high(theirs_out)]
    process = subprocess.Popen(
        [sys.executable, "-c", _START, *map(str, theirs), program, *_FLAGS, profile],
        stdin=subprocess.DEVNULL,
        pass_fds=theirs,
        cwd=folder,
        env={**os.environ, "TMPDIR": _HERE},
    )
    for descriptor in theirs:
        os.close(descriptor)
    try:
        yield Browser(ours_in, ours_out)
    finally:
        with contextlib.suppress(OSError):
            os.write(ours_out, b'{"id":0,"method":"Browser.close"}\0')
        os.close(ours_out)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()
        os.close(ours_in)


class Browser:
    """A browser that is led over two pipes."""

    def __init__(self, receiving: int, sending: int) -> None:
        self._receiving, self._sending = receiving, sending
        self._numbers = itertools.count(1)
        self._buffer = b""

    def evaluate(self, page: str, expression: str, serve: Callable[[str], bytes | None]) -> Any:
        """Opens a page and gives what an expression, once its promise is kept, comes to there.

        Args:
            page: Its name below `ORIGIN`.
            expression: JavaScript; its value is JSON.
            serve: Name below `ORIGIN` to what is there; None for nothing.

        Raises:
            RuntimeRefused: The page raises an error, or the browser ends or says nothing any more.
        """
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._call("Fetch.enable", session, serve)
        self._call("Page.enable", session, serve)
        self._send("Page.navigate", session, url=f"{ORIGIN}{page}")
        while self._event(session, serve).get("method") != "Page.loadEventFired":
            pass
        told = self._call(
            "Runtime.evaluate",
            session,
            serve,
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
        )
        if "exceptionDetails" in told:
            thrown = told["exceptionDetails"]
            text = thrown.get("exception", {}).get("description") or thrown["text"]
            raise RuntimeRefused(str(text).splitlines()[0])
        return told["result"].get("value")

    def _call(
        self,
        method: str,
        session: str = "",
        serve: Callable[[str], bytes | None] = lambda name: None,
        **params: Any,
    ) -> Any:
        number = self._send(method, session, **params)
        while True:
            message = self._event(session, serve)
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeRefused(f"Chromium: {message['error']['message']}")
                return message["result"]

    def _event(self, session: str, serve: Callable[[str], bytes | None]) -> dict[str, Any]:
        """The next message; a page's requests are answered on the way."""
        message = self._receive()
        if message.get("method") == "Fetch.requestPaused":
            asked = message["params"]
            self._answer(asked["requestId"], session, serve, asked["request"]["url"])
        return message

    def _answer(
        self, request: str, session: str, serve: Callable[[str], bytes | None], url: str
    ) -> None:
        data = serve(url.removeprefix(ORIGIN)) if url.startswith(ORIGIN) else None
        kind = "text/html" if url.endswith(".html") else "application/octet-stream"
        self._send(
            "Fetch.fulfillRequest",
            session,
            requestId=request,
            responseCode=404 if data is None else 200,
            responseHeaders=[{"name": "Content-Type", "value": kind}],
            body=base64.b64encode(data or b"").decode(),
        )

    def _send(self, method: str, session: str = "", **params: Any) -> int:
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        data = memoryview(json.dumps(message).encode() + b"\0")
        try:
            while data:
                data = data[os.write(self._sending, data) :]
        except BrokenPipeError:
            raise RuntimeRefused("Chromium has ended") from None
        return number

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._receiving], [], [], _SILENCE_S)
            data = os.read(self._receiving, 1 << 20) if ready else b""
            if not data:
                what = "has ended" if ready else f"has said nothing for {_SILENCE_S:.0f} s"
                raise RuntimeRefused(f"Chromium {what}")
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        found_message: dict[str, Any] = json.loads(message)
        return found_message
