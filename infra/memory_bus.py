"""The in-process bus: the other real side of `infra.bus`, without a broker, a thread or a clock of its own.

`headrace try`, experiments and tests run the whole system on it, step by step.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn

from headrace.infra.bus import (
    GroupConsumer,
    Message,
    OnAssign,
    OnGone,
    Place,
    Producer,
    ProducerFailed,
    Reader,
    TopicMissing,
    TopicSpec,
)
from headrace.infra.memory_groups import Group, MemoryGroupConsumer, Positions
from headrace.infra.memory_log import CREATE_TIME, DEFAULTS, LOG_APPEND_TIME, MemoryMessage, Topics
from headrace.infra.partitioner import partition_of
from headrace.schemas.codec import Headers

Choose = Callable[[int], int]
Waiting = tuple[bytes | None, bytes | None, Headers, int]


class MemoryBus:
    """A log in this process. `clock` gives the time (ms) that LogAppendTime topics stamp and `timestamp_ms=0` means.

    A record is acknowledged as it is produced. With `choose` it comes late, as through a network: of n records that
    wait for a partition, each `Producer.poll` lets the first `choose(n)` arrive, `flush` all; what still waits when
    its maker is gone is lost. A seeded choice makes a simulation of it repeatable.
    """

    def __init__(
        self, clock: Callable[[], int] = lambda: int(time.time() * 1000), choose: Choose | None = None
    ) -> None:
        self.clock = clock
        self.appended = 0
        self._choose = choose
        self._topics = Topics()
        self._groups: dict[str, Group] = {}

    def producer(self, name: str) -> Producer:
        return MemoryProducer(self, self._choose)

    def group_consumer(
        self, group: str, instance: str, on_assign: OnAssign, on_revoke: OnGone, on_lost: OnGone
    ) -> GroupConsumer:
        return MemoryGroupConsumer(self._group(group), instance, on_assign, on_revoke, on_lost)

    def reader(self) -> Reader:
        return MemoryReader(self._topics)

    def partitions(self, topic: str) -> int | None:
        found = self._topics.by_name.get(topic)
        return len(found.logs) if found else None

    def topic_id(self, topic: str) -> str:
        return self._topics.topic(topic).id

    def offsets(self, place: Place, at_least: int = 0) -> tuple[int, int]:
        log = self._topics.log(place)
        return log.first, log.end

    def create_topics(self, specs: Sequence[TopicSpec]) -> None:
        for spec in specs:
            if spec.name not in self._topics.by_name:
                self._topics.create(spec)
        self._rebalance()

    def topic_config(self, topic: str) -> dict[str, str]:
        return DEFAULTS | self._topics.topic(topic).config

    def topics(self) -> list[str]:
        return sorted(self._topics.by_name)

    def copies(self) -> tuple[int, dict[str, int]]:
        return 1, dict.fromkeys(self._topics.by_name, 1)

    def close(self) -> None:
        """There is nothing to release."""

    def delete_topic(self, topic: str) -> None:
        """Delete a topic with its records; made again it has another id."""
        self._topics.topic(topic)
        del self._topics.by_name[topic]
        self._rebalance()

    def delete_records(self, place: Place, before: int) -> None:
        """Let go of the records before an offset, as retention does."""
        self._topics.log(place).forget(before)

    def cut_back(self, place: Place, end: int) -> None:
        """Lose the records from an offset on, as a broker without them does when it leads; a new epoch begins."""
        self._topics.log(place).cut_back(end)

    def end_session(self, group: str, instance: str) -> None:
        """What a broker does when a member was silent for its session's length: its places go to others."""
        self._group(group).end_session(instance)

    def append(
        self,
        topic: str,
        partition: int | None,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        timestamp_ms: int,
    ) -> None:
        """Write one record to the end of a partition, at once. Raises TopicMissing."""
        found = self._topics.topic(topic)
        if partition is None:
            partition = partition_of(key, len(found.logs))
        log = self._topics.log((topic, partition))
        stamp = (LOG_APPEND_TIME, self.clock()) if found.stamps else (CREATE_TIME, timestamp_ms or self.clock())
        encoded = [(name, text.encode() if isinstance(text, str) else text) for name, text in headers]
        log.records.append(MemoryMessage(topic, partition, log.end, key, value, encoded, stamp, log.epoch))
        self.appended += 1

    def read(self, place: Place, offset: int, limit: int) -> list[MemoryMessage]:
        """Up to `limit` records of a partition from `offset` on. Raises BusError where it is out of range."""
        return self._topics.log(place).read(place, offset, limit)

    def placed(self, topic: str, partition: int | None, key: bytes | None, value: bytes | None) -> Place:
        """Where a record would go. Raises ProducerFailed where it cannot."""
        found = self._topics.by_name.get(topic)
        if found is None:
            raise ProducerFailed(f"there is no topic {topic}; `headrace topics --create` makes what is missing")
        if value is not None and len(value) > found.max_bytes:
            raise ProducerFailed(f"{topic}: a record of {len(value)} bytes; {found.max_bytes} is the most")
        if partition is None:
            partition = partition_of(key, len(found.logs))
        if not 0 <= partition < len(found.logs):
            raise ProducerFailed(f"{topic} has no partition {partition}")
        return topic, partition

    def _group(self, name: str) -> Group:
        if name not in self._groups:
            self._groups[name] = Group(self._topics)
        return self._groups[name]

    def _rebalance(self) -> None:
        for group in self._groups.values():
            group.rebalance()


class MemoryProducer:
    """Appends in order; after a failure nothing more is written."""

    def __init__(self, bus: MemoryBus, choose: Choose | None) -> None:
        self._bus, self._choose = bus, choose
        self._waiting: dict[Place, deque[Waiting]] = {}
        self._failure: str | None = None

    def produce(
        self,
        topic: str,
        partition: int | None,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        timestamp_ms: int,
    ) -> None:
        self.poll()
        try:
            place = self._bus.placed(topic, partition, key, value)
        except ProducerFailed as error:
            self._fail(str(error))
        if self._choose is None:
            self._bus.append(topic, place[1], key, value, headers, timestamp_ms)
        else:
            self._waiting.setdefault(place, deque()).append((key, value, headers, timestamp_ms))

    def poll(self) -> None:
        if self._failure is not None:
            self._fail(self._failure)
        if self._choose is not None:
            for place, waiting in self._waiting.items():
                self._arrive(place, waiting, self._choose(len(waiting)))

    def push(self) -> None:
        self.poll()

    def flush(self) -> None:
        if self._failure is not None:
            self._fail(self._failure)
        for place, waiting in self._waiting.items():
            self._arrive(place, waiting, len(waiting))

    def close(self) -> None:
        self._waiting.clear()

    def _arrive(self, place: Place, waiting: deque[Waiting], count: int) -> None:
        for _ in range(count):
            key, value, headers, timestamp_ms = waiting.popleft()
            try:
                self._bus.append(*place, key, value, headers, timestamp_ms)
            except TopicMissing as error:
                self._fail(str(error))

    def _fail(self, failure: str) -> NoReturn:
        self._failure = failure
        raise ProducerFailed(failure)


class MemoryReader:
    """Reads places without a group."""

    def __init__(self, topics: Topics) -> None:
        self._positions = Positions(topics)

    def assign(self, offsets: Mapping[Place, int]) -> None:
        self._positions.next = dict(offsets)

    def poll(self, limit: int, timeout_s: float) -> list[Message]:
        return self._positions.take(limit)

    def close(self) -> None:
        """There is nothing to release."""


if TYPE_CHECKING:
    from headrace.infra.bus import Bus

    _: type[Bus] = MemoryBus
