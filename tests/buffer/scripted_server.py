"""An HTTP server on loopback that answers as told: what S3 servers say on bad days."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler], None]


def status(code: int, body: bytes = b"", **headers: str) -> Answer:
    """Answer with a status; an underscore in a header's name is a dash."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        fields = {"Content-Length": str(len(body)), "ETag": '"e"',
                  "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}  # fmt: skip
        for name, value in (fields | {k.replace("_", "-"): v for k, v in headers.items()}).items():
            if value:
                request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)

    return answer


def dropped(request: BaseHTTPRequestHandler) -> None:
    """End the connection without an answer, after the request was read."""
    request.connection.shutdown(socket.SHUT_RDWR)
    request.close_connection = True


def silent(request: BaseHTTPRequestHandler) -> None:
    """Say nothing for longer than the client waits."""
    time.sleep(1)
    dropped(request)


def cut_off(request: BaseHTTPRequestHandler) -> None:
    """Promise 100 bytes, send 10 and end the connection."""
    status(200, b"0123456789", Content_Length="100")(request)
    dropped(request)


class Script:
    """The server's side of a test.

    Attributes:
        answers: One for each request to come, in turn; the last one stays.
        requests: (method, path, headers) of each that came.
    """

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[tuple[str, str, dict[str, str]]] = []

    def take(self, request: BaseHTTPRequestHandler) -> None:
        request.rfile.read(int(request.headers.get("Content-Length") or 0))
        self.requests.append((request.command, request.path, dict(request.headers)))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        answer(request)


@contextlib.contextmanager
def serving() -> Iterator[tuple[str, Script]]:
    script = Script()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            with contextlib.suppress(OSError):
                super().handle_one_request()

        def do_GET(self) -> None:
            script.take(self)

        do_PUT = do_HEAD = do_DELETE = do_POST = do_GET  # noqa: N815 (the base class's names)

        def log_message(self, *_) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", script
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
