"""The in-process log: topics, partitions, offsets, groups. The other real side of `infra.bus`, without a broker."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from headrace.infra.bus import (
    Bus,
    BusError,
    Fenced,
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
from headrace.infra.partitioner import partition_of
from headrace.schemas.codec import Headers

MAX_MESSAGE_BYTES = 1_048_588  # the broker's default


class MemoryMessage:
    """One record, with the methods of confluent-kafka's Message."""

    __slots__ = ("_headers", "_key", "_offset", "_partition", "_timestamp", "_topic", "_value")

    def __init__(
        self, topic: str, partition: int, offset: int, key: bytes | None, value: bytes | None,
        headers: list[tuple[str, bytes]], timestamp: tuple[int, int],
    ) -> None:
        self._topic, self._partition, self._offset = topic, partition, offset
        self._key, self._value, self._headers, self._timestamp = key, value, headers, timestamp

    def topic(self) -> str:
        return self._topic

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> list[tuple[str, bytes]] | None:
        return self._headers or None

    def timestamp(self) -> tuple[int, int]:
        return self._timestamp

    def leader_epoch(self) -> int | None:
        return 0


@dataclass
class _Log:
    """One partition: its records, and the offset of the first one still kept."""

    records: list[MemoryMessage] = field(default_factory=list)
    first: int = 0

    @property
    def end(self) -> int:
        return self.first + len(self.records)


@dataclass
class _Topic:
    """One topic: its id, settings and partitions."""

    id: str
    config: dict[str, str]
    logs: list[_Log]
    append_time: bool
    max_bytes: int


@dataclass
class _Group:
    """One consumer group: committed offsets and members by instance id, in the order they joined."""

    committed: dict[tuple[str, str, int], int] = field(default_factory=dict)
    members: dict[str, MemoryGroupConsumer] = field(default_factory=dict)
    generation: int = 0


class MemoryBus:
    """A log in this process. `clock` gives the time (ms) that LogAppendTime topics stamp and `timestamp_ms=0` means."""

    def __init__(self, clock: Callable[[], int] = lambda: int(time.time() * 1000)) -> None:
        self.clock = clock
        self.appended = 0
        self._topics: dict[str, _Topic] = {}
        self._groups: dict[str, _Group] = {}

    def producer(self, name: str) -> Producer:
        return MemoryProducer(self)

    def group_consumer(
        self, group: str, instance: str, on_assign: OnAssign, on_revoke: OnGone, on_lost: OnGone
    ) -> GroupConsumer:
        return MemoryGroupConsumer(self, self._groups.setdefault(group, _Group()), instance, on_assign, on_revoke, on_lost)

    def reader(self) -> Reader:
        return MemoryReader(self)

    def partitions(self, topic: str) -> int | None:
        found = self._topics.get(topic)
        return len(found.logs) if found else None

    def topic_id(self, topic: str) -> str:
        return self._topic(topic).id

    def offsets(self, place: Place) -> tuple[int, int]:
        log = self._log(place)
        return log.first, log.end

    def create_topics(self, specs: Sequence[TopicSpec]) -> None:
        for spec in specs:
            if spec.name not in self._topics:
                config = dict(spec.config)
                self._topics[spec.name] = _Topic(
                    uuid.uuid4().hex, config, [_Log() for _ in range(spec.partitions)],
                    config.get("message.timestamp.type") == "LogAppendTime",
                    int(config.get("max.message.bytes", MAX_MESSAGE_BYTES)),
                )

    def topic_config(self, topic: str) -> dict[str, str]:
        defaults = {"message.timestamp.type": "CreateTime", "cleanup.policy": "delete", "retention.ms": "604800000"}
        return defaults | self._topic(topic).config

    def topics(self) -> list[str]:
        return sorted(self._topics)

    def close(self) -> None:
        """There is nothing to release."""

    # what a broker's operator can do

    def delete_topic(self, topic: str) -> None:
        """Delete a topic with its records; created again it has another id."""
        del self._topics[topic]

    def delete_records(self, place: Place, before: int) -> None:
        """Let go of the records before an offset."""
        log = self._log(place)
        keep = max(log.first, min(before, log.end))
        del log.records[: keep - log.first]
        log.first = keep

    # between the parts of this module

    def append(
        self, topic: str, partition: int | None, key: bytes | None, value: bytes | None, headers: Headers, timestamp_ms: int
    ) -> None:
        found = self._topic(topic)
        if len(value or b"") + len(key or b"") > found.max_bytes:
            raise ProducerFailed(f"{topic}: a record of {len(value or b'')} bytes; the topic takes {found.max_bytes}")
        if partition is None:
            partition = partition_of(key, len(found.logs))
        if not 0 <= partition < len(found.logs):
            raise ProducerFailed(f"{topic} has no partition {partition}")
        log = found.logs[partition]
        stamp = (2, self.clock()) if found.append_time else (1, timestamp_ms or self.clock())
        encoded = [(name, text.encode() if isinstance(text, str) else text) for name, text in headers]
        log.records.append(MemoryMessage(topic, partition, log.end, key, value, encoded, stamp))
        self.appended += 1

    def read(self, place: Place, offset: int, limit: int) -> list[MemoryMessage]:
        log = self._log(place)
        if not log.first <= offset <= log.end:
            raise BusError(
                f"{place[0]} partition {place[1]}: offset {offset} is out of range, the log holds {log.first} to {log.end}"
            )
        return log.records[offset - log.first : offset - log.first + limit]

    def _topic(self, topic: str) -> _Topic:
        found = self._topics.get(topic)
        if found is None:
            raise TopicMissing(f"there is no topic {topic}; `headrace topics --create` makes what is missing")
        return found

    def _log(self, place: Place) -> _Log:
        logs = self._topic(place[0]).logs
        if place[1] >= len(logs):
            raise TopicMissing(f"{place[0]} has no partition {place[1]}")
        return logs[place[1]]


class MemoryProducer:
    """Appends at once: whatever was produced is acknowledged."""

    def __init__(self, bus: MemoryBus) -> None:
        self._append = bus.append

    def produce(
        self, topic: str, partition: int | None, key: bytes | None, value: bytes | None, headers: Headers, timestamp_ms: int
    ) -> None:
        self._append(topic, partition, key, value, headers, timestamp_ms)

    def poll(self) -> None:
        """Nothing waits for an acknowledgement."""

    def flush(self) -> None:
        """Nothing waits for an acknowledgement."""

    def close(self) -> None:
        """Nothing is queued."""


class _Positions:
    """Where a consumer stands in each of its places; takes records in turn from each."""

    def __init__(self, bus: MemoryBus) -> None:
        self._bus = bus
        self.next: dict[Place, int] = {}
        self.paused: set[Place] = set()

    def take(self, limit: int) -> list[Message]:
        taken: list[Message] = []
        for place in list(self.next):
            if place in self.paused or len(taken) >= limit:
                continue
            found = self._bus.read(place, self.next[place], limit - len(taken))
            if found:
                self.next[place] += len(found)
                taken += found
        if len(self.next) > 1 and taken:  # the first place must not starve the others
            place = next(iter(self.next))
            self.next[place] = self.next.pop(place)
        return taken


class MemoryReader:
    """Reads places without a group."""

    def __init__(self, bus: MemoryBus) -> None:
        self._positions = _Positions(bus)

    def assign(self, offsets: Mapping[Place, int]) -> None:
        self._positions.next = dict(offsets)

    def poll(self, limit: int, timeout_s: float) -> list[Message]:
        return self._positions.take(limit)

    def close(self) -> None:
        """There is nothing to release."""


class MemoryGroupConsumer:
    """A member of a group. Assignments change at the member's own next poll, revocations before assignments."""

    def __init__(
        self, bus: MemoryBus, group: _Group, instance: str, on_assign: OnAssign, on_revoke: OnGone, on_lost: OnGone
    ) -> None:
        self._bus, self._group, self._instance = bus, group, instance
        self._on_assign, self._on_revoke, self._on_lost = on_assign, on_revoke, on_lost
        self._positions = _Positions(bus)
        self.topics: list[str] = []
        self._seen_generation = -1
        self._fenced = False

    def subscribe(self, topics: Sequence[str]) -> None:
        self.topics = list(topics)
        older = self._group.members.get(self._instance)
        if older is not None and older is not self:
            older._fenced = True
        self._group.members[self._instance] = self
        self._group.generation += 1

    def poll(self, limit: int, timeout_s: float) -> list[Message]:
        if self._fenced:
            raise Fenced(f"another process took the place of {self._instance} in the group")
        if self._seen_generation != self._group.generation:
            self._rebalance()
        return self._positions.take(limit)

    def committed(self, places: Sequence[Place]) -> dict[Place, int]:
        found = {place: self._group.committed.get(self._committed_key(place)) for place in places}
        return {place: offset for place, offset in found.items() if offset is not None}

    def commit(self, offsets: Mapping[Place, int]) -> None:
        if self._fenced:
            raise Fenced(f"another process took the place of {self._instance} in the group")
        for place, offset in offsets.items():
            if place in self._positions.next:
                self._group.committed[self._committed_key(place)] = offset

    def pause(self, places: Sequence[Place]) -> None:
        self._positions.paused |= set(places)

    def resume(self, places: Sequence[Place]) -> None:
        self._positions.paused -= set(places)

    def seek(self, place: Place, offset: int) -> None:
        if place not in self._positions.next:
            raise BusError(f"{place[0]} partition {place[1]} is not assigned to {self._instance}")
        self._positions.next[place] = offset

    def close(self) -> None:
        if self._group.members.get(self._instance) is self:
            del self._group.members[self._instance]
            self._group.generation += 1

    def lose(self) -> None:
        """What a session's end does: everything assigned is gone, and the member joins again at its next poll."""
        lost = list(self._positions.next)
        self._positions.next.clear()
        self._on_lost(lost)
        self._group.generation += 1

    def _rebalance(self) -> None:
        share = self._share()
        gone = [place for place in self._positions.next if place not in share]
        if gone:
            self._on_revoke(gone)
            for place in gone:
                del self._positions.next[place]
                self._positions.paused.discard(place)
        held = {
            place for member in self._group.members.values() if member is not self for place in member._positions.next
        }
        fresh = [place for place in share if place not in self._positions.next and place not in held]
        if fresh:
            self._positions.next |= self._on_assign(fresh)
        if all(place in self._positions.next for place in share):
            self._seen_generation = self._group.generation

    def _share(self) -> list[Place]:
        """This member's places: those it has already, as far as that is fair, then free ones; sticky like Kafka's."""
        members = sorted(self._group.members)
        places = sorted({
            (topic, partition)
            for member in self._group.members.values()
            for topic in member.topics
            for partition in range(self._bus.partitions(topic) or 0)
        })
        return [place for number, place in enumerate(places) if members[number % len(members)] == self._instance]

    def _committed_key(self, place: Place) -> tuple[str, str, int]:
        return self._bus.topic_id(place[0]), place[0], place[1]


def _keeps_to_the_protocol(bus: MemoryBus) -> Bus:
    return bus
