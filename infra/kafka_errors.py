"""What librdkafka's errors mean to a caller of the bus."""

from __future__ import annotations

import contextlib
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from headrace.infra.bus import BusError, Fenced, TopicMissing, Unavailable

# the client goes on by itself
TRANSIENT = {
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TRANSPORT,
    KafkaError._PARTITION_EOF,
    KafkaError._TIMED_OUT,
    KafkaError._TIMED_OUT_QUEUE,
    KafkaError._RESOLVE,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    # a broker that was killed and is starting knows less than its clients for a moment
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError._NOENT,  # "no leaders found"
}
# a commit in the middle of a rebalance: not taken, and not needed; offsets are mirrored again after it
REBALANCING = {
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError._NO_OFFSET,
    KafkaError._STATE,
    KafkaError._ASSIGNMENT_LOST,
    KafkaError._WAIT_COORD,
}
FENCED = {KafkaError._FATAL, KafkaError.FENCED_INSTANCE_ID, KafkaError._FENCED}
MISSING = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}


GREET_S = 0.5


def greet(client: Any) -> None:
    """Connect a new client to its broker now: one that has work before it has a connection waits half a second.

    A producer's first record took 503 ms, and takes 54 ms so. Where no broker answers, the client's own way goes on.
    """
    with contextlib.suppress(KafkaException):
        client.list_topics(timeout=GREET_S)


def explained(error: KafkaError, where: str, bootstrap: str) -> BusError:
    """The bus's own error; `where` names the topic or what was tried."""
    code = error.code()
    if error.fatal() or code in FENCED:
        return Fenced(f"another process took this one's place in its group ({error.str()}); this one ends")
    if code in MISSING:
        return TopicMissing(missing(where))
    if code in TRANSIENT:
        return Unavailable(
            f"no broker answers at {bootstrap} ({error.str()}); `headrace up` starts one, `headrace doctor` checks"
        )
    return BusError(f"{where or bootstrap}: {error.str() or error}")


def missing(topic: str) -> str:
    """The words for a topic that does not exist."""
    return f"there is no topic {topic}; `headrace topics --create` makes what is missing"
