"""What a run tells: source and sequence follow from the run and the record alone, wherever it was learned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import NamedTuple

from msgspec.structs import replace

from headrace.infra.bus import Bus, Producer
from headrace.infra.follow import Follower
from headrace.infra.records import Outgoing, source_of
from headrace.schemas.control import TrainingFailed
from headrace.schemas.record import SEQUENCES_PER_OFFSET, Emit, Record
from headrace.schemas.topics import full_name
from headrace.services.trainer import core
from headrace.services.trainer.control import Live

NEWEST = 100  # records; only one that still wrote while another began could stand behind the last one
OUTPUTS = frozenset({"training-completed", "training-runs", "<p>.snapshots"})


class Told(NamedTuple):
    """One event of a run; `cause` is the record that made it, without its body."""

    emit: Emit
    sequence: int
    known_ms: int
    cause: Record


class Voice:
    """Publishes what a pipeline's runs tell, each under its own name, and what they tell together."""

    def __init__(self, producer: Producer, namespace: str, pipeline: str) -> None:
        self._producer, self._namespace, self._pipeline = producer, namespace, pipeline

    def together(self, topic_id: str, partition: int) -> Outgoing:
        """The voice of the lockstep over the partition that it reads."""
        return self._of(source_of("trainer", self._pipeline, topic_id, partition))

    def say(self, live: Live, told: Iterable[Told]) -> None:
        """Publish what a run tells; once in thousands of records."""
        outgoing = self._of(f"/trainer/{self._pipeline}/{live.started.run}")
        for one in told:
            outgoing.send(*one)

    def _of(self, source: str) -> Outgoing:
        return Outgoing(self._producer, source, self._namespace, self._pipeline, OUTPUTS)


def joins_told(bus: Bus, namespace: str, pipeline: str, source: str) -> int:
    """How many joins and leaves the newest snapshots of a lockstep tell, one whose state is gone.

    What it tells from now on at the same offset is of other runs, maybe, and must not count as told before.
    """
    topic = full_name("<p>.snapshots", pipeline, namespace)
    with closing(Follower(bus, namespace)) as newest:
        newest.add(topic, NEWEST)
        told = [record.sequence for record in newest.read_to_end() if record.source == source]
    return max(told, default=0) % SEQUENCES_PER_OFFSET


def learned(record: Record, emits: Sequence[Emit]) -> list[Told]:
    """What learning a record made the run say."""
    sequence, cause = record.offset * SEQUENCES_PER_OFFSET, _bare(record)
    return [Told(emit, sequence + n, record.known_ms, cause) for n, emit in enumerate(emits, 1)]  # 0: it began


def begun(live: Live, state: core.State) -> list[Told]:
    """A run that is to be judged without any label has reached its end where it begins."""
    started = live.started
    if started.end_at_labels != 0:
        return []
    emit = core.completed(state, started, started.start_offset)
    return [Told(emit, started.start_offset * SEQUENCES_PER_OFFSET, live.known_ms, record_of(live))]


def failed(live: Live, why: str, record: Record | None = None) -> Told:
    """A record that the run leaves out; without one, the end of a run that cannot go on."""
    started = live.started
    event = TrainingFailed(
        pipeline=started.pipeline,
        request=started.request,
        run=started.run,
        reason=why,
        offset=record.offset if record is not None else None,
    )
    cause = _bare(record) if record is not None else record_of(live)
    offset = record.offset if record is not None else started.start_offset
    emit = Emit("training-runs", event, started.pipeline.encode(), partition=0)
    return Told(emit, offset * SEQUENCES_PER_OFFSET + 1, cause.known_ms, cause)


def record_of(live: Live) -> Record:
    """The RunStarted as it stands in `control-log`: what causes the beginning."""
    return Record(live.started, live.known_ms, "control-log", "", 0, live.offset)


def _bare(record: Record) -> Record:
    return replace(record, event=None, body=b"")
