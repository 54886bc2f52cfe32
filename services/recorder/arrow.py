"""Values as Arrow tables. A cell that does not fit its column becomes NULL; a row is never lost for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from headrace.services.recorder.columns import CHECK, PROBLEM, QUICK_CHECK, Column, Table

_NUMBER, _WORD, _COUNT, _UTC_US = pa.float64(), pa.string(), pa.int64(), pa.timestamp("us", "UTC")
TYPES: dict[str, Any] = {
    "VARCHAR": _WORD,
    "JSON": _WORD,
    "BIGINT": _COUNT,
    "DOUBLE": _NUMBER,
    "BOOLEAN": pa.bool_(),
    "BLOB": pa.binary(),
    "TIMESTAMPTZ": pa.timestamp("ms", "UTC"),
    "DOUBLE[]": pa.list_(_NUMBER),
    PROBLEM: pa.list_(pa.struct([("code", _WORD), ("feature", _WORD), ("message", _WORD)])),
    QUICK_CHECK: pa.list_(pa.struct([("name", _WORD), ("passed", pa.bool_()), ("value", _NUMBER), ("limit", _NUMBER)])),
    CHECK: pa.list_(
        pa.struct(
            [
                ("name", _WORD),
                ("verdict", _WORD),
                ("value", _NUMBER),
                ("limit", _NUMBER),
                ("n", _COUNT),
                ("detail", _WORD),
            ]
        )
    ),
}


def arrow_rows(table: Table, rows: Sequence[tuple[Any, ...]]) -> Any:
    """Rows, each with the table's columns in order, as one Arrow table."""
    names = [column.name for column in table.columns]
    return arrow_columns(table, dict(zip(names, zip(*rows, strict=True), strict=True)))


def arrow_columns(table: Table, values: Mapping[str, Any]) -> Any:
    """Columns by name as one Arrow table in the table's order: lists, Arrow columns, or None for a column of NULLs."""
    columns = [_column(column, values[column.name]) for column in table.columns]
    rows = next(len(column) for column in columns if column is not None)
    return pa.table(
        [pa.nulls(rows, _type(c)) if made is None else made for c, made in zip(table.columns, columns, strict=True)],
        names=[column.name for column in table.columns],
    )


def same_value(value: str | int, n: int) -> Any:
    """An Arrow column of one value."""
    return pa.repeat(value, n)


def seconds_between(begins_ms: Sequence[int], ends_ms: Sequence[int]) -> Any:
    """An Arrow column of differences."""
    return pc.divide(pc.cast(pc.subtract(pa.array(ends_ms), pa.array(begins_ms)), _NUMBER), 1000.0)


def _type(column: Column) -> Any:
    return _UTC_US if column.text else TYPES[column.type]


def _column(column: Column, values: Any) -> Any:
    if values is None or isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    try:
        if column.text:
            return pc.cast(pa.array(values, _WORD), _UTC_US)
        return pa.array(values, TYPES[column.type])
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        return pa.array([_cell(column, value) for value in values], _type(column))


def _cell(column: Column, value: Any) -> Any:
    try:
        if column.text:
            time = msgspec.convert(value, datetime)
            return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
        pa.array([value], TYPES[column.type])
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        return None
    return value
