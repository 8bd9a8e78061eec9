"""The HTTP API served in a thread, and a client that sends exactly what it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from app.api.server import ApiServer
from app.bootstrap import App
from support.servers import wait_until


@dataclass(frozen=True)
class ApiResponse:
    """A response: status, headers by their names in lower case, and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class ApiClient:
    """Sends requests to one server, with a key if it has one."""

    url: str
    key: str | None = None

    def with_key(self, key: str | None) -> ApiClient:
        return ApiClient(self.url, key)

    def send(
        self, method: str, path: str, body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> ApiResponse:  # fmt: skip
        own = {} if self.key is None else {"Authorization": f"Bearer {self.key}"}
        connection = HTTPConnection(urlsplit(self.url).netloc, timeout=300)
        try:
            connection.request(method, path, body, own | dict(headers or {}))
            response = connection.getresponse()
            fields = {name.lower(): value for name, value in response.getheaders()}
            return ApiResponse(response.status, fields, response.read())
        finally:
            connection.close()

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> ApiResponse:
        return self.send("GET", path, None, headers)

    def post(self, path: str, document: object, **headers: str) -> ApiResponse:
        sent = {"Content-Type": "application/json"} | headers
        return self.send("POST", path, json.dumps(document).encode(), sent)

    def post_form(
        self, path: str, files: Mapping[str, bytes], texts: Mapping[str, str] | None = None,
        *, method: str = "POST",
    ) -> ApiResponse:  # fmt: skip
        boundary = uuid4().hex
        head = f"--{boundary}\r\nContent-Disposition: form-data; name="
        octets = "\r\nContent-Type: application/octet-stream"
        parts = [
            f'{head}"{name}"; filename="{name}.png"{octets}\r\n\r\n'.encode() + data + b"\r\n"
            for name, data in files.items()
        ]
        parts += [
            f'{head}"{name}"\r\n\r\n{text}\r\n'.encode() for name, text in (texts or {}).items()
        ]
        body = b"".join([*parts, f"--{boundary}--\r\n".encode()])
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        return self.send(method, path, body, headers)


@contextmanager
def api_served(app: App, host: str = "127.0.0.1") -> Iterator[ApiClient]:
    """The HTTP API over the services of an App, in a thread, on any free port."""
    with ApiServer(app, host, 0) as server:
        thread = threading.Thread(target=server.run, name="api")
        thread.start()
        try:
            wait_until(lambda: server.started, "the API does not start")
            yield ApiClient(server.address)
        finally:
            server.stop()
            thread.join(300)
