"""The one loop of every fold: read a batch, step, publish as you go; now and then commit.

A commit: (1) flush the producer, until as many records are acknowledged as were produced; (2) commit state,
sequences and next offset in one durable transaction; (3) mirror the offset to the consumer group. After a crash
the same outputs are made again under the same source and sequence, and readers drop them. At assignment the fold
is silent up to the group's offset: what lies before it was flushed already.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, Protocol

from headrace.infra.bus import Bus, GroupConsumer, Message, Place, Producer
from headrace.infra.follow import Pipelines
from headrace.infra.records import DeadLetter, Incoming, Outgoing, source_of
from headrace.infra.store import StateForeign
from headrace.schemas.codec import ORIGIN, header
from headrace.schemas.record import Record
from headrace.schemas.topics import DLQ, full_name, parse_name
from headrace.services import Fold

BATCH = 50  # big drains are slower: 500 live messages cost 2 µs more a record (CPU caches)
FOLLOW_S = 0.05


class StepFailed(RuntimeError):
    """A step raised: the process ends before it commits; the message names the record and what to do."""


class StateStore(Protocol):
    """What a worker needs of a store; `infra.store.Store` keeps it on disk."""

    def load(self) -> Any: ...
    def table(self, name: str, value_type: type) -> Any: ...
    def commit(self, offset: int, sequences: dict[str, int], fields: dict[str, Any], meta: dict[str, str]) -> None: ...
    def close(self) -> None: ...


OpenStore = Callable[[str, Place], StateStore | None]


class Worker:
    """One fold on one input partition: its state, its sequences, its next offset."""

    def __init__(
        self,
        fold: Fold,
        core: ModuleType,
        place: Place,
        *,
        bus: Bus,
        producer: Producer,
        namespace: str,
        open_store: OpenStore,
        world: Any = None,
    ) -> None:
        self.fold, self.place, self.world = fold, place, world
        self.offset = 0
        self.loud_from = 0
        self.dirty = False
        self.faults = 0
        self._core, self._step = core, core.step
        self._tables: dict[str, type] = getattr(core, "TABLES", {})
        self._store = open_store(fold.id, place)
        saved = self._store.load() if self._store is not None else None
        self.name, self.pipeline = parse_name(place[0], namespace)
        self.topic_id = bus.topic_id(place[0])
        if saved is not None and saved.meta["topic_id"] != self.topic_id:
            raise StateForeign(
                f"{place[0]} was created anew since {fold.id} saved its state; to fold the new topic from its start: "
                f"headrace reset {fold.service}"
            )
        self.state: Any = self._restore(saved)
        self._incoming = Incoming(
            place[0], namespace, dict(saved.sequences) if saved else None, getattr(core, "DECODERS", None)
        )
        self._outgoing = Outgoing(
            producer,
            source_of(fold.service, self.pipeline, self.topic_id, place[1]),
            namespace,
            self.pipeline,
            frozenset(fold.outputs),
        )
        self._copies: bool = getattr(core, "COPIES", False)
        if saved is not None:
            self.offset = saved.offset

    def start(self, committed: int | None) -> int:
        """The offset to read from; up to the group's offset `committed` the fold is silent."""
        self.loud_from = committed or 0
        return self.offset

    def handle(self, message: Message) -> None:
        """Fold one message: drop a repeat, step, publish. Raises StepFailed where the step raises."""
        offset = message.offset()
        self.offset = offset + 1
        self.dirty = True
        try:
            record = self._incoming.record(message)
        except DeadLetter as fault:
            self.faults += 1
            if offset >= self.loud_from:
                self._outgoing.dead_letter(self.place[0], message, str(fault))
            return
        if record is None:
            return
        try:
            emits = self._step(self.state, record, self.world)
        except Exception as error:
            raise StepFailed(
                f"{self.fold.id} failed at {self.place[0]} partition {self.place[1]} offset {offset}: "
                f"{type(error).__name__}: {error}. Nothing of it is committed; after a fix the service goes on there."
            ) from error
        if emits and offset >= self.loud_from:
            if self._copies:
                self._copy(record, emits)
            else:
                self._outgoing.publish(record, emits)

    def commit(self) -> None:
        """Make state, sequences and next offset durable, in one transaction; the producer is flushed already."""
        if self._store is not None:
            self._store.commit(self.offset, self._incoming.sequences, self._fields(), {"topic_id": self.topic_id})
        self.dirty = False

    def close(self) -> None:
        """Let the state go, without a commit."""
        if self._store is not None:
            self._store.close()

    def counts(self) -> dict[str, int]:
        """Numbers for /metrics."""
        own = {f"fold_{name}": count for name, count in getattr(self.state, "counts", {}).items()}
        return {
            "offset": self.offset,
            "published": self._outgoing.published,
            "repeats": self._incoming.repeats,
            "dead_letters": self.faults,
            **own,
        }

    def _copy(self, record: Record, emits: list[Any]) -> None:
        origin = (
            header(record.headers, ORIGIN, 7) or f"{record.topic}/{self.topic_id}/{record.partition}/{record.offset}"
        )
        for emit in emits:
            self._outgoing.copy(record, emit, origin)

    def _restore(self, saved: Any) -> Any:
        tables = (
            {name: self._store.table(name, value_type) for name, value_type in self._tables.items()}
            if self._store is not None
            else {}
        )
        if saved is not None:
            return self._core.State(**saved.fields, **tables)
        fresh = getattr(self._core, "fresh", None)
        state = fresh(self.pipeline, self.place[1]) if fresh else self._core.State()
        for name, table in tables.items():
            setattr(state, name, table)
        return state

    def _fields(self) -> dict[str, Any]:
        state = self.state
        names = getattr(state, "__struct_fields__", None) or state.__dataclass_fields__
        return {name: getattr(state, name) for name in names if name not in self._tables}


class WorkerLike(Protocol):
    """What the loop needs of a worker; the trainer has one of its own, which feeds many runs."""

    place: Place
    offset: int
    dirty: bool
    world: Any
    pipeline: str

    def start(self, committed: int | None) -> int: ...
    def handle(self, message: Message) -> None: ...
    def commit(self) -> None: ...
    def close(self) -> None: ...
    def counts(self) -> dict[str, int]: ...


MakeWorker = Callable[[Place, Producer], WorkerLike]


class FoldRunner:
    """A member of one fold's consumer group with a worker for each partition it was given.

    `inputs` are names of `TOPICS`; those with `<p>` are subscribed for every pipeline as it is released. `world`
    gives the world of a pipeline before each batch.
    """

    def __init__(
        self,
        group: str,
        inputs: Sequence[str],
        bus: Bus,
        make_worker: MakeWorker,
        *,
        namespace: str = "",
        instance: str = "local",
        commit_s: float = 5.0,
        commit_records: int = 20_000,
        batch: int = BATCH,
        world: Callable[[str], Any] | None = None,
        follow_s: float = FOLLOW_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.group, self.workers = group, dict[Place, WorkerLike]()
        self.handled = 0
        self._bus, self._make_worker, self._world, self._clock = bus, make_worker, world, clock
        self._commit_s, self._commit_records, self._batch, self._follow_s = commit_s, commit_records, batch, follow_s
        self._producer = bus.producer(group)
        self._fixed = [full_name(name, namespace=namespace) for name in inputs if not name.startswith("<p>.")]
        self._per_pipeline = [name for name in inputs if name.startswith("<p>.")]
        self.pipelines = Pipelines(bus, namespace) if self._per_pipeline else None
        self._topics: list[str] = []
        self._consumer: GroupConsumer = bus.group_consumer(
            f"{namespace}headrace-{group}", f"{instance}-{group}", self._on_assign, self._on_revoke, self._on_lost
        )
        self._uncommitted = 0
        self._next_follow = self._clock()
        self._next_commit = self._next_follow + commit_s

    def tick(self, timeout_s: float = 0.0) -> int:
        """Read one batch and fold it; commit when due. Never waits longer than the timeout. Returns records read."""
        now = self._clock()
        if now >= self._next_follow:
            self._next_follow = now + self._follow_s
            self._follow()
        if not self._topics:
            time.sleep(min(timeout_s, FOLLOW_S))
            return 0
        messages = self._consumer.poll(self._batch, timeout_s)
        if messages:
            workers = self.workers
            if self._world is not None:
                for worker in workers.values():
                    worker.world = self._world(worker.pipeline)
            if len(workers) == 1:
                (topic, partition), only = next(iter(workers.items()))
                handle = only.handle
                for message in messages:
                    if message.partition() == partition and message.topic() == topic:
                        handle(message)
            else:
                for message in messages:
                    worker_ = workers.get((message.topic(), message.partition()))
                    if worker_ is not None:
                        worker_.handle(message)
            self.handled += len(messages)
            self._uncommitted += len(messages)
        if len(messages) < self._batch:
            self._producer.push()  # no more input is at hand, so what was made need not wait for company
        else:
            self._producer.poll()
        if self._uncommitted >= self._commit_records or self._clock() >= self._next_commit:
            self.commit()
        return len(messages)

    def commit(self) -> None:
        """Flush, then commit every changed worker, then mirror the offsets to the group.

        Offsets are mirrored also where nothing changed: in a rebalance, or without a broker, they were not taken.
        """
        self._next_commit = self._clock() + self._commit_s
        self._uncommitted = 0
        dirty = [worker for worker in self.workers.values() if worker.dirty]
        if dirty:
            self._producer.flush()
            for worker in dirty:
                worker.commit()
        self._consumer.commit({worker.place: worker.offset for worker in self.workers.values()})

    def seek(self, place: Place, offset: int) -> None:
        """Read an assigned place on from another offset."""
        self._consumer.seek(place, offset)

    def close(self) -> None:
        """Clean stop: commit, leave, let go."""
        self.commit()
        self._consumer.close()
        self._producer.close()
        for worker in self.workers.values():
            worker.close()
        self.workers.clear()
        if self.pipelines is not None:
            self.pipelines.close()

    def counts(self) -> dict[str, dict[str, int]]:
        """Numbers for /metrics, by place."""
        return {f"{topic}-{partition}": worker.counts() for (topic, partition), worker in self.workers.items()}

    def _follow(self) -> None:
        if self.pipelines is None:
            if not self._topics:
                self._topics = list(self._fixed)
                self._consumer.subscribe(self._topics)
            return
        if self.pipelines.poll() or not self._topics:
            topics = self._fixed + [topic for name in self._per_pipeline for topic in self.pipelines.topics(name)]
            if topics != self._topics:
                self._topics = topics
                self._consumer.subscribe(topics)

    def _on_assign(self, places: list[Place]) -> dict[Place, int]:
        committed = self._consumer.committed(places)
        starts = {}
        for place in places:
            worker = self._make_worker(place, self._producer)
            if self._world is not None:
                worker.world = self._world(worker.pipeline)
            self.workers[place] = worker
            starts[place] = worker.start(committed.get(place))
        return starts

    def _on_revoke(self, places: list[Place]) -> None:
        self.commit()
        self._on_lost(places)

    def _on_lost(self, places: list[Place]) -> None:
        for place in places:
            worker = self.workers.pop(place, None)
            if worker is not None:
                worker.close()


def fold_runner(
    folds: Sequence[Fold],
    core: ModuleType,
    bus: Bus,
    *,
    namespace: str,
    instance: str,
    open_store: OpenStore,
    world: Callable[[str], Any] | Any = None,
    **timing: Any,
) -> FoldRunner:
    """A runner of one core over the input topics of its folds (the sequencer has many, all others one)."""
    by_input = {fold.input: fold for fold in folds}
    world_of = world if callable(world) else (lambda pipeline: world)

    def make(place: Place, producer: Producer) -> Worker:
        name, pipeline = parse_name(place[0], namespace)
        return Worker(
            by_input[name],
            core,
            place,
            bus=bus,
            producer=producer,
            namespace=namespace,
            open_store=open_store,
            world=world_of(pipeline),
        )

    return FoldRunner(
        folds[0].id, list(by_input), bus, make, namespace=namespace, instance=instance, world=world_of, **timing
    )


__all__ = ["DLQ", "FoldRunner", "OpenStore", "StepFailed", "Worker", "WorkerLike", "fold_runner"]
