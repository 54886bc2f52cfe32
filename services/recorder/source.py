"""One partition that is read: its messages without the repeats, batched by event until the next commit.

The rule is that of `infra.records.Incoming` (one number per source; in control-log per place first written and
source; what is not larger is a repeat). It stands here again because only bytes are touched until a batch is made.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from operator import lt
from typing import Any

from headrace.infra.bus import Message
from headrace.infra.records import LARGEST_SEQUENCE, LONGEST_SOURCE
from headrace.schemas.codec import DECODERS, ORIGIN, PREFIX, VERSION, header, lacking
from headrace.schemas.record import Record
from headrace.services.recorder import control_rows
from headrace.services.recorder.batch import Batch, Fault, Made, decoded
from headrace.services.recorder.rows import PipelineRows
from headrace.services.recorder.store import Position

Taken = dict[bytes, list[Message]]  # by the envelope's type
NAMES = ({"ce_source"}, {"ce_type"}, {"ce_sequence"})
MARKER = f"{PREFIX}PipelineReleased{VERSION}".encode()
NO_ROWS = {f"{PREFIX}{name}{VERSION}".encode() for name in ("Tick", "PipelineRetired")}


class Source:
    """Batches one partition of `topic` (a name of `TOPICS`); `rows` where it is one of a pipeline's data topics.

    `on_release` is called with each PipelineReleased as it is met, before any row after it is made.
    """

    def __init__(
        self,
        topic: str,
        partition: int,
        position: Position,
        rows: PipelineRows | None,
        on_release: Callable[[Any, int], None],
    ) -> None:
        self.rows = rows
        self.topic_id, self.next_offset = position.topic_id, position.next_offset
        self.repeats = self.dead_letters = 0
        self._topic, self._partition, self._on_release = topic, partition, on_release
        self._sequences = {source.encode(): sequence for source, sequence in position.sequences.items()}
        self._stored_offset = position.next_offset if position.stored else None
        self._batches: dict[bytes, Batch] = {}
        self._faults: list[Fault] = []
        self._is_log = topic == "control-log"

    @property
    def changed(self) -> bool:
        """Whether the store does not know yet how far it is."""
        return self.next_offset != self._stored_offset

    @property
    def waiting(self) -> bool:
        """Whether something was taken that is no row yet."""
        return bool(self._batches or self._faults)

    def take(self, messages: Sequence[Message]) -> int:
        """Put messages into their batches, all but the repeats; returns the bytes now held for them."""
        taken = self._all(messages)
        if taken is None:
            taken = self._one_by_one(messages)
        held = self._batch(taken)
        self.next_offset = messages[-1].offset() + 1
        return held

    def _all(self, messages: Sequence[Message]) -> Taken | None:
        """All messages by event, where nothing is odd: five headers in order, one source, rising sequences."""
        try:
            _, _, sources, kinds, numbers = zip(*[message.headers() or () for message in messages], strict=True)
            (said_source, source), (said_kind, kind), (said_number, number) = map(_columns, (sources, kinds, numbers))
            sequences = list(map(int, number))
        except (TypeError, ValueError):
            return None
        if (set(said_source), set(said_kind), set(said_number)) != NAMES or len(set(source)) > 1 or MARKER in kind:
            return None
        if None in kind or None in source or not 0 <= sequences[0] <= sequences[-1] <= LARGEST_SEQUENCE:
            return None
        if sequences[0] <= self._sequences.get(source[0], -1) or not all(map(lt, sequences, sequences[1:])):
            return None
        self._sequences[source[0]] = sequences[-1]
        taken = defaultdict[bytes, list[Message]](list)
        for message, one in zip(messages, kind, strict=True):
            taken[one].append(message)
        return taken

    def _one_by_one(self, messages: Sequence[Message]) -> Taken:
        sequences, taken = self._sequences, defaultdict[bytes, list[Message]](list)
        for message in messages:
            headers: Any = message.headers()
            try:
                source, kind, number = _by_name(headers)
                sequence = int(number)
                if not 0 <= sequence <= LARGEST_SEQUENCE or len(source) > LONGEST_SOURCE:
                    raise ValueError(f"no service numbers like this: sequence {number[:40]!r}")
            except ValueError as error:
                why = lacking(headers, "ce_source", "ce_type", "ce_sequence") or error
                self._fault(message, f"no source, type and sequence in the envelope ({why})")
                continue
            if self._is_log:
                source = b"%b %b" % ((header(headers, ORIGIN, 7) or "").rpartition("/")[0].encode(), source)
            if sequence <= sequences.get(source, -1):
                self.repeats += 1
                continue
            sequences[source] = sequence
            taken[kind].append(message)
            if kind == MARKER:
                self._batch(taken)
                taken.clear()
                self.next_offset = message.offset() + 1
                self._release(self._batches[kind])
        return taken

    def _batch(self, taken: Taken) -> int:
        held = 0
        for kind, messages in taken.items():
            if kind in NO_ROWS and not self._is_log:
                continue
            batch = self._batches.get(kind)
            if batch is None:
                batch = self._batches[kind] = Batch(self._partition)
            batch.offsets += [message.offset() for message in messages]
            batch.known_ms += [message.timestamp()[1] for message in messages]
            bodies = [message.value() or b"" for message in messages]
            held += sum(map(len, bodies))
            batch.bodies += bodies
            if self.rows is None:
                batch.headers += [message.headers() for message in messages]
        return held

    def make(self, made: Made) -> list[Fault]:
        """The rows of what was batched; returns what could not be read."""
        faults, self._faults = self._faults, []
        for kind, batch in self._batches.items():
            faults += self._make(kind.decode("utf-8", "replace"), batch, made)
        self._batches.clear()
        self.dead_letters += len(faults)
        return faults

    def position(self) -> Position:
        """What the store is to remember of it."""
        seen = {source.decode("utf-8", "replace"): sequence for source, sequence in self._sequences.items()}
        return Position(self.topic_id, self.next_offset, seen)

    def is_stored(self) -> None:
        """The store has everything up to `next_offset`."""
        self._stored_offset = self.next_offset

    def _release(self, batch: Batch) -> None:
        if self._is_log or self.rows is not None:
            events, _ = decoded(_last(batch), DECODERS[MARKER.decode()])
            for event in events:
                self._on_release(event, batch.known_ms[-1])

    def _make(self, kind: str, batch: Batch, made: Made) -> list[Fault]:
        event = kind.removeprefix(PREFIX).removesuffix(VERSION)
        if self.rows is not None and event in self.rows.makers:
            return self.rows.add(event, batch, made)
        decode = DECODERS.get(kind)
        if decode is None:
            return [
                Fault(offset, known_ms, f"no event is named {kind!r}", body)
                for offset, known_ms, body in zip(batch.offsets, batch.known_ms, batch.bodies, strict=True)
            ]
        events, faults = decoded(batch, decode)
        for index, one in enumerate(events):
            control_rows.add(
                Record(
                    one,
                    batch.known_ms[index],
                    self._topic,
                    "",
                    self._partition,
                    batch.offsets[index],
                    body=batch.bodies[index],
                    headers=batch.headers[index] if batch.headers else None,
                ),
                made.rows,
            )
        return faults

    def _fault(self, message: Message, reason: str) -> None:
        self._faults.append(Fault(message.offset(), message.timestamp()[1], reason, message.value() or b""))


def _columns(pairs: Any) -> tuple[Any, Any]:
    names, values = zip(*pairs, strict=True)
    return names, values


def _by_name(headers: Any) -> tuple[bytes, bytes, bytes]:
    found = [
        header(headers, name, position) for name, position in (("ce_source", 2), ("ce_type", 3), ("ce_sequence", 4))
    ]
    source, kind, number = ((value or "").encode() for value in found)
    return source, kind, number


def _last(batch: Batch) -> Batch:
    one = Batch(batch.partition)
    one.offsets, one.known_ms, one.bodies = batch.offsets[-1:], batch.known_ms[-1:], batch.bodies[-1:]
    return one
