"""From a message to the record a fold reads, and from what a fold emits to messages: the rules of delivery.

Incoming: a reader remembers one number per source (and place first written, in `control-log`) of the partition
it reads and drops what is not larger. Topics that users write carry no such numbers; there the offset counts.
Outgoing: source and sequence follow from the input alone, so that what is made again after a crash is equal.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from headrace.infra.bus import BusError, Message, Producer
from headrace.schemas.codec import (
    CONTROL_EVENTS,
    DECODERS,
    ORIGIN,
    TYPE_OF,
    Headers,
    encode,
    header,
    headers_of,
    lacking,
    numbered,
)
from headrace.schemas.control import FaultFound
from headrace.schemas.record import OUTPUTS_PER_STEP, SEQUENCES_PER_OFFSET, Emit, Record
from headrace.schemas.topics import DLQ, TOPICS, control_log_events, full_name, parse_name

NUMBERED_BY_OFFSET = {"<p>.data-arrived", "operator-requests", "ticks"}
LONGEST_SOURCE = 1_000  # bytes; ours have 60. A source is kept for as long as the reader's state
LARGEST_SEQUENCE = (1 << 63) - 1
DLQ_VALUE, DLQ_TEXT, DLQ_HEADERS = 256 << 10, 1_000, 50  # of a dead letter: as base64 it must itself fit into a message
LATEST_MS = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp()) * 1000
PARSED_BY_THE_FOLD = {"<p>.data-arrived"}
FROM_A_PLACE = {"<p>.data-validated", "<p>.features", "<p>.labelled-examples"}  # folds ask for `first_place`
_CONTROL = frozenset(CONTROL_EVENTS.values())


class DeadLetter(Exception):
    """A record that no retry can fix; the reason goes to the dead-letter topic with it."""


class NotDeclared(BusError):
    """A fold emitted what the table of topics does not let it."""


class Incoming:
    """Messages of one partition as records, without the repeats.

    `sequences` (source → largest number seen) belongs to the reader's state and is committed with it.
    `decoders` replaces the decoder of some event names by a leaner one.
    """

    def __init__(
        self,
        topic: str,
        namespace: str,
        sequences: dict[str, int] | None = None,
        decoders: Mapping[str, Callable[[bytes], Any]] | None = None,
    ) -> None:
        self.name, self.pipeline = parse_name(topic, namespace)
        self.sequences: dict[str, int] = {} if sequences is None else sequences
        self.repeats = 0
        self._source, self._written_by = "", b""
        self._by_offset = self.name in NUMBERED_BY_OFFSET
        self._raw = self.name in PARSED_BY_THE_FOLD
        self._placed = self.name in FROM_A_PLACE
        self._copied = self.name == "control-log"
        self._decoders = decoders_of(self.name) | {
            f"headrace.{name}.v1": decoder for name, decoder in (decoders or {}).items()
        }
        self._by_bytes = {name.encode(): decoder for name, decoder in self._decoders.items()}

    def record(self, message: Message) -> Record | None:
        """The record, or None for a repeat. Raises DeadLetter where the envelope or the body cannot be read.

        Only what could be read moves the number of its source: garbage in a service's name hides nothing it says later.
        """
        headers: Any = message.headers()
        offset = message.offset()
        if self._by_offset:
            source, key, sequence = "", "", offset * SEQUENCES_PER_OFFSET
        else:
            try:
                source_name, written_by = headers[2]
                sequence_name, number = headers[4]
                if sequence_name != "ce_sequence" or source_name != "ce_source":
                    written_by = (header(headers, "ce_source", 2) or "").encode()
                    number = header(headers, "ce_sequence", 4) or ""
                if written_by != self._written_by:  # one service writes most of a topic
                    if self._placed and not written_by.rpartition(b"/")[2].isdigit():
                        raise ValueError(f"{written_by[:80]!r} names no partition")
                    self._source, self._written_by = written_by.decode(), written_by
                source, sequence = self._source, int(number)
            except (TypeError, IndexError, ValueError, AttributeError) as error:
                why = lacking(headers, "ce_source", "ce_sequence") or error
                raise DeadLetter(f"no source and sequence in the envelope ({why})") from error
            key = source
            if self._copied:
                key = f"{(header(headers, ORIGIN, 7) or '').rpartition('/')[0]} {source}"
            if not 0 <= sequence <= LARGEST_SEQUENCE or len(key) > LONGEST_SOURCE:
                raise DeadLetter(f"no service numbers like this: source {key[:80]!r}, sequence {str(sequence)[:40]}")
            if sequence <= self.sequences.get(key, -1):
                self.repeats += 1
                return None
        body = message.value() or b""
        event = None
        if not self._raw:
            decoder = None
            if headers and len(headers) > 3 and headers[3][0] == "ce_type":
                decoder = self._by_bytes.get(headers[3][1])  # 0.4 µs less than by name
            event_type = "" if decoder is not None else header(headers, "ce_type", 3) or ""
            decoder = decoder or self._decoders.get(event_type)
            if decoder is None:
                raise DeadLetter(f"no event of {self.name} is named {event_type[:200]!r}")
            try:
                event = decoder(body)
            except (ValueError, RecursionError) as error:
                raise DeadLetter(f"{header(headers, 'ce_type', 3)}: {error}") from error
        if not self._by_offset:
            self.sequences[key] = sequence
        return Record(
            event,
            message.timestamp()[1],
            self.name,
            self.pipeline,
            message.partition(),
            offset,
            message.key(),
            body,
            source,
            sequence,
            headers,
        )


def decoders_of(name: str) -> dict[str, Callable[[bytes], Any]]:
    """The decoders of the events that may stand in a topic, by the envelope's type: another event is garbage there."""
    events = control_log_events() if name == "control-log" else TOPICS[name].events if name in TOPICS else None
    if events is None:
        return DECODERS
    return {kind: DECODERS[kind] for kind in (f"headrace.{event}.v1" for event in events) if kind in DECODERS}


class Outgoing:
    """Emits of one fold on one input partition as messages, numbered by the input's offset."""

    def __init__(
        self, producer: Producer, source: str, namespace: str, pipeline: str, allowed: frozenset[str] | None = None
    ) -> None:
        self._produce = producer.produce
        self.source = source
        self.published = 0
        self._namespace = namespace
        self._pipeline = pipeline
        self._allowed = allowed
        self._full: dict[tuple[str, str], str] = {}
        self._headers: dict[str | type, Callable[[int], Headers]] = {}

    def publish(self, record: Record, emits: list[Emit]) -> None:
        """Produce what a step returned. Raises NotDeclared for a topic or an amount that no step may write."""
        if len(emits) > OUTPUTS_PER_STEP:
            raise NotDeclared(f"{self.source}: {len(emits)} outputs of one step; at most {OUTPUTS_PER_STEP}")
        sequence = record.offset * SEQUENCES_PER_OFFSET
        for emit in emits:
            self.send(emit, sequence, record.known_ms, record)
            sequence += 1

    def send(self, emit: Emit, sequence: int, known_ms: int, cause: Record | None = None) -> None:
        """Produce one event under a given sequence."""
        event, body = emit.event, emit.body
        kind = type(event)
        topic = self._full.get((emit.topic, emit.pipeline)) or self._topic(emit)
        if body is None:
            body = encode(event)
        headers = (self._headers.get(emit.type or kind) or self._envelope(emit.type, kind))(sequence)
        if cause is not None and kind in _CONTROL:
            headers += causes(cause)
        self._produce(topic, emit.partition, emit.key, body, headers, known_ms)
        self.published += 1

    def copy(self, record: Record, emit: Emit, origin: str) -> None:
        """Produce the sequencer's copy: unchanged, under its first source and sequence, with its first place."""
        headers: Headers = headers_of(
            header(record.headers, "ce_type", 3) or "", record.source or record.topic, record.sequence
        )
        correlation = (
            header(record.headers, "ce_correlationid", 5) or f"{record.topic}/{record.partition}/{record.offset}"
        )
        headers += [
            ("ce_correlationid", correlation),
            ("ce_causationid", header(record.headers, "ce_causationid", 6) or ""),
            (ORIGIN, origin),
        ]
        self._produce(
            self._full.get((emit.topic, "")) or self._topic(emit),
            emit.partition,
            emit.key,
            record.body,
            headers,
            record.known_ms,
        )
        self.published += 1

    def dead_letter(self, record_topic: str, message: Message, reason: str) -> None:
        """Produce the message to its dead-letter topic with where it stood and why.

        Its bytes, key and headers are cut where they are so long that the dead letter would be no message.
        """
        key = (message.key() or b"")[:DLQ_TEXT]
        fault = FaultFound(
            pipeline=self._pipeline,
            topic=record_topic,
            partition=message.partition(),
            offset=message.offset(),
            service=self.source,
            reason=reason[:DLQ_TEXT],
            value=base64.b64encode((message.value() or b"")[:DLQ_VALUE]).decode(),
            key=key.decode("utf-8", "replace"),
            headers={
                name[:DLQ_TEXT]: bytes(value or b"")[:DLQ_TEXT].decode("utf-8", "replace")
                for name, value in (message.headers() or ())[:DLQ_HEADERS]
            },
            at=datetime.fromtimestamp(min(max(message.timestamp()[1], 0), LATEST_MS) / 1000, UTC),
        )
        sequence = message.offset() * SEQUENCES_PER_OFFSET + SEQUENCES_PER_OFFSET - 1
        self._produce(
            record_topic + DLQ,
            0,
            None if message.key() is None else key,
            encode(fault),
            headers_of(TYPE_OF[FaultFound], self.source, sequence),
            message.timestamp()[1],
        )

    def _envelope(self, event_type: str, kind: type) -> Callable[[int], Headers]:
        made = self._headers[event_type or kind] = numbered(event_type or TYPE_OF[kind], self.source)
        return made

    def _topic(self, emit: Emit) -> str:
        if emit.topic not in TOPICS or (self._allowed is not None and emit.topic not in self._allowed):
            raise NotDeclared(f"{self.source} may not write {emit.topic!r}")
        full = full_name(emit.topic, emit.pipeline or self._pipeline, self._namespace)
        self._full[emit.topic, emit.pipeline] = full
        return full


def causes(record: Record) -> Headers:
    """The correlation id (of the whole story) and the causation id (the direct parent's place) of a control event."""
    place = header(record.headers, ORIGIN, 7) or f"{record.topic}/{record.partition}/{record.offset}"
    if record.pipeline:
        place = place.replace("<p>", record.pipeline, 1)
    return [("ce_correlationid", header(record.headers, "ce_correlationid", 5) or place), ("ce_causationid", place)]


def source_of(service: str, pipeline: str, topic_id: str, partition: int) -> str:
    """`/validator/rainfall/1f3a9c2e/0`; "-" stands where a fold serves all pipelines."""
    return f"/{service}/{pipeline or '-'}/{topic_id[:8]}/{partition}"
