"""`/health` and `/metrics` of a service, on loopback, in a thread of their own."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.infra.service import Tickable
    from headrace.infra.settings import Settings


STALE_S = 60.0  # longer than any wait of a healthy loop: a flush gives up after a minute without a broker
ATTEMPTS = 5


class HealthServer:
    """Answers while the process lives; 503 where its loop has not turned for `STALE_S` (`beat` tells each turn)."""

    def __init__(self, service: str, settings: Settings, parts: Sequence[Tickable]) -> None:
        self._service, self._parts, self._began = service, parts, time.time()
        self._turned = time.monotonic()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer._answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                """Requests are not logged."""

        host, port = settings.health_host, settings.health_port
        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except OSError as error:
            raise OSError(f"HEADRACE_HEALTH_PORT: nothing can listen on {host}:{port} ({error.strerror})") from error
        self._server.daemon_threads = True
        self._address = host, int(self._server.server_address[1])
        self.url = f"http://{host}:{self._address[1]}/health"
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    def beat(self) -> None:
        """The loop has turned once more."""
        self._turned = time.monotonic()

    def close(self) -> None:
        """Stop answering."""
        ending = threading.Thread(target=self._server.shutdown)
        ending.start()
        with contextlib.suppress(OSError):  # a connection ends the server's wait, which would be half a second
            socket.create_connection(self._address, 1).close()
        ending.join()
        self._server.server_close()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        status = 200
        if request.path == "/health":
            told = self._health()
            status = 200 if told["status"] == "ok" else 503
            body, kind = json.dumps(told).encode(), "application/json"
        elif request.path == "/metrics":
            body, kind = "\n".join(self._metrics()).encode() + b"\n", "text/plain; version=0.0.4; charset=utf-8"
        else:
            request.send_error(404)
            return
        request.send_response(status)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def _health(self) -> dict[str, Any]:
        idle_s = time.monotonic() - self._turned
        return {
            "service": self._service,
            "status": "ok" if idle_s < STALE_S else f"the loop has not turned for {idle_s:.0f} s",
            "pid": os.getpid(),
            "up_s": round(time.time() - self._began, 1),
            "parts": [_counts(part) for part in self._parts],
        }

    def _metrics(self) -> Iterable[str]:
        yield "# HELP headrace_fold Numbers of a fold's input partition: offset, published, repeats, dead_letters."
        yield "# TYPE headrace_fold gauge"
        for part in self._parts:
            for place, numbers in _counts(part).items():
                if isinstance(numbers, dict):
                    for name, value in numbers.items():
                        if isinstance(value, int | float):
                            yield (
                                f'headrace_fold{{service="{self._service}",place="{place}",number="{name}"}} {value}'
                            )


def _counts(part: Tickable) -> dict[str, Any]:
    """What a part says of itself. Its loop works on meanwhile: a table may grow or shrink while it is read here."""
    for _ in range(ATTEMPTS - 1):
        with contextlib.suppress(RuntimeError):
            return part.counts()
    return part.counts()
