"""Asks the recorder's store over HTTP: what `headrace query` and the console use. Standard library only."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.infra.settings import Settings


class QueryFailed(RuntimeError):
    """The store refused the statement; the message is DuckDB's, or says what is not allowed."""


class StoreUnreachable(ConnectionError):
    """No recorder answers; the message says what to do."""


@dataclass(frozen=True)
class Answer:
    """Rows of one statement; `truncated` where there were more than the limit."""

    columns: list[str]
    types: list[str]
    rows: list[list[Any]]
    truncated: bool
    seconds: float


def query(settings: Settings, sql: str, limit: int = 10_000, timeout_s: float = 60.0) -> Answer:
    """Run one statement that reads. Raises QueryFailed, StoreUnreachable."""
    token = settings.query_token.get_secret_value() if settings.query_token else None
    return ask(f"http://{settings.query_host}:{settings.query_port}", sql, limit, token, timeout_s)


def ask(url: str, sql: str, limit: int = 10_000, token: str | None = None, timeout_s: float = 60.0) -> Answer:
    """Run one statement at the store served at `url`. Raises QueryFailed, StoreUnreachable."""
    request = urllib.request.Request(
        f"{url}/query",
        json.dumps({"sql": sql, "limit": limit}).encode(),
        {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {}),
    )
    try:
        with _opener.open(request, timeout=timeout_s) as response:
            found = json.load(response)
    except urllib.error.HTTPError as refusal:
        raise QueryFailed(_reason(refusal)) from refusal
    except OSError as error:
        raise StoreUnreachable(f"no recorder answers at {url} ({getattr(error, 'reason', error)})") from error
    return Answer(
        [column["name"] for column in found["columns"]],
        [column["type"] for column in found["columns"]],
        found["rows"],
        found["truncated"],
        found["seconds"],
    )


_opener = urllib.request.build_opener(
    urllib.request.ProxyHandler({})
)  # the store is on this machine or named: no proxy


def _reason(refusal: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(refusal.read())["error"])
    except (ValueError, KeyError, TypeError):
        return f"the store answered {refusal.code}"
