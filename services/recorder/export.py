"""Parquet snapshots of the store, each consistent at the offsets in its manifest; readable while the recorder writes.

A snapshot is a folder with one file a table and `manifest.json`. It is written beside its place, made durable, and
published by renaming; the file `current` then names it. All tables are read in one transaction.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from headrace.infra.artifact_files import sync_folder
from headrace.infra.bus import Bus
from headrace.infra.records import source_of
from headrace.schemas.codec import TYPE_OF, encode, headers_of
from headrace.schemas.control import LineageRecorded, SnapshotPublished, TableExported
from headrace.schemas.lineage import State
from headrace.schemas.topics import full_name
from headrace.services.recorder.export_lineage import Run
from headrace.services.recorder.sql import quoted
from headrace.services.recorder.store import Store
from headrace.services.recorder.tables import TABLES

VIEWS = ("aliases", "models", "trainings", "pipelines")
BATCH_ROWS = 100_000
PART, CURRENT, MANIFEST = ".writing-", "current", "manifest.json"
NAME = "%Y%m%dT%H%M%S"
SHARE = 20  # of the time between two snapshots, at most one part in so many goes into writing one


class Exporter:
    """Writes snapshots into `folder`: every `every_s` when rows came since, and at a clean stop.

    Kept are the newest `keep` and the newest of each of the last `keep_days` days that have one. With `inline` a
    snapshot is written in the caller's thread.
    """

    def __init__(
        self,
        store: Store,
        folder: Path,
        bus: Bus,
        *,
        namespace: str = "",
        every_s: float = 600.0,
        keep: int = 3,
        keep_days: int = 7,
        inline: bool = False,
        clock: Callable[[], float] = time.monotonic,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.published = 0
        self.failure: str | None = None
        self._store, self._folder, self._every_s, self._inline = store, folder, every_s, inline
        self._keep, self._keep_days, self._clock, self._clock_ms = keep, keep_days, clock, clock_ms
        self._namespace = namespace
        self._sources = {
            kind: (topic, source_of("recorder", "", bus.topic_id(topic), 0))
            for kind, topic in (
                (SnapshotPublished, full_name("store-snapshots", namespace=namespace)),
                (LineageRecorded, full_name("lineage", namespace=namespace)),
            )
        }
        self._producer = bus.producer("recorder")
        self._due = clock() + every_s
        self._thread: threading.Thread | None = None
        self._told: deque[tuple[SnapshotPublished | LineageRecorded, int, int]] = deque()  # event, sequence, time
        folder.mkdir(parents=True, exist_ok=True)
        for left_over in folder.glob(PART + "*"):
            shutil.rmtree(left_over)

    def run_when_due(self) -> None:
        """Start a snapshot when it is time; announce what became of it. Does not wait."""
        if self._thread is not None and not self._thread.is_alive():
            self._thread = None
        self._announce()
        if self._thread is None and self._clock() >= self._due:
            self._due = self._clock() + self._every_s
            if self._inline:
                self.run()
            else:
                self._thread = threading.Thread(target=self._write, name="snapshot", daemon=True)
                self._thread.start()

    def run(self) -> SnapshotPublished | None:
        """Write and announce a snapshot now; None where nothing came since the last, or it failed (`failure`)."""
        self._write()
        return self._announce()

    def close(self) -> None:
        """Publish a last snapshot."""
        if self._thread is not None:
            self._thread.join()
            self._announce()
        self.run()
        self._producer.close()

    def _write(self) -> None:
        began = self._clock()
        runs: list[Run] = []

        def begun(run: Run) -> None:
            runs.append(run)
            self._tell(run, "START", run.number)

        try:
            own = self._sources[LineageRecorded][0]
            snapshot = write_snapshot(self._store, self._folder, self._clock_ms(), begun, own)
            self.failure = None
        except (OSError, duckdb.Error) as error:
            self.failure = f"no snapshot could be written to {self._folder}: {error}"
            for run in runs:
                self._tell(run, "FAIL", self._clock_ms(), error=self.failure)
            return
        if snapshot is not None:
            self._told.append((snapshot, runs[0].number, runs[0].number))
            self._tell(runs[0], "COMPLETE", self._clock_ms(), snapshot)
            thin(self._folder, self._keep, self._keep_days)
        self._due = max(self._due, self._clock() + SHARE * (self._clock() - began))

    def _tell(self, run: Run, state: State, at_ms: int, *how: Any, **why: Any) -> None:
        event = run.event(state, at_ms, self._folder, self._namespace, *how, **why)
        self._told.append((event, run.number * 2 + (state != "START"), at_ms))

    def _announce(self) -> SnapshotPublished | None:
        announced = None
        while self._told:
            event, sequence, known_ms = self._told.popleft()
            topic, source = self._sources[type(event)]
            headers = headers_of(TYPE_OF[type(event)], source, sequence)
            if isinstance(event, SnapshotPublished):
                headers += [("ce_correlationid", event.snapshot), ("ce_causationid", "")]
                self._producer.produce(topic, 0, b"", encode(event), headers, known_ms)
                self.published += 1
                announced = event
            else:
                key = event.run_event["run"]["runId"].encode()
                self._producer.produce(topic, 0, key, encode(event), headers, known_ms)
            self._producer.flush()
        return announced


def write_snapshot(
    store: Store, folder: Path, now_ms: int, begun: Callable[[Run], None] = lambda run: None, own: str = ""
) -> SnapshotPublished | None:
    """Write one snapshot and make it `current`; None where that has the same offsets. Raises OSError, duckdb.Error.

    Nothing but more of the topic `own` is no news: the snapshots' own runs stand there. `begun` is told what begins.
    """
    before = read_current(folder)
    with store.reading() as cursor:
        cursor.execute("BEGIN TRANSACTION READ ONLY")
        offsets = {
            f"{topic}/{partition}": offset
            for topic, partition, offset in cursor.execute(
                "SELECT topic, partition, next_offset FROM positions ORDER BY ALL"
            ).fetchall()
        }
        if before is not None and before["offsets"] | {f"{own}/0": 0} == offsets | {f"{own}/0": 0}:
            return None
        number = max(now_ms, _number(before["snapshot"]) + 1) if before else now_ms  # also where the clock went back
        name = _name(number)
        begun(Run(name, number, offsets))
        part = folder / f"{PART}{name}"
        part.mkdir(parents=True)
        names = [*TABLES, *(table.name for table in list(store.features.values())), *VIEWS]
        tables = [_write_table(cursor, table, part / f"{table}.parquet") for table in names]
    target = folder / name
    event = SnapshotPublished(
        pipeline="",
        snapshot=name,
        uri=target.resolve().as_uri(),
        offsets=offsets,
        tables=tuple(
            TableExported(name=table, rows=rows, uri=(target / f"{table}.parquet").resolve().as_uri(), sha256=digest)
            for table, rows, digest in tables
        ),
    )
    manifest = {
        "snapshot": name,
        "offsets": offsets,
        "tables": [{"name": t, "file": f"{t}.parquet", "rows": rows, "sha256": digest} for t, rows, digest in tables],
    }
    _durable(part / MANIFEST, json.dumps(manifest, indent=1).encode())
    sync_folder(part)
    part.rename(target)
    _durable(folder / f"{PART}{CURRENT}.tmp", name.encode())
    (folder / f"{PART}{CURRENT}.tmp").rename(folder / CURRENT)
    sync_folder(folder)
    return event


def read_current(folder: Path) -> dict[str, Any] | None:
    """The manifest of the newest published snapshot; None where there is none."""
    try:
        manifest: dict[str, Any] = json.loads((folder / (folder / CURRENT).read_text() / MANIFEST).read_bytes())
    except FileNotFoundError:
        return None
    return manifest


def thin(folder: Path, keep: int, keep_days: int) -> None:
    """Delete snapshots but the newest `keep` and the newest of each of the last `keep_days` days that have one."""
    names = sorted((path.name for path in folder.iterdir() if path.is_dir() and path.name[0].isdigit()), reverse=True)
    days: dict[str, str] = {}
    for name in names:
        days.setdefault(name[:8], name)
    kept = {*names[:keep], *list(days.values())[:keep_days]}
    for name in names:
        if name not in kept:
            shutil.rmtree(folder / name)


def _write_table(cursor: duckdb.DuckDBPyConnection, table: str, path: Path) -> tuple[str, int, str]:
    reader = cursor.sql(f"FROM {quoted(table)}").to_arrow_reader(BATCH_ROWS)  # a stream; execute() would hold all rows
    rows = 0
    with pq.ParquetWriter(path, reader.schema, compression="zstd") as writer:
        for batch in reader:
            writer.write_batch(batch)
            rows += batch.num_rows
    with path.open("rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return table, rows, digest


def _name(number: int) -> str:
    """A time in milliseconds since 1970 as a name that sorts."""
    return f"{datetime.fromtimestamp(number // 1000, UTC).strftime(NAME)}.{number % 1000:03d}Z"


def _number(name: str) -> int:
    return int(datetime.strptime(name[:15], NAME).replace(tzinfo=UTC).timestamp()) * 1000 + int(name[16:19])


def _durable(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
