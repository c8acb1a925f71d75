"""A server that speaks as much of Google Cloud Storage's XML API as a shared cache uses.

https://cloud.google.com/storage/docs/xml-api/reference-methods

Objects in memory, with generations, preconditions (``x-goog-if-generation-match``), ranges, lists, and
uploads in parts. Emulators that can be installed do not have the XML API with its preconditions, which
is what clients in Rust speak.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

_MODIFIED = "2026-11-27T00:00:00.000Z"
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class GcsServer(ThreadingHTTPServer):
    """The server; its one bucket takes any name."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lock = threading.Lock()
        self.generation = 0
        self.objects: dict[str, tuple[int, bytes]] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that hung up is nothing to tell."""


@contextlib.contextmanager
def gcs_server() -> Iterator[str]:
    """The server's address."""
    server = GcsServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body in one piece: else each answer waits for an acknowledgement.
    wbufsize = 1 << 16
    server: GcsServer

    def log_message(self, format: str, *args: Any) -> None:
        """Tests want no log."""

    def do_GET(self) -> None:
        name, query = self._asked()
        if not name:
            self._list(query)
            return
        found = self.server.objects.get(name)
        if found is None:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        generation, data = found
        wanted = _RANGE.fullmatch(self.headers.get("Range", ""))
        status = 200
        more = {}
        if wanted:
            first, last = int(wanted[1]), int(wanted[2] or len(data) - 1)
            more["Content-Range"] = f"bytes {first}-{min(last, len(data) - 1)}/{len(data)}"
            status, data = 206, data[first : last + 1]
        self._answer(status, data, generation, more)

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        name, query = self._asked()
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if "uploadId" in query:
            self.server.uploads[query["uploadId"]][int(query["partNumber"])] = data
            self._answer(200, b"", int(query["partNumber"]))
            return
        self._put(name, data, b"")

    def do_POST(self) -> None:
        name, query = self._asked()
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "uploads" in query:
            upload = f"upload-{len(self.server.uploads)}"
            self.server.uploads[upload] = {}
            xml = "<InitiateMultipartUploadResult><Bucket>b</Bucket><Key>k</Key>"
            xml += f"<UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
            self._answer(200, xml.encode())
            return
        parts = self.server.uploads.pop(query["uploadId"])
        whole = b"".join(parts[number] for number in sorted(parts))
        done = b'<CompleteMultipartUploadResult><ETag>"1"</ETag></CompleteMultipartUploadResult>'
        self._put(name, whole, done)

    def do_DELETE(self) -> None:
        name, query = self._asked()
        self.server.uploads.pop(query.get("uploadId", ""), None)
        if "uploadId" not in query:
            self.server.objects.pop(name, None)
        self._answer(204, b"")

    def _put(self, name: str, data: bytes, body: bytes) -> None:
        expected = self.headers.get("x-goog-if-generation-match")
        with self.server.lock:
            generation, _ = self.server.objects.get(name, (0, b""))
            if expected is not None and int(expected) != generation:
                self._answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
                return
            self.server.generation += 1
            self.server.objects[name] = (self.server.generation, data)
            self._answer(200, body, self.server.generation)

    def _list(self, query: dict[str, str]) -> None:
        prefix = query.get("prefix", "")
        rows = [
            f"<Contents><Key>{escape(name)}</Key><Size>{len(data)}</Size>"
            f'<LastModified>{_MODIFIED}</LastModified><ETag>"{generation}"</ETag></Contents>'
            for name, (generation, data) in sorted(self.server.objects.items())
            if name.startswith(prefix)
        ]
        xml = (
            f"<ListBucketResult><IsTruncated>false</IsTruncated>{''.join(rows)}</ListBucketResult>"
        )
        self._answer(200, xml.encode())

    def _asked(self) -> tuple[str, dict[str, str]]:
        """The object that the request names, empty for the bucket, and its query."""
        parts = urlsplit(self.path)
        _, _, name = parts.path.lstrip("/").partition("/")
        query = {
            key: values[0] for key, values in parse_qs(parts.query, keep_blank_values=True).items()
        }
        return unquote(name), query

    def _answer(
        self, status: int, body: bytes, generation: int = 0, more: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        headers = {
            "Content-Length": str(len(body)),
            "Last-Modified": "Fri, 27 Nov 2026 00:00:00 GMT",
        }
        headers |= {"ETag": f'"{generation}"', "x-goog-generation": str(generation), **(more or {})}
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
