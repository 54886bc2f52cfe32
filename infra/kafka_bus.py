"""Apache Kafka as a bus, through confluent-kafka (librdkafka)."""

from __future__ import annotations

import base64
import contextlib
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TYPE_CHECKING, Any, TypeVar

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ClusterMetadata,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from headrace.infra.bus import (
    GroupConsumer,
    OnAssign,
    OnGone,
    Place,
    Producer,
    Reader,
    TopicMissing,
    TopicSpec,
    Unavailable,
)
from headrace.infra.kafka_consumer import ADMIN_S, KafkaGroupConsumer, KafkaReader
from headrace.infra.kafka_errors import Refusals, explained, missing
from headrace.infra.kafka_producer import KafkaProducer

AGAIN_S = 30.0  # a line that says the same is told again after so long
_CHANGING = re.compile(r"\[[^]]*\]|after \d+ms|\d+ identical error\(s\) suppressed|ipv4#\S+|\d+ms|/bootstrap|/\d+:")
TURN_S, ASK_S, CREATE_S, LEADER_S = 2.0, 4.0, 8.0, 45.0
THAWED_S = 5.0  # a leader that stood still goes on as one, though another has taken its place, until it hears of that
Answer = TypeVar("Answer")
KNOWN_LINES = ("experimental", "SASL authentication error", "certificate verify failed")  # the first: gapless


class KafkaBus:
    """A cluster at `bootstrap`. `security` are librdkafka's settings, as `Settings.confluent_security` gives them.

    Making one connects to nothing, so it may be made before a fork; what it makes may not.
    """

    def __init__(
        self,
        bootstrap: str,
        *,
        linger_ms: float = 10,
        session_timeout_s: float = 45,
        security: Mapping[str, Any] | None = None,
        client_id: str = "headrace",
    ) -> None:
        self.bootstrap = bootstrap
        self._linger_ms, self._session_s, self._client_id = linger_ms, session_timeout_s, client_id
        named = security or {}
        who = str(named.get("sasl.username") or named.get("ssl.certificate.location") or "without a name")
        self._refusals = Refusals(who, bootstrap)
        self._common: dict[str, Any] = {
            "bootstrap.servers": bootstrap,
            "client.id": client_id,
            "log_level": 3,
            "logger": _quiet_logger(),
            "error_cb": self._refusals.hear,
            "reconnect.backoff.max.ms": 1_000,
            **named,
        }
        self._admin_client: AdminClient | None = None

    def producer(self, name: str) -> Producer:
        config = self._common | {"client.id": f"{self._client_id}-{name}"}
        return KafkaProducer(config, self._refusals, linger_ms=self._linger_ms)

    def group_consumer(
        self, group: str, instance: str, on_assign: OnAssign, on_revoke: OnGone, on_lost: OnGone
    ) -> GroupConsumer:
        return KafkaGroupConsumer(
            self._common, self._refusals, group, instance, self._session_s, on_assign, on_revoke, on_lost
        )

    def reader(self) -> Reader:
        return KafkaReader(self._common, self._refusals)

    def partitions(self, topic: str) -> int | None:
        with contextlib.suppress(TopicMissing):
            return len(self._described(topic).partitions)
        return None

    def topics(self) -> list[str]:
        return sorted(name for name in self._metadata().topics if not name.startswith("__"))

    def copies(self) -> tuple[int, dict[str, int]]:
        known = self._metadata()
        return len(known.brokers), {
            name: min(len(part.replicas) for part in topic.partitions.values())
            for name, topic in known.topics.items()
            if topic.partitions
        }

    def topic_id(self, topic: str) -> str:
        found = self._described(topic)
        # librdkafka shows Kafka's UUID as unpadded base64, other clients as hex digits
        return base64.urlsafe_b64decode(str(found.topic_id).replace("+", "-").replace("/", "_") + "==").hex()

    def offsets(self, place: Place, at_least: int = 0) -> tuple[int, int]:
        if self.partitions(place[0]) is None:  # list_offsets does not name the topic it misses
            raise TopicMissing(missing(place[0]))
        part, deadline = TopicPartition(*place), time.monotonic() + THAWED_S
        while True:
            first, end = self._offset(part, OffsetSpec.earliest()), self._offset(part, OffsetSpec.latest())  # type: ignore[no-untyped-call]
            if end >= at_least or time.monotonic() > deadline:
                return first, end
            self._admin_client = None
            time.sleep(0.5)

    def create_topics(self, specs: Sequence[TopicSpec]) -> None:
        existing = self._metadata().topics
        new = [
            NewTopic(spec.name, num_partitions=spec.partitions, replication_factor=-1, config=dict(spec.config))
            for spec in specs
            if spec.name not in existing
        ]
        if not new:
            return
        self._again(lambda admin: self._create(admin, new), LEADER_S)
        self._await_leaders({spec.name for spec in specs})

    def topic_config(self, topic: str) -> dict[str, str]:
        asked = [ConfigResource(ResourceType.TOPIC, topic)]
        entries = self._again(
            lambda admin: self._result(
                next(iter(admin.describe_configs(asked, request_timeout=ASK_S).values())), topic, "DescribeConfigs"
            )
        )
        return {name: entry.value for name, entry in entries.items() if entry.value is not None}

    def close(self) -> None:
        self._admin_client = None

    def _admin(self) -> AdminClient:
        if self._admin_client is None:
            self._admin_client = AdminClient(self._common)
        return self._admin_client

    def _described(self, topic: str) -> Any:
        """One topic. To be told of all that there are takes 67 ms where there are 2,000, of one 1 ms."""
        return self._again(
            lambda admin: self._result(
                admin.describe_topics(TopicCollection([topic]), request_timeout=ASK_S)[topic], topic
            )
        )

    def _metadata(self) -> ClusterMetadata:
        """The brokers, and all topics that this user may see."""

        def ask(admin: AdminClient) -> ClusterMetadata:
            try:
                return admin.list_topics(timeout=TURN_S)
            except KafkaException as error:
                raise Unavailable(str(explained(error.args[0], "", self.bootstrap))) from error

        return self._again(ask)

    def _await_leaders(self, topics: set[str]) -> None:
        deadline = time.monotonic() + ADMIN_S
        while True:
            known = self._metadata().topics
            leaderless = [
                name
                for name in topics
                if name not in known or any(part.leader < 0 for part in known[name].partitions.values())
            ]
            if not leaderless:
                return
            if time.monotonic() > deadline:
                raise Unavailable(f"topics without a leader after {ADMIN_S:g} s: {', '.join(sorted(leaderless))}")
            time.sleep(0.02)

    def _offset(self, part: TopicPartition, spec: Any) -> int:
        def ask(admin: AdminClient) -> int:
            future = next(iter(admin.list_offsets({part: spec}, request_timeout=ASK_S).values()))
            offset = int(self._result(future, part.topic).offset)
            if offset < 0:  # what librdkafka says, without an error, where the connection broke before the answer
                raise Unavailable(f"the leader of {part.topic} partition {part.partition} went away while it was asked")
            return offset

        # the leader of a new topic may not know yet that it is, a killed broker has to register first
        return self._again(ask, LEADER_S)

    def _again(self, ask: Callable[[AdminClient], Answer], limit_s: float | None = None) -> Answer:
        """Ask until there is an answer, each time through a new client: one waits for the leaders that it knows of,
        and where these are gone it does not hear of others (or, having lost every broker, of none: kafka_lifeline).

        Asks in short turns, as a broker that refuses this user looks like none at all.
        """
        pause_s, deadline = 0.05, time.monotonic() + (ADMIN_S if limit_s is None else limit_s)
        while True:
            try:
                return ask(self._admin())
            except Unavailable:
                self._admin().poll(0)
                self._refusals.raise_any()
                self._admin_client = None
                if time.monotonic() > deadline:
                    raise
            time.sleep(pause_s)  # a client is a dozen threads, and all services ask while no broker answers
            pause_s = min(2 * pause_s, 1.0)

    def _create(self, admin: AdminClient, new: list[NewTopic]) -> None:
        for topic, future in admin.create_topics(new, operation_timeout=CREATE_S, request_timeout=CREATE_S).items():
            try:
                future.result(timeout=2 * CREATE_S)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise explained(error.args[0], topic, self.bootstrap, "Create") from error
            except FutureTimeout as error:
                raise self._silent() from error

    def _result(self, future: Any, topic: str, right: str = "Read") -> Any:
        try:
            return future.result(timeout=2 * ASK_S)
        except KafkaException as error:
            raise explained(error.args[0], topic, self.bootstrap, right) from error
        except FutureTimeout as error:
            raise self._silent() from error

    def _silent(self) -> Unavailable:
        return Unavailable(f"the broker at {self.bootstrap} did not answer in time")


class Quiet(logging.Filter):
    """librdkafka's lines, each at most once in a while: a client tells every attempt to reach a broker that is away.

    What is raised (refused credentials) or tested (the gapless guarantee, called experimental) is left out.
    """

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[str, float] = {}

    def filter(self, line: logging.LogRecord) -> bool:
        """Whether the line is told."""
        text, now = line.getMessage(), time.monotonic()
        what = _CHANGING.sub("", text)
        if any(known in text for known in KNOWN_LINES) or now < self._told.get(what, -AGAIN_S) + AGAIN_S:
            return False
        if len(self._told) > 1_000:
            self._told.clear()
        self._told[what] = now
        return True


def _quiet_logger() -> logging.Logger:
    logger = logging.getLogger("librdkafka")
    if not logger.filters:
        logger.addFilter(Quiet())
    return logger


if TYPE_CHECKING:
    from headrace.infra.bus import Bus

    _: type[Bus] = KafkaBus
