"""An S3 server on loopback, and one in front of it that misbehaves as networks and stores do."""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pytest
import s3fs
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer
from werkzeug.serving import WSGIRequestHandler

from augnet.storage import addresses

BUCKET = "audits"
FAULTS = ("503", "slow down", "no answer", "cut answer", "slow")
HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "date", "server"}


class Proxy(ThreadingHTTPServer):
    """Passes requests on to an S3 server, but for a share of them that it spoils.

    Attributes:
        share: of the requests that are spoiled; 1 for a store that is down.
        below: what the path of a request holds that is spoiled.
        faults: the ways to spoil one, some of FAULTS.
        spoiled: how many were, by way.
        sent: bytes of the bodies of answers.
    """

    daemon_threads = True

    def __init__(self, port: int, seed: int):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind, self.share, self.faults, self.below = port, 0.0, FAULTS, "/"
        self.spoiled: Counter[str] = Counter()
        self.sent = 0
        self._random, self._lock = random.Random(seed), threading.Lock()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def draw(self, path: str) -> str | None:
        """How the next request is spoiled; None if it is not."""
        if self.below not in path:
            return None
        with self._lock:
            fault = self._random.choice(self.faults) if self._random.random() < self.share else None
            if fault:
                self.spoiled[fault] += 1
        return fault

    def handle_error(self, *_: object) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms for the client's acknowledgement
    server: Proxy

    def pass_on(self) -> None:
        fault = self.server.draw(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if fault == "503":
            return self.answer(503, {}, b"")
        if fault == "slow down":
            text = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
            return self.answer(503, {"Content-Type": "application/xml"}, text)
        if fault == "no answer":
            return self.hang_up()
        if fault == "slow":
            time.sleep(0.3)
        behind = http.client.HTTPConnection("127.0.0.1", self.server.behind)
        behind.request(self.command, self.path, body, dict(self.headers))
        answer = behind.getresponse()
        data = answer.read()
        behind.close()
        headers = {key: value for key, value in answer.getheaders() if key.lower() not in HOP_BY_HOP}
        if self.command == "HEAD":
            headers["Content-Length"] = answer.getheader("Content-Length", "0")
        self.answer(answer.status, headers, data, cut=fault == "cut answer")
        return None

    do_DELETE = do_GET = do_HEAD = do_POST = do_PUT = pass_on

    def answer(self, status: int, headers: dict[str, str], data: bytes, cut: bool = False) -> None:
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(data))} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        data = b"" if self.command == "HEAD" else data
        if cut:
            self.wfile.write(data[: len(data) // 2])
            return self.hang_up()
        self.wfile.write(data)
        with self.server._lock:
            self.server.sent += len(data)
        return None

    def hang_up(self) -> None:
        """Reset the connection, as a server that dies does."""
        self.wfile.flush()
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextmanager
def s3_server(patch: pytest.MonkeyPatch, seed: int = 0, bucket: str = BUCKET) -> Iterator[Proxy]:
    """The proxy of a running S3 server with an empty bucket, which the environment leads s3fs to."""
    patch.setattr(WSGIRequestHandler, "disable_nagle_algorithm", True)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    s3_backends.reset()  # what servers hold is this process's
    proxy = Proxy(server.get_host_and_port()[1], seed)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    environment = {
        "AWS_ENDPOINT_URL": proxy.address,
        "AWS_ACCESS_KEY_ID": "key-of-the-test",
        "AWS_SECRET_ACCESS_KEY": "hunter2-of-the-test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }
    for name, value in environment.items():
        patch.setenv(name, value)
    patch.delenv("AWS_PROFILE", raising=False)
    # The libraries pause for seconds between tries of their own; what is tested is ours.
    patch.setattr(s3fs.S3FileSystem, "retries", 1)
    patch.setattr(addresses, "PAUSES_SECONDS", (0.02,) * 6)
    fsspec.filesystem("s3").clear_instance_cache()
    try:
        fsspec.filesystem("s3").mkdir(bucket)
        yield proxy
    finally:
        fsspec.filesystem("s3").clear_instance_cache()
        proxy.shutdown()
        proxy.server_close()
        server.stop()
