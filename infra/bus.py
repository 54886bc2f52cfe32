"""What a bus is. Two real sides keep to it and to the same tests: `kafka_bus` and `memory_bus`.

Topics are named as the broker knows them (`schemas.topics.full_name`). Nothing here blocks longer than the
timeout given; with 0 it never does, so a simulation can drive many workers in one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from headrace.schemas.codec import Headers

Place = tuple[str, int]  # topic, partition
MAX_REQUEST_BYTES = 1_000_000  # what producers send at once at most; brokers take it by default
MAX_RECORD_BYTES = 980_000  # of a value: with room for the rest of its request


class Message(Protocol):
    """One record as the client hands it over (the methods of confluent-kafka's Message)."""

    def topic(self) -> str: ...
    def partition(self) -> int: ...
    def offset(self) -> int: ...
    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...
    def headers(self) -> Sequence[tuple[str, bytes]] | None: ...
    def timestamp(self) -> tuple[int, int]: ...
    def leader_epoch(self) -> int | None: ...


class BusError(RuntimeError):
    """The bus cannot go on; the process ends before it commits. The message says what to do next."""


class ProducerFailed(BusError):
    """Not every record was acknowledged: fewer acknowledgements than records produced, or a fatal error."""


class Fenced(BusError):
    """Another process took this instance's place in the group; this one must end."""


class Unavailable(BusError):
    """No broker answers at the address."""


class TopicMissing(BusError):
    """A topic does not exist; services never create one by themselves."""


class NotAuthorized(BusError):
    """The broker's authorizer refuses: the right is not given, or was withdrawn."""


class WriteForbidden(ProducerFailed, NotAuthorized):
    """A record was refused because the right to write its topic is not given."""


class NotAuthenticated(BusError):
    """The broker does not take this process for whom it says it is, or this process does not trust the broker."""


class Producer(Protocol):
    """Sends records in order, idempotently, acknowledged by all replicas."""

    def produce(
        self,
        topic: str,
        partition: int | None,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        timestamp_ms: int,
    ) -> None:
        """Queue one record; waits while the queue is full. `partition` None: murmur2 of the key.

        `timestamp_ms` 0 means now. Raises ProducerFailed, also where the record is too large.
        """

    def poll(self) -> None:
        """Serve acknowledgements without waiting. Raises ProducerFailed."""

    def push(self) -> None:
        """Send now what waits for company; waits about a millisecond at most. Raises ProducerFailed."""

    def flush(self) -> None:
        """Wait until every record is acknowledged. Raises ProducerFailed where one is not."""

    def close(self) -> None:
        """Forget what is queued and release the connection."""


class GroupConsumer(Protocol):
    """A static member of a consumer group (classic protocol, cooperative-sticky)."""

    def subscribe(self, topics: Sequence[str]) -> None:
        """Take part in these topics; called again with a longer list when pipelines come."""

    def poll(self, limit: int, timeout_s: float) -> list[Message]:
        """Up to `limit` records, waiting at most `timeout_s` for the first. Calls back on assignment changes.

        Raises Fenced, TopicMissing, or BusError (an offset out of range is an error, never skipped).
        """

    def committed(self, places: Sequence[Place]) -> dict[Place, int]:
        """The group's offsets; a place without one is absent."""

    def commit(self, offsets: Mapping[Place, int]) -> None:
        """Mirror offsets to the group, through this member. Failures of a rebalance are ignored: mirror again."""

    def seek(self, place: Place, offset: int) -> None:
        """Read on from another offset of an assigned place."""

    def close(self) -> None:
        """Leave at a clean stop (static members keep their place until the session ends)."""


class Reader(Protocol):
    """Reads places by `assign()`, without a group: for tables, tools and the recorder."""

    def assign(self, offsets: Mapping[Place, int]) -> None:
        """Read exactly these places, each from its offset on. Calling it again replaces the list."""

    def poll(self, limit: int, timeout_s: float) -> list[Message]:
        """Up to `limit` records, waiting at most `timeout_s` for the first."""

    def close(self) -> None: ...


OnAssign = Callable[[list[Place]], dict[Place, int]]
OnGone = Callable[[list[Place]], None]


@dataclass(frozen=True)
class TopicSpec:
    """A topic to create: `config` are the broker's own names (`retention.ms`, `message.timestamp.type`, …)."""

    name: str
    partitions: int
    config: Mapping[str, str]


class Bus(Protocol):
    """Makes producers and readers, and answers questions about topics."""

    def producer(self, name: str) -> Producer: ...

    def group_consumer(
        self, group: str, instance: str, on_assign: OnAssign, on_revoke: OnGone, on_lost: OnGone
    ) -> GroupConsumer:
        """A member of `group`. `on_assign` gets the *new* places and returns the offset to start each from.

        `on_revoke` is called before places go (save now); `on_lost` after they went (forget, never commit).
        """

    def reader(self) -> Reader: ...

    def partitions(self, topic: str) -> int | None:
        """The topic's partition count, None where it does not exist."""

    def topic_id(self, topic: str) -> str:
        """The topic's id as 32 hex digits; another one after delete and recreate. Raises TopicMissing."""

    def offsets(self, place: Place, at_least: int = 0) -> tuple[int, int]:
        """The first offset still kept and the next one to be written, which is asked for again where it is less than
        `at_least`: it was seen already, and a broker may not know yet. Raises TopicMissing.
        """

    def create_topics(self, specs: Sequence[TopicSpec]) -> None:
        """Create those that do not exist; others are left as they are."""

    def topic_config(self, topic: str) -> dict[str, str]:
        """The topic's settings by the broker's names. Raises TopicMissing."""

    def topics(self) -> list[str]:
        """The names of all topics."""

    def copies(self) -> tuple[int, dict[str, int]]:
        """How many brokers answer, and how many copies each topic has (its partition with the fewest)."""

    def close(self) -> None: ...
