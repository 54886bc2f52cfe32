"""The one owner of the DuckDB file: rows, offsets and sequences go in with one transaction.

User queries run beside it on cursors of the same database (`cursor`), so its settings are made safe for them at
opening and then locked: from SQL no file, no network and no extension can be reached (the recorder writes its
Parquet files through Arrow).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb

from headrace.infra.bus import Place
from headrace.infra.store import StateRefused
from headrace.schemas.contract import ContractSpec
from headrace.schemas.policies import Policies, Slice
from headrace.services.recorder.arrow import arrow_rows
from headrace.services.recorder.columns import Column, Table, View
from headrace.services.recorder.slices import Sliced, sliced, slices_view
from headrace.services.recorder.sql import literal, quoted
from headrace.services.recorder.tables import LAYOUT, TABLES, feature_columns, features_table
from headrace.services.recorder.views import VIEWS, comments, examples_view, training_view

READERS_S = 5.0  # how long a commit without memory waits for interrupted queries to end


class StoreRefused(StateRefused):
    """The file cannot be used, or a commit failed: another owner, another layout, a full disk. Says what to do."""


@dataclass
class Position:
    """How far one partition of a topic is in the store, and the largest sequence of each source in it."""

    topic_id: str
    next_offset: int
    sequences: dict[str, int] = field(default_factory=dict)
    stored: bool = False


POSITIONS = Table(
    "positions",
    "up to where each topic is in this store",
    (
        Column("topic", "VARCHAR", "as the broker knows it"),
        Column("partition", "BIGINT", "its partition"),
        Column("topic_id", "VARCHAR", "the topic's id; another one after delete and recreate"),
        Column("next_offset", "BIGINT", "the first offset that is not in the store yet"),
        Column("sequences", "VARCHAR", "{source: largest sequence seen}, to drop repeats"),
    ),
)
META = Table(
    "meta",
    "facts about this file",
    (
        Column("name", "VARCHAR", "of the fact"),
        Column("value", "VARCHAR", "the fact"),
    ),
)
DEFINITIONS = hashlib.sha256(repr((TABLES, VIEWS, POSITIONS, META)).encode()).hexdigest()
KEYS = {"positions": "topic, partition", "meta": "name"}


class Store:
    """Opens the file, or makes it; None keeps it in memory. Raises StoreRefused."""

    def __init__(self, path: Path | None, *, memory_limit: str = "1GB", threads: int = 2) -> None:
        self.path = path
        self.features: dict[str, Table] = {}
        self.tables = TABLES | {table.name: table for table in (POSITIONS, META)}
        self._slices: dict[str, tuple[Sliced, ...]] = {}
        self._readers: set[duckdb.DuckDBPyConnection] = set()
        self.connection = _connect(path, memory_limit, threads)
        try:
            self._prepare()
        except BaseException:
            self.connection.close()
            raise

    @contextlib.contextmanager
    def reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Another connection to the same database, for one thread; interrupted where a commit lacks memory."""
        cursor = self.connection.cursor()
        self._readers.add(cursor)
        try:
            yield cursor
        finally:
            self._readers.discard(cursor)
            cursor.close()

    def contracts(self) -> dict[str, list[ContractSpec]]:
        """Every pipeline's contracts, oldest release first."""
        found: dict[str, list[ContractSpec]] = {}
        for pipeline, contract in self.connection.execute(
            "SELECT pipeline, contract FROM releases ORDER BY pipeline, release"
        ).fetchall():
            found.setdefault(pipeline, []).append(ContractSpec.model_validate_json(contract))
        return found

    def releases(self) -> set[tuple[str, int]]:
        """Which releases are in the store."""
        return set(self.connection.execute("SELECT pipeline, release FROM releases").fetchall())

    def positions(self) -> dict[Place, Position]:
        """Where each topic is to be read on, with the sequences seen."""
        return {
            (topic, partition): Position(topic_id, next_offset, json.loads(sequences), stored=True)
            for topic, partition, topic_id, next_offset, sequences in self.connection.execute(
                "FROM positions"
            ).fetchall()
        }

    def commit(self, batches: Iterable[tuple[str, Any]], positions: Mapping[Place, Position]) -> None:
        """Put Arrow tables (each with the name of its table) and positions in, all or nothing; durable when it returns.

        `positions` are those that changed.
        """
        where = [(*place, p.topic_id, p.next_offset, json.dumps(p.sequences)) for place, p in positions.items()]
        parts = [*batches, *([(POSITIONS.name, arrow_rows(POSITIONS, where))] if where else [])]
        try:
            try:
                self._write(parts)
            except duckdb.OutOfMemoryException:
                self._interrupt_readers()
                self._write(parts)
        except duckdb.Error as error:
            raise StoreRefused(
                f"{self.path}: a commit failed ({error}). Nothing of it is stored; "
                "the recorder goes on there when it starts again."
            ) from error

    def add_pipeline(self, pipeline: str, contracts: list[ContractSpec]) -> None:
        """Make the pipeline's typed table and views, or add the columns of a new release."""
        table = features_table(pipeline, feature_columns(contracts))
        with self._transaction():
            self._create(table)
            for column in table.columns:
                self.connection.execute(
                    f"ALTER TABLE {quoted(table.name)} ADD COLUMN IF NOT EXISTS {quoted(column.name)} {column.type}"
                )
            self._comment("TABLE", table)
            self.features[pipeline] = self.tables[table.name] = table
            self._create_view(training_view(pipeline, table, contracts[-1]))
            self._create_view(examples_view(self.features))
            self._slices[pipeline] = sliced(self._declared(pipeline), contracts, table.name)
            self._create_view(slices_view(self._slices))

    def checkpoint(self) -> None:
        """Move what is in the write-ahead log into the file."""
        self.connection.execute("CHECKPOINT")

    def close(self) -> None:
        """Write everything into the one file and let it go."""
        self.connection.close()

    def _prepare(self) -> None:
        known = {name for (name,) in self.connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
        facts = self._facts() if "meta" in known else {}
        if known and facts.get("layout") != LAYOUT:
            raise StoreRefused(
                f"{self.path} is no store of layout {LAYOUT}. Move it aside: "
                "the recorder then makes a new one from the log."
            )
        if facts.get("definitions") != DEFINITIONS:
            with self._transaction():
                for table in self.tables.values():
                    self._create(table)
                    self._comment("TABLE", table)
                for view in (*VIEWS, examples_view({}), slices_view({})):
                    self._create_view(view)
                self._insert(META, arrow_rows(META, [("layout", LAYOUT), ("definitions", DEFINITIONS)]))
        there = set(self.connection.execute("SELECT table_name, column_name FROM duckdb_columns()").fetchall())
        for pipeline, contracts in self.contracts().items():
            table = features_table(pipeline, feature_columns(contracts))
            self.features[pipeline] = self.tables[table.name] = table
            self._slices[pipeline] = sliced(self._declared(pipeline), contracts, table.name)
            if facts.get("definitions") != DEFINITIONS or not there.issuperset(
                (table.name, column.name) for column in table.columns
            ):
                self.add_pipeline(pipeline, contracts)

    def _declared(self, pipeline: str) -> tuple[Slice, ...]:
        """The slices of the pipeline's newest release."""
        sql = "SELECT policies FROM releases WHERE pipeline = ? ORDER BY release DESC LIMIT 1"
        found = self.connection.execute(sql, [pipeline]).fetchone()
        return Policies.model_validate_json(found[0]).slices if found is not None else ()

    def _facts(self) -> dict[str, str]:
        return dict(self.connection.execute("FROM meta").fetchall())

    def _create(self, table: Table) -> None:
        columns = ", ".join(f"{quoted(column.name)} {column.type}" for column in table.columns)
        key = f", PRIMARY KEY ({KEYS[table.name]})" if table.name in KEYS else ""
        self.connection.execute(f"CREATE TABLE IF NOT EXISTS {quoted(table.name)} ({columns}{key})")

    def _create_view(self, view: View) -> None:
        self.connection.execute(f"CREATE OR REPLACE VIEW {quoted(view.name)} AS {view.sql}")
        self._comment("VIEW", view)

    def _comment(self, kind: str, what: Table | View) -> None:
        self.connection.execute(f"COMMENT ON {kind} {quoted(what.name)} IS {literal(what.comment)}")
        says = comments(what)
        for (name,) in self.connection.execute(
            "SELECT column_name FROM duckdb_columns() WHERE table_name = ?", [what.name]
        ).fetchall():
            if name in says:
                self.connection.execute(
                    f"COMMENT ON COLUMN {quoted(what.name)}.{quoted(name)} IS {literal(says[name])}"
                )

    def _write(self, parts: Iterable[tuple[str, Any]]) -> None:
        with self._transaction():
            for name, batch in parts:
                self._insert(self.tables[name], batch)
            self.connection.unregister("incoming")

    def _interrupt_readers(self) -> None:
        deadline = time.monotonic() + READERS_S
        while self._readers and time.monotonic() < deadline:
            for cursor in list(self._readers):
                interrupt(cursor)
            time.sleep(0.01)

    def _insert(self, table: Table, batch: Any) -> None:
        columns = ", ".join(quoted(column.name) for column in table.columns)
        values = ", ".join(
            f"TRY_CAST({quoted(column.name)} AS JSON)"
            if column.type == "JSON" and batch[column.name].null_count < batch.num_rows
            else quoted(column.name)
            for column in table.columns
        )
        verb = "INSERT OR REPLACE" if table.name in KEYS else "INSERT"
        self.connection.register("incoming", batch)
        self.connection.execute(f"{verb} INTO {quoted(table.name)} ({columns}) SELECT {values} FROM incoming")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self.connection.execute("BEGIN TRANSACTION")
        try:
            yield
        except BaseException:
            with contextlib.suppress(duckdb.Error):
                self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")


def interrupt(cursor: duckdb.DuckDBPyConnection) -> None:
    """Stop what the cursor does, if it still does something."""
    with contextlib.suppress(duckdb.Error):
        cursor.interrupt()


def _connect(path: Path | None, memory_limit: str, threads: int) -> duckdb.DuckDBPyConnection:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        con = duckdb.connect(
            ":memory:" if path is None else str(path),
            config={
                "threads": threads,
                "memory_limit": memory_limit,
                "max_temp_directory_size": "10GB",
                "autoload_known_extensions": False,
                "autoinstall_known_extensions": False,
                "allow_community_extensions": False,
            },
        )
        for setting in (
            "TimeZone = 'UTC'",
            "python_enable_replacements = false",
            "enable_external_access = false",
            "lock_configuration = true",
        ):
            con.execute(f"SET GLOBAL {setting}")
    except duckdb.Error as error:
        raise StoreRefused(
            f"{path} cannot be opened ({error}). Is another recorder running? If the file is damaged, move it aside: "
            "the recorder then makes a new one from the log."
        ) from error
    return con
