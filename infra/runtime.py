"""The one loop of every fold: read a batch, step, publish as you go; now and then commit.

A commit: (1) flush the producer, until as many records are acknowledged as were produced; (2) commit state,
sequences and next offset in one durable transaction; (3) mirror the offset to the consumer group. After a crash
the same outputs are made again under the same source and sequence, and readers drop them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from headrace.infra.bus import Bus, GroupConsumer, Message, Place, Producer, Unavailable
from headrace.infra.follow import Pipelines
from headrace.infra.worker import Admit, OpenStore, Worker
from headrace.schemas.topics import full_name, parse_name
from headrace.services import Fold

if TYPE_CHECKING:
    from headrace.infra.checkpoints import Background, Checkpoints

BATCH = 50  # big drains are slower: 500 live messages cost 2 µs more a record (CPU caches)
FOLLOW_S = 0.05
FIRST_ASSIGNMENT_S = 60.0  # after which a member without one has nothing to do: others have all


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
        background: Background | None = None,
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
        self._new: dict[Place, Worker] = {}  # no message came since the assignment
        self._background = background
        self._drain_to: dict[Place, int] = {}
        self._uncommitted = 0
        self._next_follow = self._assigned_at = self._clock()
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
        if self._new and messages:
            messages = self._first(messages)
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
            self._check_topics(dirty)
            for worker in dirty:
                worker.commit()
        self._consumer.commit({worker.place: worker.offset for worker in self.workers.values()})
        if self._background is not None:
            self._background.take([worker.checkpoint for worker in _folds(self.workers.values())])

    def _check_topics(self, dirty: list[WorkerLike]) -> None:
        """A topic that is made anew under a reader, and longer than the old one was, is read on without an error."""
        for worker in {fold.place[0]: fold for fold in _folds(dirty)}.values():
            with contextlib.suppress(Unavailable):  # the next commit asks again
                worker.check_topic()

    def drained(self, settled_s: float) -> bool:
        """Whether every place was folded to where its log ended when it was first asked for.

        Places that another member has count as drained when the assignment stood still for `settled_s`.
        """
        if self.pipelines is not None and self.pipelines.read_to_end():
            self._subscribe(self.pipelines)
        for place in self.workers.keys() - self._drain_to.keys():
            self._drain_to[place] = self._bus.offsets(place)[1]
        if any(worker.offset < self._drain_to[place] for place, worker in self.workers.items()):
            return False
        expected = {(topic, n) for topic in self._topics for n in range(self._bus.partitions(topic) or 0)}
        settled_s = settled_s if self.workers else settled_s + FIRST_ASSIGNMENT_S
        return self.workers.keys() >= expected or self._clock() > self._assigned_at + settled_s

    def seek(self, place: Place, offset: int) -> None:
        """Read an assigned place on from another offset."""
        self._consumer.seek(place, offset)

    def close(self) -> None:
        """Clean stop: commit, leave, let go."""
        self._leave(list(self.workers))
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
            self._subscribe(self.pipelines)

    def _subscribe(self, pipelines: Pipelines) -> None:
        topics = self._fixed + [topic for name in self._per_pipeline for topic in pipelines.topics(name)]
        if topics != self._topics:
            self._topics = topics
            self._consumer.subscribe(topics)

    def _first(self, messages: list[Message]) -> list[Message]:
        """Without those that were folded before; each is compared with what was folded."""
        taken = []
        for message in messages:
            place = (message.topic(), message.partition())
            new = self._new.get(place)
            if new is not None:
                if not new.first(message):
                    continue
                del self._new[place]
            taken.append(message)
        return taken

    def _on_assign(self, places: list[Place]) -> dict[Place, int]:
        self._assigned_at = self._clock()
        committed = self._consumer.committed(places)
        starts = {}
        for place in places:
            worker = self._make_worker(place, self._producer)
            if self._world is not None:
                worker.world = self._world(worker.pipeline)
            self.workers[place] = worker
            starts[place] = worker.start(committed.get(place))
            if isinstance(worker, Worker):
                self._new[place] = worker
        return starts

    def _on_revoke(self, places: list[Place]) -> None:
        self._leave(places)
        self._on_lost(places)

    def _leave(self, places: list[Place]) -> None:
        self.commit()
        if self._background is not None:
            self._background.wait()
        for worker in _folds(self.workers[place] for place in places if place in self.workers):
            worker.leave()

    def _on_lost(self, places: list[Place]) -> None:
        for place in places:
            worker = self.workers.pop(place, None)
            self._new.pop(place, None)
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
    admit: Admit | None = None,
    checkpoints: Checkpoints | None = None,
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
            admit=admit,
            checkpoints=checkpoints,
        )

    return FoldRunner(
        folds[0].id, list(by_input), bus, make, namespace=namespace, instance=instance, world=world_of, **timing
    )


def _folds(workers: Iterable[WorkerLike]) -> list[Worker]:
    """Those whose state is a fold's store; a training run's is its newest snapshot."""
    return [worker for worker in workers if isinstance(worker, Worker)]
