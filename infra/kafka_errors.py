"""What librdkafka's errors mean to a caller of the bus."""

from __future__ import annotations

import contextlib
import re
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from headrace.infra import words
from headrace.infra.bus import BusError, Fenced, NotAuthenticated, NotAuthorized, TopicMissing, Unavailable

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
    KafkaError._DESTROY_BROKER,  # the client let go of a broker while it asked it
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
# what is forbidden, in words; the client's name for a group is not in the error
FORBIDDEN = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "topic {}",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "its consumer group",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "anything yet, as no topic may be written ({})",
}
AUTHENTICATION = {KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED}
# where the refresh of what is known of topics meets the loss of a right before a fetch does, this is all that is said
UNREADABLE = re.compile(r"(\S+) \[\d+\]: desired partition is no longer available")


GREET_S = 0.5


def greet(client: Any) -> None:
    """Connect a new client to its broker now: one that has work before it has a connection waits half a second.

    A producer's first record took 503 ms, and takes 54 ms so. Where no broker answers, the client's own way goes on.
    """
    with contextlib.suppress(KafkaException):
        client.list_topics(timeout=GREET_S)


class Refusals:
    """What brokers said about credentials, certificates and rights, and librdkafka tells a callback alone."""

    def __init__(self, who: str, bootstrap: str) -> None:
        self._who, self._bootstrap = who, bootstrap
        self._said: BusError | None = None

    def hear(self, error: KafkaError) -> None:
        """Clients call this with every error that is no message's own."""
        # a connection that breaks in the middle of its handshake comes as AUTHENTICATION too, and passes by itself
        if error.code() in AUTHENTICATION and "Local: " not in error.str():
            self._said = NotAuthenticated(words.not_authenticated(self._who, self._bootstrap))
        elif error.code() == KafkaError._SSL and "certificate" in error.str():  # not a broker that goes away
            self._said = NotAuthenticated(words.not_trusted(self._bootstrap, error.str()))
        elif error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED and (topic := UNREADABLE.match(error.str())):
            self._said = NotAuthorized(words.not_authorized("Read", FORBIDDEN[error.code()].format(topic[1])))

    def raise_any(self) -> None:
        """Raise NotAuthenticated or NotAuthorized where a broker refused since the last call."""
        said, self._said = self._said, None
        if said is not None:
            raise said


def explained(error: KafkaError, where: str, bootstrap: str, right: str = "Read") -> BusError:
    """The bus's own error; `where` names the topic or what was tried, `right` what that needs."""
    code = error.code()
    if code in FORBIDDEN:
        return NotAuthorized(words.not_authorized(right, FORBIDDEN[code].format(where)))
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
