"""Producing to Apache Kafka: in order, idempotent, and never a commit past a record that was not acknowledged."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, NoReturn

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Producer as Client

from headrace.infra import words
from headrace.infra.bus import MAX_RECORD_BYTES, MAX_REQUEST_BYTES, ProducerFailed, Unavailable, WriteForbidden
from headrace.infra.kafka_errors import Refusals, greet
from headrace.infra.kafka_lifeline import Lifeline
from headrace.schemas.codec import Headers

FLUSH_S, FULL_S = 0.5, 0.05
PUSH_S = 0.001
STALLED_S = 60.0
# of a record's own error, or of the fatal one that comes first as there may be no gap; who may write nothing at all
# gets no producer id, and no topic is named
FORBIDDEN_WRITE = re.compile(r"(\S+) \[\w+\].*Topic authorization failed")


class KafkaProducer:
    """Counts what it produced and what was acknowledged; a flush ends only when both are equal.

    The count is what makes a commit safe: after a fatal error librdkafka's delivery reports are not complete, and a
    second `flush()` of its own returns 0. After the first failure nothing more is written, so there is no gap.
    """

    def __init__(self, config: dict[str, Any], refusals: Refusals, *, linger_ms: float) -> None:
        self._bootstrap, self._refusals = config["bootstrap.servers"], refusals
        self._produced = self._acknowledged = 0
        self._failure: str | None = None
        self._forbidden = False
        self._client = Client(
            {
                **config,
                "acks": "all",
                "enable.idempotence": True,
                "enable.gapless.guarantee": True,
                # a request that was refused counts as written when a later one is (librdkafka issue 4953); and the
                # broker takes that one, whatever its number, while it knows nothing of this producer yet
                "max.in.flight": 1,
                "message.timeout.ms": 0,  # no record is given up; flush says where the broker stays away
                "partitioner": "murmur2_random",  # what Java, kafka-python and `infra.partitioner` compute
                "compression.type": "lz4",
                "linger.ms": linger_ms,
                "message.max.bytes": MAX_REQUEST_BYTES,
                "queue.buffering.max.messages": 100_000,
                "topic.metadata.propagation.max.ms": 5_000,
                "on_delivery": self._delivered,
                "error_cb": self._erred,
            }
        )
        self._send: Any = self._client.produce
        greet(self._client)
        self._lifeline = Lifeline(config)

    def produce(
        self,
        topic: str,
        partition: int | None,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        timestamp_ms: int,
    ) -> None:
        # too large for the client, produce() would raise, later records would be written, and there would be a gap
        if value is not None and len(value) > MAX_RECORD_BYTES:
            self._fail(f"{topic}: a record of {len(value)} bytes; {MAX_RECORD_BYTES} is the most")
        while True:
            try:
                self._send(
                    topic, value, key, -1 if partition is None else partition, timestamp=timestamp_ms, headers=headers
                )
                self._produced += 1
                return
            except BufferError:
                self._serve(self._client.poll, FULL_S)
                self._lifeline.check(self._client)
            except KafkaException as error:
                self._serve(self._client.poll, 0)  # raises what was fatal, where something was: this error does not say
                self._fail(f"{topic}: {error.args[0].str()}")

    def poll(self) -> None:
        self._serve(self._client.poll, 0)

    def push(self) -> None:
        if self._acknowledged < self._produced:
            self._serve(self._client.flush, PUSH_S)  # lingers no longer while it flushes; its result does not matter

    def flush(self) -> None:
        seen, deadline = self._acknowledged, time.monotonic() + STALLED_S
        while self._acknowledged < self._produced:
            self._serve(self._client.flush, FLUSH_S)
            if self._acknowledged > seen:
                seen, deadline = self._acknowledged, time.monotonic() + STALLED_S
                continue
            self._refusals.raise_any()
            self._lifeline.check(self._client)
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"the broker at {self._bootstrap} acknowledged nothing for {STALLED_S:g} s "
                    f"({self._produced - self._acknowledged} records wait); nothing of them is committed"
                )
        if self._failure is not None:
            self._fail(self._failure)

    def close(self) -> None:
        self._client.purge()
        self._client.close()

    def _serve(self, wait: Callable[[float], int], limit_s: float) -> None:
        try:
            wait(limit_s)
        except Exception as error:
            self._fail(_root(error))
        if self._failure is not None:
            self._fail(self._failure)

    def _delivered(self, error: KafkaError | None, message: Any) -> None:
        if error is None:
            self._acknowledged += 1
        else:
            self._refuse(f"{message.topic()} [{message.partition()}]: {error.str()}")

    def _erred(self, error: KafkaError) -> None:
        self._refusals.hear(error)
        if error.fatal():
            self._refuse(error.str())

    def _refuse(self, failure: str) -> None:
        """From now on every call raises; the check costs a record nothing."""
        if self._failure is None:
            forbidden = FORBIDDEN_WRITE.search(failure)
            self._forbidden = forbidden is not None
            self._failure = words.not_authorized("Write", f"topic {forbidden[1]}") if forbidden else failure
        self._send = self._refused

    def _refused(self, *arguments: Any, **named: Any) -> NoReturn:
        self._fail(str(self._failure))

    def _fail(self, failure: str) -> NoReturn:
        self._refuse(failure)
        raise (WriteForbidden if self._forbidden else ProducerFailed)(
            f"{self._failure} ({self._produced - self._acknowledged} of {self._produced} records are not acknowledged; "
            "nothing of them is committed, a restart makes them again)"
        )


def _root(error: BaseException) -> str:
    """What happened: a fatal error surfaces as KafkaException, or as a SystemError that a callback made of it."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, KafkaException):
            return str(found.args[0].str())
        found = found.__cause__ or found.__context__
    return str(error)
