"""The in-process log itself: topics, partitions and their records."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from headrace.infra.bus import MAX_RECORD_BYTES, BusError, Place, TopicMissing, TopicSpec

CREATE_TIME, LOG_APPEND_TIME = 1, 2
DEFAULTS = {
    "cleanup.policy": "delete",
    "message.timestamp.type": "CreateTime",
    "retention.ms": "604800000",
    "retention.bytes": "-1",
    "max.message.bytes": "1048588",
}


class MemoryMessage:
    """One record, with the methods of confluent-kafka's Message."""

    __slots__ = ("_epoch", "_headers", "_key", "_offset", "_partition", "_timestamp", "_topic", "_value")

    def __init__(
        self,
        topic: str,
        partition: int,
        offset: int,
        key: bytes | None,
        value: bytes | None,
        headers: list[tuple[str, bytes]],
        timestamp: tuple[int, int],
        epoch: int = 0,
    ) -> None:
        self._topic, self._partition, self._offset = topic, partition, offset
        self._key, self._value, self._headers, self._timestamp = key, value, headers, timestamp
        self._epoch = epoch

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
        return self._epoch


@dataclass
class Log:
    """One partition: its records, the offset of the first one still kept, its leader's epoch."""

    records: list[MemoryMessage] = field(default_factory=list)
    first: int = 0
    epoch: int = 0

    @property
    def end(self) -> int:
        """The offset that the next record will have."""
        return self.first + len(self.records)

    def read(self, place: Place, offset: int, limit: int) -> list[MemoryMessage]:
        """Up to `limit` records from `offset` on. Raises BusError where it is out of range."""
        start = offset - self.first
        if not 0 <= start <= len(self.records):
            raise BusError(
                f"{place[0]} partition {place[1]}: offset {offset} is out of range, the log holds {self.first} to "
                f"{self.end}; nothing is skipped"
            )
        return self.records[start : start + limit]

    def cut_back(self, end: int) -> None:
        """Lose the records from an offset on; those to come have a new epoch."""
        del self.records[max(0, end - self.first) :]
        self.epoch += 1

    def forget(self, before: int) -> None:
        """Let go of the records before an offset."""
        keep = max(self.first, min(before, self.end))
        del self.records[: keep - self.first]
        self.first = keep


@dataclass
class MemoryTopic:
    """One topic: its id, settings and partitions."""

    id: str
    config: dict[str, str]
    logs: list[Log]

    def __post_init__(self) -> None:
        settings = DEFAULTS | self.config
        self.stamps = settings["message.timestamp.type"] == "LogAppendTime"
        self.max_bytes = min(int(settings["max.message.bytes"]), MAX_RECORD_BYTES)


class Topics:
    """Topics by name. Ids follow from name and order of creation, so two runs of one program agree on them."""

    def __init__(self) -> None:
        self.by_name: dict[str, MemoryTopic] = {}
        self._created = 0

    def create(self, spec: TopicSpec) -> None:
        """Create a topic that does not exist."""
        self._created += 1
        identity = hashlib.sha256(f"{spec.name} {self._created}".encode()).hexdigest()[:32]
        self.by_name[spec.name] = MemoryTopic(identity, dict(spec.config), [Log() for _ in range(spec.partitions)])

    def topic(self, name: str) -> MemoryTopic:
        """A topic. Raises TopicMissing."""
        found = self.by_name.get(name)
        if found is None:
            raise TopicMissing(f"there is no topic {name}; `headrace topics --create` makes what is missing")
        return found

    def log(self, place: Place) -> Log:
        """One partition. Raises TopicMissing."""
        logs = self.topic(place[0]).logs
        if not 0 <= place[1] < len(logs):
            raise TopicMissing(f"{place[0]} has no partition {place[1]}")
        return logs[place[1]]
