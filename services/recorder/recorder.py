"""Reads every topic that people ask about, turns events into rows, and puts them into the store.

No fold: it has many inputs and one owner. Rows, offsets and sequences are one transaction of the store, so after a
crash it reads on exactly where its rows end; repeats are dropped by source and sequence.
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from headrace.infra.bus import Bus, Message, Place
from headrace.schemas.control import PipelineReleased
from headrace.schemas.topics import DLQ, TOPICS, full_name, parse_name
from headrace.services.recorder import control_rows
from headrace.services.recorder.batch import KNOWN_MS, Made
from headrace.services.recorder.export import Exporter
from headrace.services.recorder.rows import PipelineRows
from headrace.services.recorder.source import Source
from headrace.services.recorder.store import Position, Store, StoreRefused

BATCH = 100
HELD_BYTES = 64 << 20  # of records not committed yet; 20,000 of the usual size are 10 MB
MISSING_S = 5.0  # how often topics that did not exist yet are looked for

CONTROL_TOPICS = ("control-log", "validation-results", "metrics", "lineage")
DATA_TOPICS = ("<p>.predictions", "<p>.labelled-examples", "<p>.data-rejected")
SNAPSHOTS = "<p>.snapshots"
NOT_READ = {
    "<p>.data-arrived": "each record comes back as a prediction, a label or a reject, or is counted as a duplicate",
} | dict.fromkeys(
    (
        "drift-alerts",
        "operator-requests",
        "training-requests",
        "training-runs",
        "training-completed",
        "model-validations",
        "model-updates",
        "pipelines",
        "decisions",
    ),
    "all of it stands in control-log, in the order of decisions",
)


class Recorder:
    """Feeds a store from a bus. `tick` reads one batch and never waits longer than its timeout."""

    def __init__(
        self,
        bus: Bus,
        store: Store,
        *,
        namespace: str = "",
        commit_s: float = 1.0,
        commit_records: int = 20_000,
        batch: int = BATCH,
        exporter: Exporter | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self._bus, self._namespace, self._exporter, self._clock = bus, namespace, exporter, clock
        self._commit_s, self._commit_records, self._batch = commit_s, commit_records, batch
        self._reader = bus.reader()
        self._positions = store.positions()
        self._pipelines = {name: PipelineRows(name, contracts) for name, contracts in store.contracts().items()}
        self._releases = store.releases()
        self._sources: dict[Place, Source] = {}
        self._made = Made()
        self._uncommitted = self._held_bytes = 0
        self._commit_at = self._look_at = 0.0
        self._look_now = False
        try:
            self._assign()
        except BaseException:
            self._reader.close()
            store.close()
            raise

    def tick(self, timeout_s: float = 0.0) -> int:
        """Read one batch; commit and export when due. Returns the records read."""
        messages = self._reader.poll(self._batch, timeout_s)
        if messages:
            if not self._uncommitted:
                self._commit_at = self._clock() + self._commit_s
            by_place: defaultdict[Place, list[Message]] = defaultdict(list)
            for message in messages:
                by_place[message.topic(), message.partition()].append(message)
            for place, some in by_place.items():
                self._held_bytes += self._sources[place].take(some)
            self._uncommitted += len(messages)
        if self._look_now or (self._look_at and self._clock() >= self._look_at):
            self._assign()  # not before all messages are taken: it makes the reader go on from what was taken
        if self._uncommitted and (
            self._uncommitted >= self._commit_records
            or self._held_bytes >= HELD_BYTES
            or self._clock() >= self._commit_at
        ):
            self.commit()
        if self._exporter is not None:
            self._exporter.run_when_due()
        return len(messages)

    def commit(self) -> None:
        """Put the rows of what was read so far into the store, with their offsets; durable when it returns."""
        with without_collection():
            self._make()
        self._uncommitted = self._held_bytes = 0
        changed = {place: source for place, source in self._sources.items() if source.changed}
        if not changed:
            return
        self.store.commit(
            self._made.all(self.store.tables),
            {place: source.position() for place, source in changed.items()},
        )
        self._made = Made()
        for source in changed.values():
            source.is_stored()

    def close(self) -> None:
        """Clean stop: commit, publish a last snapshot, let go of the store."""
        self.commit()
        self._reader.close()
        if self._exporter is not None:
            self._exporter.close()
        self.store.close()

    def counts(self) -> dict[str, dict[str, int]]:
        """Numbers for /metrics, by place."""
        return {
            f"{topic}-{partition}": {"offset": s.next_offset, "repeats": s.repeats, "dead_letters": s.dead_letters}
            for (topic, partition), s in list(self._sources.items())  # asked from other threads as well
        }

    def health(self) -> dict[str, Any]:
        """Up to where each topic is in the store, and why there is no snapshot."""
        return {
            "status": "ok",
            "snapshot_failure": self._exporter.failure if self._exporter else None,
            "topics": self.counts(),
        }

    def _make(self) -> None:
        """Turn what was read so far into rows."""
        for (topic, partition), source in self._sources.items():
            if not source.waiting:
                continue
            for fault in source.make(self._made):
                known_ms = fault.known_ms if KNOWN_MS[0] <= fault.known_ms <= KNOWN_MS[1] else None
                self._made.rows["dead_letters"].append(
                    control_rows.dead_letter(
                        parse_name(topic, self._namespace)[1],
                        topic,
                        (partition, fault.offset),
                        known_ms,
                        fault.reason,
                        fault.body,
                    )
                )

    def _on_release(self, event: PipelineReleased, known_ms: int) -> None:
        """Take a release up where it is met first: in control-log, or in band before the first row that needs it."""
        if (event.pipeline, event.release) in self._releases:
            return
        self._releases.add((event.pipeline, event.release))
        self._made.rows["releases"].append(control_rows.release(event, known_ms))
        self.commit()  # what was read so far has the columns of the releases before
        contracts = self.store.contracts()[event.pipeline]
        self.store.add_pipeline(event.pipeline, contracts)
        rows = self._pipelines[event.pipeline] = PipelineRows(event.pipeline, contracts)
        for (topic, _), source in self._sources.items():
            if source.rows is not None and parse_name(topic, self._namespace)[1] == event.pipeline:
                source.rows = rows
        self._look_now = True

    def _assign(self) -> None:
        """Read every topic that exists by now, each from where the store ends."""
        topics = [full_name(name, namespace=self._namespace) for name in CONTROL_TOPICS]
        for pipeline in self._pipelines:
            topics += [full_name(name, pipeline, self._namespace) for name in (*DATA_TOPICS, SNAPSHOTS)]
        existing = set(self._bus.topics())
        for topic in topics:
            if topic not in existing:
                self._bus.partitions(topic)  # raises where this process may not read it: else it would look like none
        self._look_now = False
        self._look_at = 0.0 if existing.issuperset(topics) else self._clock() + MISSING_S
        topics += [topic for topic in sorted(existing) if self._is_dead_letter_topic(topic)]
        new = [topic for topic in topics if topic in existing and (topic, 0) not in self._sources]
        for topic in new:
            topic_id = self._bus.topic_id(topic)
            for partition in range(self._bus.partitions(topic) or 0):
                self._sources[topic, partition] = self._source((topic, partition), topic_id)
        if new:
            self._reader.assign({place: source.next_offset for place, source in self._sources.items()})

    def _source(self, place: Place, topic_id: str) -> Source:
        position = self._positions.get(place)
        first, end = self._bus.offsets(place, at_least=position.next_offset if position is not None else 0)
        where = f"{place[0]} partition {place[1]}"
        aside = f"Move {self.store.path} aside: the recorder then makes a new store from what the log holds."
        if position is None:
            position = Position(topic_id, first)
        if position.topic_id != topic_id:
            raise StoreRefused(f"{where} was deleted and made again since this store last read it. {aside}")
        if not first <= position.next_offset <= end:
            raise StoreRefused(
                f"{where}: this store ends at offset {position.next_offset}, the log holds {first} to {end}. {aside}"
            )
        name, pipeline = parse_name(place[0], self._namespace)
        rows = self._pipelines[pipeline] if name in DATA_TOPICS else None
        return Source(name, place[1], position, rows, self._on_release)

    def _is_dead_letter_topic(self, topic: str) -> bool:
        if not (topic.endswith(DLQ) and topic.startswith(self._namespace)):
            return False
        name, pipeline = parse_name(topic.removesuffix(DLQ), self._namespace)
        return name in TOPICS and (not pipeline or pipeline in self._pipelines)


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """Rows are tuples by the ten thousand, none of them in a cycle: looking for cycles costs 7 % of the recorder."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
