"""Notices a client that librdkafka cut off for good, so that its process ends and starts anew."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from headrace.infra.bus import Unavailable

SILENT_S, TOLD_S, ASK_S = 5.0, 4.0, 2.0


class Broker(msgspec.Struct):
    """What a client tells of one of its connections."""

    source: str = ""  # "logical": that to the group's coordinator, which may outlive those that records come by
    state: str = ""
    rxidle: int = -1  # microseconds since anything came from there


class Told(msgspec.Struct):
    """What is read of a client's own statistics (librdkafka's STATISTICS.md)."""

    brokers: dict[str, Broker]


class Lifeline:
    """Asks a client that heard nothing for a while whether it still knows a broker.

    A cluster whose brokers are all fenced for a moment (a single one, after a freeze past its session) answers with
    topics and no brokers. librdkafka then drops every broker it knows, often the bootstrap servers too, and asks
    nobody ever again (its issue 5301, open; 2.11 to 2.16 were seen doing it). Such a client stays silent for ever;
    one that waits for a broker that stands still while others answer looks the same so long, and is helped the same.

    A consumer made with `settings` is first looked at from outside, by its statistics: a broker answers a connection in
    order, so a question waits for the fetch before it, which waits half a second for a record, and meanwhile `poll`
    waits for the question. In a loop each quiet consumer was a stall of so long, every five seconds.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self._silent_since = time.monotonic()
        self.settings: dict[str, Any] = {"statistics.interval.ms": int(TOLD_S * 1000), "stats_cb": self._told}

    def heard(self) -> None:
        """The client got something from a broker: it is not lost."""
        self._silent_since = time.monotonic()

    def check(self, client: Any, topic: str | None = None) -> None:
        """Raise Unavailable where the client reaches no broker and a new one does; blocks only where it may.

        Asks about `topic` where it is named: to be told of all topics takes a broker long where there are many.
        """
        if time.monotonic() - self._silent_since < SILENT_S:
            return
        # asked again after the new one: the broker may have come back in between
        if not (_reaches(client, topic) or not _reaches(AdminClient(self._config)) or _reaches(client, topic)):
            raise Unavailable(
                f"this client reaches no broker, though {self._config['bootstrap.servers']} answers a new one: "
                "it waits for one that stands still, or lost all of them for good (librdkafka issue 5301); "
                "a restart makes a new client, nothing is lost"
            )
        self.heard()

    def _told(self, statistics: str) -> None:
        brokers = [one for one in _decode(statistics).brokers.values() if one.source != "logical"]
        if any(one.state == "UP" and 0 <= one.rxidle < SILENT_S * 1e6 for one in brokers):
            self.heard()


def _reaches(client: Any, topic: str | None = None) -> bool:
    try:
        client.list_topics(topic, timeout=ASK_S)
    except KafkaException:
        return False
    return True


_decode = msgspec.json.Decoder(Told).decode
