"""Runs SQL from outside beside the writer: read-only, limited in rows and time, results as JSON or Arrow."""

from __future__ import annotations

import base64
import threading
import time
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from headrace.services.recorder.guard import Guard, Refused
from headrace.services.recorder.store import Store, interrupt

MAX_ROWS = 1_000_000
BATCH_ROWS = 10_000


class Failed(Exception):
    """The SQL was not carried out; the message is the engine's."""


@dataclass(frozen=True)
class Answer:
    """Rows of one statement as Arrow batches; `truncated` where there were more than the limit."""

    schema: Any
    batches: list[Any]
    truncated: bool
    seconds: float

    def arrow(self) -> bytes:
        """As an Arrow IPC stream."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.schema) as writer:
            for batch in self.batches:
                writer.write_batch(batch)
        return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]

    def json(self) -> bytes:
        """As JSON: columns with their types, rows as lists. Raises Failed for a value that JSON cannot show."""
        try:
            rows = [list(row) for batch in self.batches for row in zip(*map(_values, batch.columns), strict=True)]
            return msgspec.json.encode(
                {
                    "columns": [{"name": field.name, "type": str(field.type)} for field in self.schema],
                    "rows": rows,
                    "truncated": self.truncated,
                    "seconds": round(self.seconds, 4),
                }
            )
        except (ValueError, TypeError, OverflowError, RecursionError, pa.ArrowException) as error:
            raise Failed(f"the result cannot be shown as JSON ({error}); cast the column to VARCHAR") from error


class Queries:
    """Runs statements on cursors of the store, each for at most `timeout_s`."""

    def __init__(self, store: Store, timeout_s: float = 30.0) -> None:
        self.timeout_s = timeout_s
        self._store, self._guard = store, Guard()

    def run(self, sql: str, limit: int) -> Answer:
        """The answer, cut at `limit` rows. Raises Failed; the message says why."""
        began = time.monotonic()
        try:
            self._guard.check(sql)
        except Refused as refusal:
            raise Failed(str(refusal)) from refusal
        with self._store.reading() as cursor:
            alarm = threading.Timer(self.timeout_s, interrupt, [cursor])
            alarm.start()
            try:
                cursor.execute("BEGIN TRANSACTION READ ONLY")
                schema, batches, truncated = _read(cursor, sql, min(limit, MAX_ROWS))
            except duckdb.InterruptException as error:
                raise Failed(f"stopped after {time.monotonic() - began:.1f} s: {error}") from error
            except (duckdb.Error, pa.ArrowException, ValueError, RuntimeError) as error:
                raise Failed(str(error)) from error
            finally:
                alarm.cancel()
        return Answer(schema, batches, truncated, time.monotonic() - began)


def _read(cursor: duckdb.DuckDBPyConnection, sql: str, limit: int) -> tuple[Any, list[Any], bool]:
    relation: Any = cursor.sql(sql)
    if relation is None:
        return pa.schema([]), [], False
    reader = relation.to_arrow_reader(min(limit + 1, BATCH_ROWS))
    batches, rows = [], 0
    for batch in reader:
        batches.append(batch.slice(0, limit - rows))
        rows += batch.num_rows
        if rows > limit:
            break
    return reader.schema, batches, rows > limit


def _values(column: Any) -> list[Any]:
    kind = column.type
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_string(kind):
        return column.to_pylist()  # type: ignore[no-any-return]
    try:
        return [_plain(value) for value in column.to_pylist()]
    except (ValueError, OverflowError, pa.ArrowException):  # a time that Python cannot hold
        return pc.cast(column, pa.string()).to_pylist()  # type: ignore[no-any-return]


def _plain(value: Any) -> Any:
    match value:
        case None | bool() | float() | str():
            return value
        case int():
            return value if -(2**63) <= value < 2**64 else str(value)
        case Decimal():
            return _number(value)
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
        case date():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case bytes():
            return base64.b64encode(value).decode()
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
        case list():
            pairs = bool(value) and all(isinstance(item, tuple) and len(item) == 2 for item in value)
            return {str(k): _plain(v) for k, v in value} if pairs else [_plain(item) for item in value]
        case _:
            return str(value)


def _number(value: Decimal) -> int | float | str:
    if not value.is_finite() or len(value.as_tuple().digits) > 15:
        whole = value == value.to_integral_value() if value.is_finite() else False
        return int(value) if whole and -(2**63) <= value < 2**63 else str(value)
    return int(value) if value == value.to_integral_value() else float(value)
