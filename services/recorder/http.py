"""The read-only HTTP side of the store: `POST /query`, `GET /health`. Every refusal is JSON with a reason.

Queries run in threads of their own, at most `SLOTS` at a time, and never hold up the writer.
"""

from __future__ import annotations

import asyncio
import hmac
import threading
from collections.abc import Callable
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, Header, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from headrace.infra.settings import is_loopback
from headrace.services.recorder.guard import MAX_SQL
from headrace.services.recorder.queries import MAX_ROWS, Answer, Failed, Queries

SLOTS = 4
GRACE_S = 1.0  # what an interrupted query gets to end, before its client is answered
MAX_BODY = 8 * MAX_SQL  # bytes
ARROW = "application/vnd.apache.arrow.stream"


class Query(BaseModel):
    """One statement that reads, and how many rows to return at most."""

    model_config = ConfigDict(extra="forbid")

    sql: str = Field(min_length=1, max_length=MAX_SQL)
    limit: int = Field(10_000, ge=0, le=MAX_ROWS)


class Problem(BaseModel):
    """Why a request was not carried out."""

    error: str


def make_app(queries: Queries, token: str | None, health: Callable[[], dict[str, Any]]) -> FastAPI:
    """The application. With a token every route needs `Authorization: Bearer …`; `/health` says only `ok` without."""
    app = FastAPI(title="Headrace store", docs_url=None, redoc_url=None)
    slots = threading.BoundedSemaphore(SLOTS)
    problems: dict[int | str, dict[str, Any]] = {code: {"model": Problem} for code in (400, 401, 413, 422, 429)}

    @app.post("/query", responses=problems, response_model=None)
    async def query(body: Query, request: Request, accept: Annotated[str | None, Header()] = None) -> Response:
        """Run one statement that reads."""
        if not slots.acquire(blocking=False):
            return _problem(429, f"{SLOTS} queries are running; try again when one has ended", {"Retry-After": "1"})
        as_arrow = ARROW in (accept or "")
        try:
            content, truncated = await _in_thread(slots, queries, body, as_arrow)
        except TimeoutError:
            return _problem(400, f"stopped after {queries.timeout_s:g} s")
        except Failed as failure:
            return _problem(400, str(failure))
        headers = {"X-Headrace-Truncated": "true"} if truncated else {}
        return Response(content, media_type=ARROW if as_arrow else "application/json", headers=headers)

    @app.get("/health")
    async def healthy(request: Request) -> dict[str, Any]:
        """Up to where each topic is in the store."""
        return health() if request.scope["may_read"] else {"status": "ok"}

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return _problem(422, "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()))

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> Response:
        return _problem(error.status_code, str(error.detail), dict(error.headers or {}))

    app.add_middleware(BodyLimit)
    app.add_middleware(TokenCheck, token=token)
    return app


class TokenCheck:
    """Refuses every route but `/health` without the right token, before a body is read; notes who may read."""

    def __init__(self, app: Any, token: str | None) -> None:
        self._app, self._token = app, None if token is None else f"Bearer {token}".encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer 401 or pass the request on."""
        if scope["type"] == "http":
            given = dict(scope["headers"]).get(b"authorization", b"")
            scope["may_read"] = self._token is None or hmac.compare_digest(given, self._token)
            if not scope["may_read"] and scope["path"] != "/health":
                answer = _problem(401, "this needs the token of HEADRACE_QUERY_TOKEN", {"WWW-Authenticate": "Bearer"})
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)


class BodyLimit:
    """Refuses a body of more than `MAX_BODY` bytes while it is read."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer 413 or pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            more = message.get("more_body", False)
            if size > MAX_BODY:
                await _problem(413, f"a request has at most {MAX_BODY} bytes")(scope, receive, send)
                return
        body: list[Any] = [{"type": "http.request", "body": b"".join(parts), "more_body": False}]

        async def replay() -> Any:
            return body.pop() if body else await receive()

        await self._app(scope, replay, send)


class QueryServer:
    """Serves the application from a thread. Refuses an address that others can reach without a token.

    Raises OSError where the port is taken.
    """

    def __init__(
        self, queries: Queries, host: str, port: int, token: str | None, health: Callable[[], dict[str, Any]]
    ) -> None:
        if not is_loopback(host) and not token:
            raise ValueError(f"{host} is no loopback address; serving queries there needs HEADRACE_QUERY_TOKEN")
        config = uvicorn.Config(
            make_app(queries, token, health),
            host=host,
            port=port,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=2,
        )
        self._server = uvicorn.Server(config)
        try:
            self._socket = config.bind_socket()
        except SystemExit as end:  # uvicorn would end the process, and say why only in its own log
            why = getattr(end.__context__, "strerror", None) or "no reason is known"
            raise OSError(f"{why}: {host}:{port}; HEADRACE_QUERY_PORT names another port for queries") from end
        self._socket.listen()  # from here on nobody is turned away, also before the thread runs
        self.url = f"http://{host}:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="queries", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.should_exit = True
        self._thread.join(timeout=5)
        self._socket.close()


async def _in_thread(
    slots: threading.BoundedSemaphore, queries: Queries, body: Query, as_arrow: bool
) -> tuple[bytes, bool]:
    """Run in a thread that does not outlive the process, and wait no longer than the queries' timeout allows.

    An interrupt ends nearly every query at once; one that it does not keeps its slot until it ends.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[tuple[bytes, bool]] = loop.create_future()

    def settle(result: tuple[bytes, bool] | None, error: Exception | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        elif result is not None:
            done.set_result(result)

    def work() -> None:
        result, failure = None, None
        try:
            answer: Answer = queries.run(body.sql, body.limit)
            result = (answer.arrow() if as_arrow else answer.json()), answer.truncated
        except Exception as error:
            failure = error
        finally:
            slots.release()
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=work, name="query", daemon=True).start()
    return await asyncio.wait_for(done, queries.timeout_s + GRACE_S)


def _problem(status: int, error: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": error.encode("utf-8", "replace").decode()}, status, headers)
