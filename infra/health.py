"""`/health` and `/metrics` of a service, on loopback, in a thread of their own."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.infra.service import Tickable
    from headrace.infra.settings import Settings


class HealthServer:
    """Answers while the process lives. `stale_s` without a tick makes it unhealthy (503)."""

    def __init__(self, service: str, settings: Settings, parts: Sequence[Tickable]) -> None:
        self._service, self._parts, self._began = service, parts, time.time()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer._answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                """Requests are not logged."""

        self._server = ThreadingHTTPServer((settings.health_host, settings.health_port), Handler)
        self._server.daemon_threads = True
        self.url = f"http://{settings.health_host}:{self._server.server_address[1]}/health"
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        if request.path == "/health":
            body, kind = json.dumps(self._health()).encode(), "application/json"
        elif request.path == "/metrics":
            body, kind = "\n".join(self._metrics()).encode() + b"\n", "text/plain; version=0.0.4; charset=utf-8"
        else:
            request.send_error(404)
            return
        request.send_response(200)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def _health(self) -> dict[str, Any]:
        return {
            "service": self._service,
            "status": "ok",
            "pid": os.getpid(),
            "up_s": round(time.time() - self._began, 1),
            "parts": [part.counts() for part in self._parts],
        }

    def _metrics(self) -> Iterable[str]:
        yield "# HELP headrace_fold Numbers of a fold's input partition: offset, published, repeats, dead_letters."
        yield "# TYPE headrace_fold gauge"
        for part in self._parts:
            for place, numbers in part.counts().items():
                if isinstance(numbers, dict):
                    for name, value in numbers.items():
                        if isinstance(value, int | float):
                            yield (
                                f'headrace_fold{{service="{self._service}",place="{place}",number="{name}"}} {value}'
                            )
