"""Apache Kafka as a bus, through confluent-kafka (librdkafka).

What looks odd here was tried on Apache Kafka 4.2 and is explained where it stands: the count of acknowledgements,
the two subscriptions after a restart, the offsets given at assignment.
"""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka import Producer as ConfluentProducer
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec, ResourceType

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
    Unavailable,
)
from headrace.schemas.codec import Headers

MAX_MESSAGE_BYTES = 1_000_000
FLUSH_S = 1.0
EXPECT_ASSIGNMENT_S = 1.0
ADMIN_S = 15.0
TRANSIENT = {
    KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._PARTITION_EOF, KafkaError._TIMED_OUT,
    KafkaError._RESOLVE, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE,
}
REBALANCING = {
    KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.REBALANCE_IN_PROGRESS, KafkaError._NO_OFFSET,
    KafkaError._STATE, KafkaError._ASSIGNMENT_LOST, KafkaError._WAIT_COORD,
}


class KafkaBus:
    """A cluster at `bootstrap`. `security` are librdkafka's settings, as `Settings.confluent_security` gives them."""

    def __init__(
        self, bootstrap: str, *, linger_ms: float = 1, session_timeout_s: float = 45,
        security: Mapping[str, Any] | None = None, client_id: str = "headrace",
    ) -> None:
        self.bootstrap = bootstrap
        self._linger_ms, self._session_s = linger_ms, session_timeout_s
        self._common: dict[str, Any] = {
            "bootstrap.servers": bootstrap, "client.id": client_id, "log_level": 3, "logger": _librdkafka_logger(),
            "reconnect.backoff.max.ms": 1_000, "allow.auto.create.topics": False, **(security or {}),
        }
        self._admin_client: AdminClient | None = None

    def producer(self, name: str) -> Producer:
        return KafkaProducer(self._common | {
            "enable.idempotence": True, "acks": "all", "enable.gapless.guarantee": True,
            "partitioner": "murmur2_random", "compression.type": "lz4", "linger.ms": self._linger_ms,
            "message.timeout.ms": 0, "message.max.bytes": MAX_MESSAGE_BYTES, "queue.buffering.max.messages": 100_000,
        })

    def group_consumer(
        self, group: str, instance: str, on_assign: OnAssign, on_revoke: OnGone, on_lost: OnGone
    ) -> GroupConsumer:
        return KafkaGroupConsumer(
            self._common | self._fetching() | {
                "group.id": group, "group.instance.id": instance, "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": int(self._session_s * 1000),
                "heartbeat.interval.ms": max(100, min(3_000, int(self._session_s * 1000 / 6))),
                "enable.auto.commit": False, "enable.auto.offset.store": False,
            },
            on_assign, on_revoke, on_lost,
        )

    def reader(self) -> Reader:
        return KafkaReader(self._common | self._fetching() | {
            "group.id": "headrace-reader", "enable.auto.commit": False, "enable.auto.offset.store": False,
        })

    def partitions(self, topic: str) -> int | None:
        found = self._metadata().topics.get(topic)
        return len(found.partitions) if found is not None and found.error is None else None

    def topics(self) -> list[str]:
        return sorted(name for name in self._metadata().topics if not name.startswith("__"))

    def topic_id(self, topic: str) -> str:
        try:
            found = self._wait(self._admin().describe_topics(TopicCollection([topic]))[topic])
        except KafkaException as error:
            raise self._explain(error, topic) from error
        # librdkafka shows Kafka's UUID as unpadded base64, other clients as hex digits
        return base64.urlsafe_b64decode(str(found.topic_id).replace("+", "-").replace("/", "_") + "==").hex()

    def offsets(self, place: Place) -> tuple[int, int]:
        ends = []
        for spec in (OffsetSpec.earliest(), OffsetSpec.latest()):
            future = self._admin().list_offsets({TopicPartition(*place): spec}, request_timeout=ADMIN_S)
            try:
                ends.append(int(self._wait(next(iter(future.values()))).offset))
            except KafkaException as error:
                raise self._explain(error, place[0]) from error
        return ends[0], ends[1]

    def create_topics(self, specs: Sequence[TopicSpec]) -> None:
        existing = self._metadata().topics
        new = [
            NewTopic(spec.name, num_partitions=spec.partitions, replication_factor=-1, config=dict(spec.config))
            for spec in specs if spec.name not in existing
        ]
        if not new:
            return
        for topic, future in self._admin().create_topics(new, operation_timeout=ADMIN_S).items():
            try:
                self._wait(future)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise self._explain(error, topic) from error
        self._await_metadata({spec.name for spec in specs})

    def topic_config(self, topic: str) -> dict[str, str]:
        future = next(iter(self._admin().describe_configs([ConfigResource(ResourceType.TOPIC, topic)]).values()))
        try:
            return {name: entry.value for name, entry in self._wait(future).items() if entry.value is not None}
        except KafkaException as error:
            raise self._explain(error, topic) from error

    def close(self) -> None:
        self._admin_client = None

    def _fetching(self) -> dict[str, Any]:
        # an offset that is no longer there must be an error: reset would skip it silently
        return {
            "auto.offset.reset": "error", "fetch.wait.max.ms": 500, "fetch.min.bytes": 1, "enable.partition.eof": False,
            "fetch.error.backoff.ms": 50, "topic.metadata.refresh.interval.ms": 10_000,
        }

    def _admin(self) -> AdminClient:
        if self._admin_client is None:  # made late: a client made before a fork is dead in the child
            self._admin_client = AdminClient({k: v for k, v in self._common.items() if k != "allow.auto.create.topics"})
        return self._admin_client

    def _metadata(self) -> Any:
        try:
            return self._admin().list_topics(timeout=ADMIN_S)
        except KafkaException as error:
            raise self._explain(error, "") from error

    def _await_metadata(self, topics: set[str]) -> None:
        deadline = time.monotonic() + ADMIN_S
        while not all(
            name in (known := self._metadata().topics) and all(p.leader >= 0 for p in known[name].partitions.values())
            for name in topics
        ):
            if time.monotonic() > deadline:
                raise Unavailable(f"topics {', '.join(sorted(topics))} have no leader after {ADMIN_S:g} s")
            time.sleep(0.02)

    def _wait(self, future: Any) -> Any:
        return future.result(timeout=ADMIN_S)

    def _explain(self, error: KafkaException, topic: str) -> BusError:
        return _explained(error.args[0], self.bootstrap, topic)


class KafkaProducer:
    """Counts what it produced and what was acknowledged; a commit may follow only where both are equal."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._bootstrap = config["bootstrap.servers"]
        self._failed: str | None = None
        self._produced = self._acknowledged = 0
        self._client = ConfluentProducer(config | {"on_delivery": self._delivered, "error_cb": self._on_error})
        self._send = self._client.produce

    def produce(
        self, topic: str, partition: int | None, key: bytes | None, value: bytes | None, headers: Headers, timestamp_ms: int
    ) -> None:
        # too large for the client: produce raises, and later records would be written: a gap; so the size comes first
        if value is not None and len(value) > MAX_MESSAGE_BYTES - 20_000:
            raise ProducerFailed(f"{topic}: a record of {len(value)} bytes; {MAX_MESSAGE_BYTES - 20_000} is the most")
        while True:
            try:
                self._send(topic, value, key, -1 if partition is None else partition, timestamp=timestamp_ms, headers=headers)
                self._produced += 1
                return
            except BufferError:
                self._client.poll(0.05)
                self._check()
            except KafkaException as error:
                raise ProducerFailed(f"{topic}: {error.args[0]}") from error

    def poll(self) -> None:
        self._client.poll(0)
        if self._failed is not None:
            self._check()

    def flush(self) -> None:
        while self._acknowledged < self._produced:
            try:
                self._client.flush(FLUSH_S)
            except BaseException as error:  # a fatal error may surface here as KafkaException, SystemError or KafkaError
                if isinstance(error, KeyboardInterrupt | SystemExit):
                    raise
                raise ProducerFailed(f"the producer cannot go on: {error}") from None
            self._check()

    def close(self) -> None:
        self._client.purge()
        self._client.poll(0)

    def _delivered(self, error: KafkaError | None, message: Any) -> None:
        if error is None:
            self._acknowledged += 1
        else:
            self._failed = self._failed or f"{message.topic()} partition {message.partition()}: {error}"

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._failed = self._failed or str(error)

    def _check(self) -> None:
        if self._failed is not None:
            raise ProducerFailed(
                f"{self._failed} ({self._produced - self._acknowledged} records not acknowledged; nothing of them is committed, "
                "a restart makes them again)"
            )


class _Polling:
    """Taking records from a consumer: one poll that waits, then what is there already."""

    def __init__(self, client: Consumer, bootstrap: str) -> None:
        self._client, self._bootstrap = client, bootstrap

    def take(self, limit: int, timeout_s: float) -> list[Message]:
        first = self._client.poll(timeout_s)
        if first is None:
            return []
        messages = [first]
        if limit > 1:
            messages += self._client.consume(limit - 1, 0)
        for message in messages:
            if message.error() is not None:
                return [cast(Message, m) for m in messages if m.error() is None or self._refuse(m)]
        return cast(list[Message], messages)

    def _refuse(self, message: Any) -> bool:
        error = message.error()
        if error.fatal() or error.code() in (KafkaError._FATAL, KafkaError.FENCED_INSTANCE_ID):
            raise Fenced(f"another process took this one's place in its group: {error}")
        if error.code() in TRANSIENT or error.retriable():
            return False
        raise _explained(error, self._bootstrap, message.topic() or "")


class KafkaGroupConsumer:
    """A static member; a killed service is back in 0.2 s, where a dynamic one would wait for its old session's end."""

    def __init__(self, config: dict[str, Any], on_assign: OnAssign, on_revoke: OnGone, on_lost: OnGone) -> None:
        self._client = Consumer(config)
        self._polling = _Polling(self._client, config["bootstrap.servers"])
        self._on_assign, self._on_revoke, self._on_lost = on_assign, on_revoke, on_lost
        self._topics: list[str] = []
        self._assigned: set[Place] = set()
        self._raised: BaseException | None = None
        self._expect_by = 0.0

    def subscribe(self, topics: Sequence[str]) -> None:
        self._topics = list(topics)
        self._subscribe(self._topics)
        self._expect_by = time.monotonic() + EXPECT_ASSIGNMENT_S

    def poll(self, limit: int, timeout_s: float) -> list[Message]:
        messages = self._polling.take(limit, timeout_s)
        if self._raised is not None:
            raised, self._raised = self._raised, None
            raise raised
        if self._expect_by and time.monotonic() > self._expect_by:
            self._expect_all_topics()
        return messages

    def committed(self, places: Sequence[Place]) -> dict[Place, int]:
        found = self._client.committed([TopicPartition(*place) for place in places], timeout=ADMIN_S)
        return {(p.topic, p.partition): p.offset for p in found if p.offset >= 0 and p.error is None}

    def commit(self, offsets: Mapping[Place, int]) -> None:
        ours = [TopicPartition(*place, offset) for place, offset in offsets.items() if place in self._assigned]
        if not ours:
            return
        try:
            self._client.commit(offsets=ours, asynchronous=True)
        except KafkaException as error:
            code = error.args[0].code()
            if code in (KafkaError.FENCED_INSTANCE_ID, KafkaError._FATAL):
                raise Fenced(f"another process took this one's place in its group: {error.args[0]}") from error
            if code not in REBALANCING | TRANSIENT:
                raise BusError(f"the group's offsets cannot be written: {error.args[0]}") from error

    def pause(self, places: Sequence[Place]) -> None:
        self._client.pause([TopicPartition(*place) for place in places if place in self._assigned])

    def resume(self, places: Sequence[Place]) -> None:
        self._client.resume([TopicPartition(*place) for place in places if place in self._assigned])

    def seek(self, place: Place, offset: int) -> None:
        if place not in self._assigned:
            raise BusError(f"{place[0]} partition {place[1]} is not assigned")
        self._client.seek(TopicPartition(*place, offset))

    def close(self) -> None:
        self._client.close()

    def _subscribe(self, topics: list[str]) -> None:
        self._client.subscribe(topics, on_assign=self._assign, on_revoke=self._revoke, on_lost=self._lost)

    def _expect_all_topics(self) -> None:
        """A static member that restarts with a longer list gets its old assignment back: ask for it anew."""
        self._expect_by = 0.0
        if {topic for topic, _ in self._assigned} >= set(self._topics) or not self._assigned:
            return
        known = sorted({topic for topic, _ in self._assigned})
        self._subscribe(known)
        self._client.poll(0.05)
        self._subscribe(self._topics)

    def _assign(self, client: Consumer, parts: list[TopicPartition]) -> None:
        places = [(part.topic, part.partition) for part in parts]
        try:
            starts = self._on_assign(places) if places else {}
        except BaseException as error:  # an exception in librdkafka's callback would be lost
            self._raised = error
            return
        self._assigned |= set(places)
        client.incremental_assign([TopicPartition(*place, starts[place]) for place in places])

    def _revoke(self, client: Consumer, parts: list[TopicPartition]) -> None:
        places = [(part.topic, part.partition) for part in parts]
        try:
            self._on_revoke(places)
        except BaseException as error:
            self._raised = error
        self._assigned -= set(places)
        client.incremental_unassign(parts)

    def _lost(self, client: Consumer, parts: list[TopicPartition]) -> None:
        places = [(part.topic, part.partition) for part in parts]
        self._assigned -= set(places)
        try:
            self._on_lost(places)
        except BaseException as error:
            self._raised = error
        client.incremental_unassign(parts)


class KafkaReader:
    """Reads places without a group."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._client = Consumer(config)
        self._polling = _Polling(self._client, config["bootstrap.servers"])

    def assign(self, offsets: Mapping[Place, int]) -> None:
        self._client.assign([TopicPartition(*place, offset) for place, offset in offsets.items()])

    def poll(self, limit: int, timeout_s: float) -> list[Message]:
        return self._polling.take(limit, timeout_s)

    def close(self) -> None:
        self._client.close()


def _explained(error: KafkaError, bootstrap: str, topic: str) -> BusError:
    code = error.code()
    if code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION):
        return TopicMissing(f"there is no topic {topic}; `headrace topics --create` makes what is missing")
    if code in TRANSIENT:
        return Unavailable(f"no broker answers at {bootstrap} ({error.str()}); `headrace up` starts one, `headrace doctor` checks")
    return BusError(f"{topic or bootstrap}: {error.str() or error}")


def _librdkafka_logger() -> logging.Logger:
    """librdkafka's lines, without the one that calls the gapless guarantee experimental (it is tested here)."""
    logger = logging.getLogger("librdkafka")
    if not logger.filters:
        logger.addFilter(lambda line: "experimental" not in line.getMessage())
    return logger


def _keeps_to_the_protocol(bus: KafkaBus) -> Bus:
    return bus
