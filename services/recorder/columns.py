"""What a table is, and the columns that many have."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """One column; `text` marks a time that rows hold as RFC 3339 text, all others hold milliseconds since 1970."""

    name: str
    type: str
    comment: str
    text: bool = False


@dataclass(frozen=True)
class Table:
    """One table with a sentence about its rows."""

    name: str
    comment: str
    columns: tuple[Column, ...]


@dataclass(frozen=True)
class View:
    """One view; `columns` comment those that mean something else than the tables' columns of that name."""

    name: str
    comment: str
    sql: str
    columns: tuple[Column, ...]


PIPELINE = Column("pipeline", "VARCHAR", "the pipeline's name")
ID = Column("id", "VARCHAR", "the example's id as published, or its place in data-arrived")
ENTITY = Column("entity", "VARCHAR", "what the example is about, where the pipeline has entities")
EVENT_TIME = Column("event_time", "TIMESTAMPTZ", "when it happened", text=True)
KNOWN_AT = Column("known_at", "TIMESTAMPTZ", "when the log first had what this row came from")
RELEASE = Column("release", "BIGINT", "the pipeline's release in force")
PLACE = (
    Column("log_partition", "BIGINT", "partition of the row's topic"),
    Column("log_offset", "BIGINT", "offset in the row's topic"),
)
ORIGIN = (
    Column("origin_partition", "BIGINT", "partition of the example in data-arrived"),
    Column("origin_offset", "BIGINT", "offset of the example in data-arrived"),
)
ARM = (
    Column("version", "BIGINT", "the model's version; NULL before it passed its first gate"),
    Column("run", "VARCHAR", "the run that learned the model"),
    Column("learned_to", "BIGINT", "offset of labelled-examples up to which (exclusive) the model had learned"),
    Column("prediction", "VARCHAR", "the answer where it is a class (true, false or its name); NULL in regression"),
    Column("score", "DOUBLE", "P(true) for a bool label, the probability of the answer for classes, else the number"),
)
CHECK = 'STRUCT(name VARCHAR, verdict VARCHAR, value DOUBLE, "limit" DOUBLE, n BIGINT, detail VARCHAR)[]'
QUICK_CHECK = 'STRUCT(name VARCHAR, passed BOOLEAN, value DOUBLE, "limit" DOUBLE)[]'
PROBLEM = "STRUCT(code VARCHAR, feature VARCHAR, message VARCHAR)[]"
