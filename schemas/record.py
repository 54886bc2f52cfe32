"""What a fold reads and what it writes: an event with its known time and place, and an event with its destination."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from headrace.schemas.codec import Event

OUTPUTS_PER_STEP = 1_000
SEQUENCES_PER_OFFSET = 65_536
BEFORE_ALL_MS = -(2**62)  # of a clock that has seen nothing: known times before 1970 are negative (in `try`)


class Record(msgspec.Struct, frozen=True, gc=False):
    """One event as it stands in the log.

    `event` is None where the fold itself must parse the bytes (`<p>.data-arrived`, written by users).
    `known_ms` is the known time in milliseconds since 1970; `topic` is a name of `topics.TOPICS`, such as
    `<p>.predictions`, and `pipeline` what stands for `<p>` ("" in a control topic). `source` and `sequence` are
    the envelope's (on users' records: "" and the offset × 65,536). `body` is the value as it stands, to be
    passed on unchanged.
    """

    event: Event | None
    known_ms: int
    topic: str
    pipeline: str
    partition: int
    offset: int
    key: bytes | None = None
    body: bytes = b""
    source: str = ""
    sequence: int = -1
    headers: Any = None


class Emit(msgspec.Struct, frozen=True, gc=False):
    """One event on its way to the log.

    `topic` is a name of `topics.TOPICS`. `partition` None means: the one that murmur2 of the key gives.
    `pipeline` is needed only where the fold's own input topic names none. `body` holds the event's bytes where they
    exist already; then they are forwarded unchanged. `type` overrides the envelope's type, where `event` is a leaner
    twin of the event that `body` holds. The record's known time is that of the input.
    """

    topic: str
    event: Event
    key: bytes | None = None
    partition: int | None = None
    pipeline: str = ""
    body: bytes | None = None
    type: str = ""


def first_place(record: Record) -> tuple[int, int]:
    """The partition and offset of the record from which a service derived this one."""
    return int(record.source.rpartition("/")[2]), record.sequence // SEQUENCES_PER_OFFSET
