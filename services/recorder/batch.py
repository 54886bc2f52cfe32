"""Records on their way to rows: what was read of each, what cannot be read, and what the next commit stores."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import msgspec
import pyarrow as pa

from headrace.services.recorder import lean
from headrace.services.recorder.arrow import arrow_rows, same_value
from headrace.services.recorder.columns import Table

Row = tuple[Any, ...]
Rows = defaultdict[str, list[Row]]  # by table; a row has its table's columns in order

KNOWN_MS = (-62_135_596_800_000, 253_402_300_799_999)  # years 1 to 9999, what a TIMESTAMPTZ is shown as


class Batch:
    """Records of one event in one partition: what was read of each. `headers` only where rows need them."""

    __slots__ = ("bodies", "headers", "known_ms", "offsets", "partition")

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.offsets: list[int] = []
        self.known_ms: list[int] = []
        self.bodies: list[bytes] = []
        self.headers: list[Any] = []

    def places(self) -> dict[str, Any]:
        """The columns of the records' places."""
        return {"log_partition": same_value(self.partition, len(self.offsets)), "log_offset": self.offsets}


class Fault(msgspec.Struct):
    """A record that no retry can fix, and why."""

    offset: int
    known_ms: int
    reason: str
    body: bytes


class Made:
    """What the next commit puts into the store: rows and Arrow tables, by the name of their table."""

    def __init__(self) -> None:
        self.rows: Rows = defaultdict(list)
        self.parts: defaultdict[str, list[Any]] = defaultdict(list)

    def all(self, tables: Mapping[str, Table]) -> list[tuple[str, Any]]:
        """One Arrow table for each table that gets rows."""
        for name, rows in self.rows.items():
            if rows:  # a window of labels alone has no features, and adds none
                self.parts[name].append(arrow_rows(tables[name], rows))
        self.rows.clear()
        return [(name, pa.concat_tables(parts)) for name, parts in self.parts.items()]


def decoded(batch: Batch, decode: lean.Decode, *others: lean.Decode) -> tuple[list[Any], list[Fault]]:
    """The batch's events, each by the first decoder that takes it.

    Records that none takes, or of an impossible time, leave the batch as faults.
    """
    if KNOWN_MS[0] <= min(batch.known_ms) and max(batch.known_ms) <= KNOWN_MS[1]:
        try:
            return [decode(body) for body in batch.bodies], []
        except (ValueError, RecursionError):
            pass
    events, faults, kept = [], [], []
    for index, (offset, known_ms, body) in enumerate(zip(batch.offsets, batch.known_ms, batch.bodies, strict=True)):
        try:
            if not KNOWN_MS[0] <= known_ms <= KNOWN_MS[1]:
                raise ValueError(f"its timestamp, {known_ms} ms, is in no year from 1 to 9999")
            events.append(_first(body, decode, *others))
            kept.append(index)
        except (ValueError, RecursionError) as error:
            faults.append(Fault(offset, known_ms, str(error), body))
    for name in ("offsets", "known_ms", "bodies", "headers"):
        old = getattr(batch, name)
        setattr(batch, name, [old[index] for index in kept] if old else [])
    return events, faults


def _first(body: bytes, *decoders: lean.Decode) -> Any:
    *some, last = decoders
    for decode in some:
        try:
            return decode(body)
        except ValueError:
            continue
    return last(body)
