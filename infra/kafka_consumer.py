"""Reading from Apache Kafka: as a static member of a group, or place by place without one."""

from __future__ import annotations

import atexit
import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from headrace.infra.bus import BusError, Message, OnAssign, OnGone, Place
from headrace.infra.kafka_errors import REBALANCING, TRANSIENT, Refusals, explained, greet
from headrace.infra.kafka_lifeline import Lifeline

ADMIN_S = 15.0
SETTLED_S = 1.0
FETCHING: dict[str, Any] = {
    # an offset that is gone must be an error: a reset would skip what lies between, silently
    "auto.offset.reset": "error",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": False,
    "allow.auto.create.topics": False,
    "topic.metadata.refresh.interval.ms": 10_000,
    "fetch.min.bytes": 1,
    "fetch.wait.max.ms": 500,
    # librdkafka's defaults keep 64 MB in memory and pause a full second when they are full: 600,000 records took
    # 3.4 s and 110 MB so, and 0.8 s and 50 MB like this
    "queued.min.messages": 10_000,
    "queued.max.messages.kbytes": 16_384,
    "fetch.queue.backoff.ms": 5,
}


class KafkaReader:
    """Reads places without a group."""

    def __init__(self, config: dict[str, Any], refusals: Refusals) -> None:
        self._bootstrap, self._refusals = config["bootstrap.servers"], refusals
        unused = {"group.id": f"{config['client.id']}-reader"}  # librdkafka wants a name; nobody joins it
        self._lifeline = Lifeline(config)
        self._client = Consumer(config | FETCHING | self._lifeline.settings | unused)
        greet(self._client)
        self._topic: str | None = None

    def assign(self, offsets: Mapping[Place, int]) -> None:
        self._topic = next(iter(offsets))[0] if offsets else None
        self._client.assign([TopicPartition(*place, offset) for place, offset in offsets.items()])

    def poll(self, limit: int, timeout_s: float) -> list[Message]:
        first = self._client.poll(timeout_s)
        if first is None:
            self._refusals.raise_any()
            self._lifeline.check(self._client, self._topic)
            return []
        self._lifeline.heard()
        return _good([first, *self._client.consume(limit - 1, 0)] if limit > 1 else [first], self._bootstrap)

    def close(self) -> None:
        self._client.close()


class KafkaGroupConsumer:
    """A static member; a killed service is back in 0.2 s, where a dynamic one would wait for its old session's end."""

    def __init__(
        self,
        config: dict[str, Any],
        refusals: Refusals,
        group: str,
        instance: str,
        session_s: float,
        on_assign: OnAssign,
        on_revoke: OnGone,
        on_lost: OnGone,
    ) -> None:
        session_ms = int(session_s * 1000)
        self.process = os.getpid()
        self._bootstrap, self._refusals = config["bootstrap.servers"], refusals
        self._lifeline = Lifeline(config)
        self._client = Consumer(
            config
            | FETCHING
            | self._lifeline.settings
            | {
                "group.id": group,
                "group.instance.id": instance,
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": session_ms,
                "heartbeat.interval.ms": max(100, min(1_000, session_ms // 10)),
                "on_commit": self._on_commit,
            }
        )
        greet(self._client)
        self._on_assign, self._on_revoke, self._on_lost = on_assign, on_revoke, on_lost
        self._topics: list[str] = []
        self._assigned: set[Place] = set()
        self._mirrored: dict[Place, int] = {}
        self._gone: set[Place] = set()
        self._raised: BaseException | None = None
        self._joined, self._joining, self._closing, self._ask_again_at = False, False, False, 0.0
        _OPEN.add(self)

    def subscribe(self, topics: Sequence[str]) -> None:
        self._topics = list(topics)
        self._subscribe(self._topics)

    def poll(self, limit: int, timeout_s: float) -> list[Message]:
        if self._ask_again_at and time.monotonic() > self._ask_again_at:
            self._ask_again()
        first = self._client.poll(timeout_s)
        if first is None:
            self._refusals.raise_any()
            self._lifeline.check(self._client, self._topics[0] if self._topics else None)
        else:
            self._lifeline.heard()
        messages = [] if first is None else [first]
        if first is not None and limit > 1:
            self._gone.clear()
            more = self._client.consume(limit - 1, 0)
            # taken back between the two calls: its next owner reads it again from where this one saved
            messages = more if (first.topic(), first.partition()) in self._gone else [first, *more]
        if self._raised is not None:
            self._raise()
        return _good(messages, self._bootstrap)

    def committed(self, places: Sequence[Place]) -> dict[Place, int]:
        try:
            found = self._client.committed([TopicPartition(*place) for place in places], timeout=ADMIN_S)
        except KafkaException as error:
            raise explained(error.args[0], _topics(places), self._bootstrap) from error
        for part in found:
            if part.error is not None:
                raise explained(part.error, part.topic, self._bootstrap)
        offsets = {(part.topic, part.partition): part.offset for part in found if part.offset >= 0}
        self._mirrored |= offsets
        return offsets

    def commit(self, offsets: Mapping[Place, int]) -> None:
        ours = {
            place: offset
            for place, offset in offsets.items()
            if place in self._assigned and offset > self._mirrored.get(place, -1)
        }
        if ours:
            try:
                self._client.commit(
                    offsets=[TopicPartition(*place, offset) for place, offset in ours.items()], asynchronous=True
                )
            except KafkaException as error:
                self._on_commit(error.args[0], [])
        if self._raised is not None:
            self._raise()

    def seek(self, place: Place, offset: int) -> None:
        if place not in self._assigned:
            raise BusError(f"{place[0]} partition {place[1]} is not assigned to this member")
        self._client.seek(TopicPartition(*place, offset))

    def close(self) -> None:
        """Tell the fold, then leave without a word to the group: a static member's next start takes up its places."""
        held = list(self._assigned)
        self._tell(self._on_revoke, held)
        self._forget(held)
        self._closing = True
        with contextlib.suppress(KafkaException):
            self._settle(held)
        self._client.close()
        _OPEN.discard(self)
        if self._raised is not None:
            self._raise()

    def abandon(self) -> None:
        """Let go without a word to the fold: what it did not save, its next start does again."""
        self._on_revoke = self._on_lost = lambda places: None
        with contextlib.suppress(Exception):
            self.close()

    def _settle(self, held: Sequence[Place]) -> None:
        """Answer what the group still gives: an assignment first seen inside librdkafka's close hangs it for good.

        It takes the answer for that to its own revocation, ends, and then waits for what nobody will say, holding the
        interpreter (librdkafka issue 4884). A member that is still joining leaves the group so that none can follow:
        once a question asked after that is answered, what was given before stands in the queue, and nothing comes.
        """
        self._client.pause([TopicPartition(*place) for place in held])
        if self._joining:
            self._client.unsubscribe()
            self._client.assignment()
        while self._client.poll(0) is not None:
            pass

    def _subscribe(self, topics: list[str]) -> None:
        self._joining = True
        self._client.subscribe(topics, on_assign=self._assign, on_revoke=self._revoke, on_lost=self._lost)

    def _ask_again(self) -> None:
        """A static member that restarts with a longer list gets its old assignment back, for ever: join anew."""
        self._ask_again_at = 0.0
        assigned = {topic for topic, _ in self._assigned}
        if not assigned >= set(self._topics):
            self._subscribe([topic for topic in self._topics if topic in assigned] or self._topics[:-1] or self._topics)
            self._subscribe(self._topics)

    def _assign(self, client: Consumer, parts: list[TopicPartition]) -> None:
        """Only new places come here (cooperative-sticky), and none at all is an assignment too."""
        self._joining = False
        if self._closing:  # too late to begin; asking the group for its offsets would block for good
            client.incremental_assign(parts)
            return
        places = [(part.topic, part.partition) for part in parts]
        if not self._joined:
            self._joined, self._ask_again_at = True, time.monotonic() + SETTLED_S
        try:
            starts = self._on_assign(places) if places else {}
            self._assigned |= set(places)
            client.incremental_assign([TopicPartition(*place, starts[place]) for place in places])
        except BaseException as error:
            self._keep(error)

    def _revoke(self, client: Consumer, parts: list[TopicPartition]) -> None:
        places = [place for part in parts if (place := (part.topic, part.partition)) in self._assigned]
        self._tell(self._on_revoke, places)
        self._forget(places)
        client.incremental_unassign(parts)

    def _lost(self, client: Consumer, parts: list[TopicPartition]) -> None:
        places = [place for part in parts if (place := (part.topic, part.partition)) in self._assigned]
        self._forget(places)  # first: what is lost must not be committed any more
        self._tell(self._on_lost, places)
        client.incremental_unassign(parts)

    def _forget(self, places: list[Place]) -> None:
        self._assigned -= set(places)
        self._gone |= set(places)
        for place in places:
            self._mirrored.pop(place, None)

    def _tell(self, callback: OnGone, places: list[Place]) -> None:
        try:
            if places:
                callback(places)
        except BaseException as error:
            self._keep(error)

    def _on_commit(self, error: KafkaError | None, parts: list[TopicPartition]) -> None:
        refused = [part for part in parts if part.error is not None]
        failed = error if error is not None else next((part.error for part in refused), None)
        if failed is None:
            self._mirrored |= {(part.topic, part.partition): part.offset for part in parts}
        elif failed.code() not in REBALANCING | TRANSIENT:
            places = [(part.topic, part.partition) for part in refused] or list(self._assigned)
            self._keep(explained(failed, _topics(places), self._bootstrap))

    def _keep(self, error: BaseException) -> None:
        """What a callback raises comes out of the next call, never lost in librdkafka."""
        self._raised = self._raised or error

    def _raise(self) -> None:
        raised, self._raised = self._raised, None
        assert raised is not None
        raise raised


def _topics(places: Sequence[Place]) -> str:
    return ", ".join(sorted({topic for topic, _ in places}))


def _good(messages: list[Any], bootstrap: str) -> list[Message]:
    """The records among messages; errors that pass by themselves are left out, others raised."""
    for message in messages:
        if message.error() is not None:
            return [cast(Message, m) for m in messages if m.error() is None or _raise_lasting(m, bootstrap)]
    return cast(list[Message], messages)


def _raise_lasting(message: Any, bootstrap: str) -> bool:
    error, topic = message.error(), message.topic() or ""
    if error.code() == KafkaError._AUTO_OFFSET_RESET:
        raise BusError(
            f"{topic} partition {message.partition()}: offset {message.offset()} is out of range: what lay there is "
            "deleted, or the topic was made anew; nothing is skipped"
        )
    if error.fatal() or not (error.code() in TRANSIENT or error.retriable()):
        raise explained(error, topic, bootstrap)
    return False


# librdkafka spins for ever in the destruction of a member with an unanswered rebalance, so none may be left at exit
_OPEN: set[KafkaGroupConsumer] = set()


@atexit.register
def _abandon_all() -> None:
    for consumer in list(_OPEN):
        if consumer.process == os.getpid():  # those of a parent have no threads here that would answer
            consumer.abandon()
