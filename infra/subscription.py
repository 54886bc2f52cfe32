"""Reading topics with kafka-python: typed records without repeats, for the SDK and the CLI."""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from msgspec.structs import replace

from headrace.errors import Missing, NoAnswer, Unreachable
from headrace.infra.client_errors import NO_BROKER, asking, forbidden, unconnected
from headrace.infra.records import DeadLetter, Incoming
from headrace.schemas.codec import TYPE_OF, Undecodable, decode, header
from headrace.schemas.record import Record
from headrace.schemas.stream import ExampleArrived

if TYPE_CHECKING:
    from headrace.infra.settings import Settings

Start = Literal["latest", "earliest"]
GONE_S = 10.0  # a broker that restarts is back by then
PROBE_S = 2.0
BOOTSTRAP_S = (5.0, 10.0)
MARKER_S = 5.0


class Subscription:
    """Topics read from one place on, without a consumer group. Iterating waits for ever; `close` ends it.

    Repeats are dropped by source and sequence within this object's life: started in the middle, the first record
    of a source is taken as it comes. What cannot be decoded is left out.
    """

    def __init__(
        self,
        settings: Settings,
        address: str,
        topics: Sequence[str],
        start: Start = "latest",
        last: int | None = None,
    ) -> None:
        """`topics` as the broker knows them; `last` starts that many records before each end."""
        from kafka import KafkaConsumer, TopicPartition

        if start not in ("latest", "earliest"):
            raise ValueError(f'start is "latest" or "earliest", not {start!r}')
        self._address, self._namespace, self._settings = address, settings.namespace, settings
        self._named = f"topic {', '.join(topics)}"
        self._waiting: list[Record] = []
        self._heard = self._probed = time.monotonic()
        self._consumer = connect(
            KafkaConsumer, settings, address, enable_auto_commit=False, allow_auto_create_topics=False
        )
        try:
            with asking("Read", self._named):
                self._places = [
                    TopicPartition(topic, partition)
                    for topic in topics
                    for partition in sorted(self._partitions(topic))
                ]
            self._consumer.assign(self._places)
            self._incoming: dict[Any, Incoming] = {
                place: Incoming(place.topic, self._namespace) for place in self._places
            }
            self._seek(start, last)
        except BaseException:
            self.close()
            raise

    def poll(self, timeout_s: float = 0.0, limit: int = 500) -> list[Record]:
        """What came, waiting at most `timeout_s` for the first. Raises Unreachable where the broker is gone."""
        records = []
        with asking("Read", self._named):
            polled = self._consumer.poll(timeout_ms=int(timeout_s * 1000), max_records=limit)
        for place, messages in polled.items():
            for message in messages:
                record = self._record(place, message)
                if record is not None:
                    records.append(record)
        self._watch_the_broker(bool(records))
        return records

    def read_to_end(self) -> Iterator[Record]:
        """Every record up to the ends that the topics have now."""
        ends = self._consumer.end_offsets(self._places) if self._places else {}
        while any(self._consumer.position(place) < end for place, end in ends.items()):
            yield from self.poll(0.5)

    def chosen(self, pipeline: str, types: tuple[type, ...], follow: bool) -> Iterator[Record]:
        """The records of these types (all where none is named) of one pipeline (all likewise); closes at the end."""
        with self:
            for record in self if follow else self.read_to_end():
                if types and not isinstance(record.event, types):
                    continue
                if pipeline and not record.pipeline and getattr(record.event, "pipeline", pipeline) != pipeline:
                    continue
                yield record

    def skip_to_end(self) -> None:
        """Leave out what came up to now."""
        self._waiting.clear()
        self._seek("latest", None)

    def has_records_everywhere(self) -> bool:
        """Whether something was ever written to every partition."""
        return all(end > 0 for end in self._consumer.end_offsets(self._places).values())

    def __iter__(self) -> Iterator[Record]:
        return self

    def __next__(self) -> Record:
        while not self._waiting:
            self._waiting = self.poll(0.5)
        return self._waiting.pop(0)

    def close(self) -> None:
        """Release the connection."""
        self._consumer.close()

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _watch_the_broker(self, heard: bool) -> None:
        """kafka-python tries for ever and says nothing: a broker that is gone looks like a quiet topic."""
        now = time.monotonic()
        if heard:
            self._heard = self._probed = now
        elif now - self._probed > PROBE_S:
            self._probed = now
            if listens(self._address):
                self._heard = now
            elif now - self._heard > GONE_S:
                raise Unreachable(f"the broker at {self._address} does not answer any more", "headrace status")

    def _partitions(self, topic: str) -> set[int]:
        found = self._consumer.partitions_for_topic(topic)
        if not found:
            if is_forbidden(self._settings, self._address, topic):
                raise forbidden("Read", f"topic {topic}")
            raise Missing(f"topic {topic} does not exist at {self._address}", "headrace up, which makes it")
        return set(found)

    def _seek(self, start: Start, last: int | None) -> None:
        first = self._consumer.beginning_offsets(self._places)
        ends = self._consumer.end_offsets(self._places) if start == "latest" or last is not None else first
        for place in self._places:
            offset = ends[place] if last is None else max(first[place], ends[place] - last)
            self._consumer.seek(place, offset)

    def _record(self, place: Any, message: Any) -> Record | None:
        try:
            record = self._incoming[place].record(_Message(message))
        except DeadLetter:
            return None
        if record is None or record.event is not None:
            return record
        return _as_written(record)


class _Message:
    """kafka-python's record with confluent-kafka's methods, which `Incoming` reads."""

    __slots__ = ("_of",)

    def __init__(self, of: Any) -> None:
        self._of = of

    def topic(self) -> str:
        return str(self._of.topic)

    def partition(self) -> int:
        return int(self._of.partition)

    def offset(self) -> int:
        return int(self._of.offset)

    def key(self) -> bytes | None:
        return self._of.key  # type: ignore[no-any-return]

    def value(self) -> bytes | None:
        return self._of.value  # type: ignore[no-any-return]

    def headers(self) -> Sequence[tuple[str, bytes]] | None:
        return self._of.headers  # type: ignore[no-any-return]

    def timestamp(self) -> tuple[int, int]:
        return self._of.timestamp_type, self._of.timestamp

    def leader_epoch(self) -> int | None:
        return self._of.leader_epoch  # type: ignore[no-any-return]


def _as_written(record: Record) -> Record:
    """A record that users wrote, decoded where it is canonical; else its event stays None and its body says all."""
    try:
        event = decode(header(record.headers, "ce_type", 3) or TYPE_OF[ExampleArrived], record.body)
    except Undecodable:
        event = None
    return replace(record, event=event)


def broker_address(settings: Settings) -> str:
    """The broker named in the settings, else the one that this folder runs, else the default address."""
    if "bootstrap_servers" not in settings.model_fields_set:
        from headrace.infra.local_broker import running

        broker = running(settings.home)
        if broker is not None:
            return broker.address
    return settings.bootstrap_servers


def wait_for_markers(settings: Settings, address: str, topic: str) -> None:
    """Wait for the first record of every partition: one before its first marker would be rejected. Raises NoAnswer."""
    with Subscription(settings, address, [topic]) as partitions:
        deadline = time.monotonic() + MARKER_S
        while not partitions.has_records_everywhere():
            if time.monotonic() > deadline:
                raise NoAnswer(f"the release has not reached every partition of {topic}", "headrace status")
            time.sleep(0.02)


def connect(kind: Any, settings: Settings, address: str, **more: Any) -> Any:
    """A kafka-python client. Raises Unreachable where no broker answers."""
    from kafka.errors import KafkaError

    if not listens(address):
        raise Unreachable(f"no broker answers at {address}", NO_BROKER)
    with _failures() as said:
        for limit_s in BOOTSTRAP_S:
            try:
                security, limit_ms = settings.kafka_python_security(), int(limit_s * 1000)
                return kind(bootstrap_servers=address.split(","), bootstrap_timeout_ms=limit_ms, **security, **more)
            except (KafkaError, OSError) as error:
                failed = error
            if any(not isinstance(cause, type(failed)) for cause in said):
                break  # why is known; else a busy machine may take longer for a handshake
        raise unconnected(failed, said, settings, address) from failed


def is_forbidden(settings: Settings, address: str, topic: str) -> bool:
    """Whether the broker hides a topic from this user: it leaves it out of its list, and says so when asked for it."""
    from kafka import KafkaAdminClient
    from kafka.errors import TopicAuthorizationFailedError

    admin = connect(KafkaAdminClient, settings, address)
    try:
        return bool(admin.describe_topics([topic])[0]["error_code"] == TopicAuthorizationFailedError.errno)
    finally:
        admin.close()


@contextlib.contextmanager
def _failures() -> Iterator[list[BaseException]]:
    """What kafka-python's connections fail with: it only logs that, tries again, and then says `timeout`."""
    said: list[BaseException] = []

    class Listener(logging.Handler):
        def emit(self, line: logging.LogRecord) -> None:
            arguments = line.args if isinstance(line.args, tuple) else ()
            said.extend(one for one in arguments if isinstance(one, BaseException))

    listener, logger = Listener(logging.WARNING), logging.getLogger("kafka.net.manager")
    logger.addHandler(listener)
    try:
        yield said
    finally:
        logger.removeHandler(listener)


def listens(address: str, limit_s: float = 2.0) -> bool:
    """Whether something accepts connections at one of the addresses (host:port, separated by commas)."""
    for server in address.split(","):
        host, _, port = server.strip().rpartition(":")
        with contextlib.suppress(OSError, ValueError), socket.create_connection((host.strip("[]"), int(port)), limit_s):
            return True
    return False
