"""Tables: topics read to their end and then followed; and ranges of a topic, read once. Both without repeats."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from headrace.infra.bus import Bus, BusError, Place
from headrace.infra.records import DeadLetter, Incoming
from headrace.schemas.control import PipelineReleased, PipelineRetired
from headrace.schemas.record import Record
from headrace.schemas.topics import full_name

BATCH = 500
MISSING_S = 1.0  # how often a topic is looked for that does not exist


class Follower:
    """Reads whole topics from their start, then what comes; a topic may be added later."""

    def __init__(self, bus: Bus, namespace: str = "", topics: Sequence[str] = ()) -> None:
        self._bus, self._namespace = bus, namespace
        self._reader = bus.reader()
        self._next: dict[Place, int] = {}
        self._incoming: dict[Place, Incoming] = {}
        self._grown = False
        self._missing: dict[str, int | None] = {}
        self._look_at = 0.0
        for topic in topics:
            self.add(topic)

    def add(self, topic: str, last: int | None = None) -> None:
        """Follow one more topic (named as the broker knows it), or only its `last` records and what comes.

        Does nothing for one that is followed already. One that does not exist is followed once it does: of several
        brokers each hears of a new topic when it does.
        """
        if (topic, 0) in self._next:
            return
        count = self._bus.partitions(topic)
        if count is None:
            self._missing[topic], self._look_at = last, time.monotonic() + MISSING_S
            return
        for partition in range(count):
            place = (topic, partition)
            first, end = self._bus.offsets(place)
            self._next[place] = first if last is None else max(first, end - last)
            self._incoming[place] = Incoming(topic, self._namespace)
        self._grown = True

    def poll(self, timeout_s: float = 0.0) -> list[Record]:
        """What came since the last call; a record that cannot be decoded is left out."""
        records: list[Record] = []
        if self._missing and time.monotonic() >= self._look_at:
            missing, self._missing = self._missing, {}
            for topic, last in missing.items():
                self.add(topic, last)
        if not self._next:
            return records
        if self._grown:  # once for all that were added: a second assignment waits for the fetch of the first, 0.5 s
            self._reader.assign(self._next)
            self._grown = False
        for message in self._reader.poll(BATCH, timeout_s):
            place = (message.topic(), message.partition())
            self._next[place] = message.offset() + 1
            try:
                record = self._incoming[place].record(message)
            except DeadLetter:
                continue
            if record is not None:
                records.append(record)
        return records

    def read_to_end(self, limit_s: float = 60.0) -> list[Record]:
        """Everything up to the ends that the topics have now. Raises BusError past the limit."""
        ends = {place: self._bus.offsets(place)[1] for place in self._next}
        deadline = time.monotonic() + limit_s
        records: list[Record] = []
        while any(self._next[place] < end for place, end in ends.items()):
            records += self.poll(0.05)
            if time.monotonic() > deadline:
                raise BusError(f"{', '.join(topic for topic, _ in ends)} could not be read to the end in {limit_s:g} s")
        return records

    def close(self) -> None:
        """Release the connection."""
        self._reader.close()


class Pipelines:
    """The table `pipelines`: which definitions are in force, newest last."""

    def __init__(self, bus: Bus, namespace: str = "") -> None:
        self._namespace = namespace
        self._follower = Follower(bus, namespace, [full_name("pipelines", namespace=namespace)])
        self.released: dict[str, PipelineReleased] = {}
        self.retired: set[str] = set()
        self.releases: dict[tuple[str, int], PipelineReleased] = {}

    def poll(self) -> bool:
        """Take in what came; True where the table changed."""
        return self._take_in(self._follower.poll())

    def read_to_end(self) -> bool:
        """Take in all that there is now; True where the table changed."""
        return self._take_in(self._follower.read_to_end())

    def _take_in(self, records: list[Record]) -> bool:
        for record in records:
            event = record.event
            if isinstance(event, PipelineReleased):
                self.released[event.pipeline] = event
                self.releases[event.pipeline, event.release] = event
            elif isinstance(event, PipelineRetired):
                self.retired.add(event.pipeline)
        return bool(records)

    def topics(self, name: str) -> list[str]:
        """The full names of one data topic over all pipelines released so far."""
        return [full_name(name, pipeline, self._namespace) for pipeline in self.released]

    def close(self) -> None:
        """Release the connection."""
        self._follower.close()


def read_range(
    bus: Bus,
    place: Place,
    start: int,
    end: int,
    namespace: str = "",
    limit_s: float = 600.0,
    sequences: dict[str, int] | None = None,
    decoders: Mapping[str, Callable[[bytes], Any]] | None = None,
) -> Iterator[Record]:
    """The records of one partition from `start` to `end` (exclusive), without repeats.

    What cannot be decoded is left out, as every fold leaves it out. `limit_s` is how long nothing may come. Raises
    BusError where the range is no longer, or not yet, in the log.
    """
    first, after = bus.offsets(place, at_least=end)
    if start < first or end > after:
        raise BusError(f"{place[0]} partition {place[1]} holds offsets {first} to {after}, not {start} to {end}")
    reader = bus.reader()
    incoming = Incoming(place[0], namespace, sequences, decoders)
    try:
        reader.assign({place: start})
        offset, deadline = start, time.monotonic() + limit_s
        while offset < end:
            messages = reader.poll(BATCH, 0.2)
            for message in messages:
                offset = message.offset() + 1
                if offset > end:
                    break
                try:
                    record = incoming.record(message)
                except DeadLetter:
                    continue
                if record is not None:
                    yield record
            if messages:
                deadline = time.monotonic() + limit_s
            elif time.monotonic() > deadline:
                raise BusError(f"{place[0]} partition {place[1]}: offset {offset} did not come within {limit_s:g} s")
    finally:
        reader.close()
