"""The whole system in one process and one thread, on the in-process log: `headrace try`, experiments, tests.

The driver is the broker's clock. Each record is appended at its event time; one Tick (the latest due) is written
before a record when a minute or more has passed; after each record every part is stepped to rest. So policies that
go by time act as they would have acted live, and every run gives the same rows.
"""

from __future__ import annotations

import importlib
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from headrace.errors import Refused
from headrace.infra import create_topics
from headrace.infra.artifacts import Artifacts
from headrace.infra.bus import BusError
from headrace.infra.follow import Follower
from headrace.infra.memory_bus import MemoryBus
from headrace.infra.service import Tickable, Wiring
from headrace.infra.settings import Settings
from headrace.infra.worker import OpenStore
from headrace.pipeline import Pipeline
from headrace.schemas.codec import TYPE_OF, encode, headers_of
from headrace.schemas.control import ControlEvent, PipelineReleased, ReleaseAsked, ReleaseDefinition, RequestRefused
from headrace.schemas.record import Record
from headrace.schemas.signing import sign
from headrace.schemas.stream import ExampleArrived, LabelArrived, StreamEvent, Tick
from headrace.schemas.topics import full_name

MINUTE_MS = 60_000
CHAIN = (
    "validator",
    "predictor",
    "joiner",
    "trainer",
    "evaluator",
    "monitor",
    "sequencer",
    "orchestrator",
    "registry",
    "recorder",
)


class System:
    """Every service of the table on one `MemoryBus`. `home` holds the recorder's store; artifacts live in memory.

    `services` leaves some out; `open_store` gives folds durable stores (none by default: the state lives in memory).
    """

    def __init__(
        self,
        home: Path,
        *,
        services: Sequence[str] = CHAIN,
        key: bytes = b"in-process",
        start_ms: int = 0,
        open_store: OpenStore = lambda fold, place: None,
        bus: MemoryBus | None = None,
        partitions: int = 1,
        **settings: Any,
    ) -> None:
        self.now_ms = start_ms
        self.key, self.partitions = key, partitions
        self.bus = bus or MemoryBus(clock=lambda: self.now_ms)
        settings.setdefault("artifact_url", f"memory://headrace-{uuid.uuid4().hex}")  # nothing outlives the process
        self.settings = Settings(home=home, instance="try", artifact_key=key.decode(), **settings)
        self.artifacts = Artifacts(self.settings.artifact_url, key)
        create_topics.create(self.bus)
        self.wiring = Wiring(
            self.settings,
            self.bus,
            self.artifacts,
            key,
            open_store,
            timing={"commit_s": 1.0, "commit_records": 1, "follow_s": 0.0, "clock": lambda: self.now_ms / 1000},
            inline_jobs=True,
            clock_ms=lambda: self.now_ms,
        )
        self._users = self.bus.producer("users")
        self.pipelines: list[str] = []
        self._last_minute = start_ms // MINUTE_MS
        self.parts: list[Tickable] = []
        self._found_nothing: dict[Tickable, tuple[int, int]] = {}
        for service in services:
            self.parts += importlib.import_module(f"headrace.services.{service}.__main__").build(self.wiring)
        self.settle()

    def settle(self, limit: int = 10_000) -> int:
        """Step every part until none has work; returns the rounds. Raises BusError where it never comes to rest."""
        for rounds in range(limit):
            if not sum([self._step(part) for part in self.parts]):
                return rounds
        raise BusError(f"the system did not come to rest in {limit} rounds")

    def _step(self, part: Tickable) -> int:
        """Tick a part, unless it found nothing and since then no record was appended and no time passed."""
        now = self.bus.appended, self.now_ms
        if self._found_nothing.get(part) == now:
            return 0
        done = part.tick(0.0)
        if not done:
            self._found_nothing[part] = now
        return done

    def release(self, pipeline: Pipeline, definition: ReleaseDefinition, by: str = "you") -> PipelineReleased:
        """Release a definition and wait for the answer. Raises Refused with the reason."""
        create_topics.create_pipeline(self.bus, pipeline.name, self.partitions, pipeline.policies())
        if pipeline.name not in self.pipelines:
            self.pipelines.append(pipeline.name)
        answers = Follower(self.bus, topics=["pipelines", "decisions"])
        answers.read_to_end()
        request = f"release-{pipeline.name}-{self.bus.offsets(('operator-requests', 0))[1]}"
        self.ask(
            ReleaseAsked(
                pipeline=pipeline.name,
                request=request,
                by=by,
                definition=definition,
                partitions=self.partitions,
                topic_id=self.bus.topic_id(f"{pipeline.name}.data-arrived"),
            )
        )
        for record in answers.read_to_end():
            if isinstance(record.event, RequestRefused) and record.event.request == request:
                raise Refused(record.event.reason, record.event.next, record.event.kind)
            if isinstance(record.event, PipelineReleased) and record.event.request == request:
                return record.event
        raise BusError(f"nobody answered the request to release {pipeline.name}")

    def ask(self, event: ControlEvent) -> None:
        """Publish an operator's request, then step to rest."""
        self._users.produce(
            "operator-requests",
            0,
            event.pipeline.encode(),
            encode(event),
            headers_of(TYPE_OF[type(event)], "you", 0),
            self.now_ms,
        )
        self.settle()

    def publish(self, pipeline: str, event: ExampleArrived | LabelArrived, at_ms: int | None = None) -> None:
        """Append one record at its event time (or `at_ms`), ticks before it, then step to rest."""
        self.advance(int(event.time.timestamp() * 1000) if at_ms is None else at_ms)
        self.append(pipeline, event)
        self.settle()

    def append(self, pipeline: str, event: StreamEvent, partition: int | None = None) -> None:
        """Append one record now, without stepping."""
        key = None
        if isinstance(event, ExampleArrived | LabelArrived):
            key = (event.entity or event.id).encode()
        self._users.produce(
            full_name("<p>.data-arrived", pipeline),
            partition,
            key,
            encode(event),
            headers_of(TYPE_OF[type(event)], "you", 0),
            self.now_ms,
        )

    def advance(self, to_ms: int) -> None:
        """Let known time pass; where a minute or more went by, write the latest due Tick and step to rest."""
        self.now_ms = max(self.now_ms, to_ms)
        minute = self.now_ms // MINUTE_MS
        if minute <= self._last_minute:
            return
        self._last_minute = minute
        due = datetime.fromtimestamp(minute * 60, UTC)
        for pipeline in self.pipelines:
            tick = sign(self.key, Tick(schedule="minute", due=due, pipeline=pipeline))
            for partition in range(self.partitions):
                self.append(pipeline, tick, partition)
        tick = Tick(schedule="minute", due=due)
        self._users.produce("ticks", 0, b"", encode(tick), headers_of(TYPE_OF[Tick], "scheduler", 0), self.now_ms)
        self.settle()

    def records(self, topic: str, pipeline: str = "") -> list[Record]:
        """All records of a topic without repeats, by its name in `TOPICS`."""
        follower = Follower(self.bus, topics=[full_name(topic, pipeline)])
        try:
            return follower.read_to_end()
        finally:
            follower.close()

    def close(self) -> None:
        """Clean stop of every part."""
        for part in self.parts:
            part.close()
