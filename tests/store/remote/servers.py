"""Servers for shared caches: real ones, each a process on this machine, and one that misbehaves."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

S3_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
}

# The account that Azurite has: https://learn.microsoft.com/azure/storage/common/storage-use-azurite
AZURE_ENVIRONMENT = {
    "AZURE_STORAGE_ACCOUNT_NAME": "devstoreaccount1",
    "AZURE_STORAGE_ACCOUNT_KEY": "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/"
    "KBHBeksoGMGw==",
}

_DAV_MODULE = Path("/usr/lib/nginx/modules/ngx_http_dav_ext_module.so")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def s3_server(log: Path) -> Iterator[str]:
    """moto's server, which enforces conditional writes; its address."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    environment = {**os.environ, **S3_ENVIRONMENT}
    with open(log, "wb") as out, _process(command, out, environment):
        _wait_for(port)
        yield f"http://127.0.0.1:{port}"


def make_bucket(endpoint: str, name: str) -> None:
    request = urllib.request.Request(f"{endpoint}/{name}", method="PUT")
    urllib.request.urlopen(request).close()


def has_azurite() -> bool:
    return shutil.which("azurite-blob") is not None


@contextlib.contextmanager
def azurite(log: Path) -> Iterator[str]:
    """Microsoft's emulator of Azure's blob storage; the address of its account."""
    port = free_port()
    words = ["azurite-blob", "--silent", "--skipApiVersionCheck", "--inMemoryPersistence"]
    command = [*words, "--blobHost", "127.0.0.1", "--blobPort", str(port)]
    with open(log, "wb") as out, _process(command, out, dict(os.environ)):
        _wait_for(port)
        yield f"http://127.0.0.1:{port}/{AZURE_ENVIRONMENT['AZURE_STORAGE_ACCOUNT_NAME']}"


def make_container(endpoint: str, name: str) -> None:
    """Azure's Create Container, with a shared key."""
    account = AZURE_ENVIRONMENT["AZURE_STORAGE_ACCOUNT_NAME"]
    key = base64.b64decode(AZURE_ENVIRONMENT["AZURE_STORAGE_ACCOUNT_KEY"])
    headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    lines = ["PUT", *[""] * 11, *(f"{name}:{value}" for name, value in headers.items())]
    signed = "\n".join([*lines, f"/{account}/{account}/{name}", "restype:container"])
    signature = base64.b64encode(hmac.new(key, signed.encode(), hashlib.sha256).digest()).decode()
    request = urllib.request.Request(
        f"{endpoint}/{name}?restype=container",
        method="PUT",
        headers={**headers, "Authorization": f"SharedKey {account}:{signature}"},
    )
    urllib.request.urlopen(request).close()


@contextlib.contextmanager
def spoiling_proxy(endpoint: str, spoil: Callable[[bytes], bytes | None]) -> Iterator[str]:
    """Stands before a server and changes what that answers; its address.

    Args:
        endpoint: The server's address.
        spoil: Given a piece of an answer, returns what goes on in its place; None hangs up.
    """
    parts = urlsplit(endpoint)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(
            target=_pass_on, args=(listener, (parts.hostname, parts.port), spoil), daemon=True
        ).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}{parts.path}"


def _pass_on(listener: socket.socket, target: Any, spoil: Callable[[bytes], bytes | None]) -> None:
    with contextlib.suppress(OSError):
        while True:
            caller, _ = listener.accept()
            server = socket.create_connection(target)
            ways = ((caller, server, lambda data: data), (server, caller, spoil))
            for way in ways:
                threading.Thread(target=_pump, args=way, daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket, change: Callable[[bytes], Any]) -> None:
    with contextlib.suppress(OSError):
        while (data := source.recv(65536)) and (changed := change(data)) is not None:
            sink.sendall(changed)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()


def has_nginx() -> bool:
    return shutil.which("nginx") is not None


@contextlib.contextmanager
def nginx(folder: Path) -> Iterator[str]:
    """nginx with WebDAV, without PROPFIND where that module is not installed; its address."""
    port = free_port()
    for name in ("data", "bodies"):
        (folder / name).mkdir(parents=True)
    module = f"load_module {_DAV_MODULE};" if _DAV_MODULE.exists() else ""
    methods = "dav_ext_methods PROPFIND OPTIONS;" if module else ""
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"""{module} {user} daemon off; pid {folder}/pid; error_log {folder}/error.log;
        events {{}}
        http {{
          access_log off; client_max_body_size 0;
          client_body_temp_path {folder}/bodies; proxy_temp_path {folder}/bodies;
          fastcgi_temp_path {folder}/bodies; uwsgi_temp_path {folder}/bodies;
          scgi_temp_path {folder}/bodies;
          server {{
            listen 127.0.0.1:{port}; root {folder}/data;
            location / {{
              dav_methods PUT DELETE MKCOL COPY MOVE; {methods}
              create_full_put_path on; dav_access user:rw;
            }}
          }}
        }}"""
    )
    command = ["nginx", "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
    with open(folder / "out.log", "wb") as out, _process(command, out, dict(os.environ)):
        _wait_for(port)
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def _process(command: list[str], out: Any, environment: dict[str, str]) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise TimeoutError(f"no server on port {port}")


class BadServer(ThreadingHTTPServer):
    """Serves a folder over HTTP and takes what is written to it; in a bad mood, it misbehaves.

    Attributes:
        mood: ``""``, or what it does to everything that lies under `spoiled`: ``silent``, ``trickle``,
            ``short``, ``flip``, ``page``, ``endless``, ``hang up``, or a status as ``500``.
        spoiled: Only paths with this text in them.
        asked: How many requests there were.
    """

    daemon_threads = True

    def __init__(self, folder: Path, mood: str = "", spoiled: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.mood = mood
        self.spoiled = spoiled
        self.asked = 0
        self.tokens: set[str] = set()
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that hung up is nothing to tell."""


@contextlib.contextmanager
def bad_server(folder: Path, mood: str = "", spoiled: str = "") -> Iterator[BadServer]:
    server = BadServer(folder, mood, spoiled)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: BadServer

    def log_message(self, format: str, *args: Any) -> None:
        """Tests want no log."""

    def do_GET(self) -> None:
        path = self._path()
        mood = self._mood()
        if mood == "silent":
            self.server.released.wait(30)
        elif mood == "hang up":
            pass
        elif mood.isdigit():
            self.send_error(int(mood))
        elif mood == "page":
            self._answer(b"<html>Please log in.</html>")
        elif not path.is_file():
            self.send_error(404)
        else:
            self._body(path.read_bytes(), mood)

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        mood = self._mood()
        path = self._path()
        if mood == "silent":
            self.server.released.wait(30)
        elif mood.isdigit():
            self.send_error(int(mood))
        elif self.headers.get("If-None-Match") == "*" and path.exists():
            self.send_error(412)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            self.send_response(201)
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _body(self, data: bytes, mood: str) -> None:
        if mood == "flip":
            middle = len(data) // 2
            data = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        if mood == "endless":
            data += bytes(1_000_000)
        if mood == "trickle" and self.command == "GET":
            self._head(len(data))
            for byte in data:
                if self.server.released.wait(0.1):
                    return
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
        elif mood == "short" and self.command == "GET":
            self._head(len(data))
            self.wfile.write(data[: len(data) // 2])
        else:
            self._answer(data)

    def _answer(self, data: bytes) -> None:
        self._head(len(data))
        if self.command == "GET":
            self.wfile.write(data)

    def _head(self, length: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.send_header("Last-Modified", "Fri, 27 Nov 2026 00:00:00 GMT")
        self.end_headers()

    def _mood(self) -> str:
        self.server.asked += 1
        self.server.tokens.add(self.headers.get("Authorization", ""))
        return self.server.mood if self.server.spoiled in self.path else ""

    def _path(self) -> Path:
        return self.server.folder / self.path.lstrip("/")
