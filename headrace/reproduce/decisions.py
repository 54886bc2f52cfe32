"""Every decision again: the folds over `control-log` make their outputs anew, which must be those that stand.

Source and sequence follow from a decision's input, so each one made again has its counterpart by name; a fold's
output is compared whole: place, known time, body (the signature of a release's marker apart, which a new key changes).
The gates' own work is not a fold over `control-log`: an offline verdict is made again by its replay of the examples.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from headrace.infra.artifacts import Artifacts
from headrace.infra.bus import Bus, BusError
from headrace.infra.records import source_of
from headrace.reproduce.log import records
from headrace.schemas.control import ControlEvent, ModelValidated, PipelineReleased
from headrace.schemas.record import SEQUENCES_PER_OFFSET, Record
from headrace.schemas.topics import TOPICS, full_name
from headrace.services import FOLDS, Fold
from headrace.services.evaluator import offline
from headrace.services.evaluator.judge import judge
from headrace.services.evaluator.offline import Job

ROWS_AT_MOST = 100_000  # of an offline gate's replay: some seconds
Place = tuple[str, int]  # a topic of the table, the sequence
Told = tuple[int, dict[str, Any]]  # known time, body


@dataclass
class Folded:
    """One fold made again: records read, outputs equal by topic, the first that is not."""

    fold: str
    records: int
    equal: dict[str, int] = field(default_factory=dict)
    first_difference: dict[str, Any] | None = None


@dataclass
class Gate:
    """One offline verdict made again. `outcome` is equal, different, or skipped with the reason in `why`."""

    run: str
    offset: int
    verdict: str
    outcome: str
    why: str = ""


@dataclass
class Replayed:
    """What came of a pipeline's decisions."""

    pipeline: str
    folds: list[Folded]
    gates: list[Gate]

    @property
    def is_equal(self) -> bool:
        """Whether nothing that was made again differs."""
        return all(one.first_difference is None for one in self.folds) and not any(
            gate.outcome == "different" for gate in self.gates
        )


def replay(
    pipeline: str,
    bus: Bus,
    artifacts: Artifacts,
    key: bytes,
    namespace: str = "",
    *,
    progress: Callable[[str], None] | None = None,
) -> Replayed:
    """Fold `control-log` again through every fold that reads it and compare what it tells of one pipeline."""
    log = [record for record in records(bus, namespace, "control-log") if _concerns(record, pipeline)]
    topic_id = bus.topic_id(full_name("control-log", namespace=namespace))
    folds = []
    for fold in (fold for fold in FOLDS if fold.input == "control-log"):
        if progress is not None:
            progress(fold.id)
        topics = [topic for topic in fold.outputs if _is_kept(topic)]
        source = source_of(fold.service, "", topic_id, 0)
        stands = {
            (topic, record.sequence): (record.known_ms, _body(record.event))
            for topic in topics
            for record in records(bus, namespace, topic)
            if _first_name(record.source) == source and _concerns(record, pipeline)
        }
        folds.append(_compare(fold, log, dict(_made(fold, log, key)), stands))
    if progress is not None:
        progress("offline gates")
    return Replayed(pipeline, folds, list(_gates(log, bus, artifacts, namespace)))


def _concerns(record: Record, pipeline: str) -> bool:
    """Ticks concern every pipeline."""
    return not isinstance(record.event, ControlEvent) or record.event.pipeline == pipeline


def _first_name(source: str) -> str:
    """A source without its incarnation, which a fold takes on after a log lost its tail; the newest one counts."""
    written_by, _, partition = source.rpartition("/")
    return f"{written_by.partition('.')[0]}/{partition}"


def _is_kept(topic: str) -> bool:
    """What is kept for ever can be compared from its beginning on."""
    return not TOPICS[topic].per_pipeline and TOPICS[topic].retention_s is None


def _made(fold: Fold, log: Iterable[Record], key: bytes) -> Iterator[tuple[Place, Told]]:
    """What the fold tells, by topic and sequence."""
    core = importlib.import_module(fold.module)
    world = replace(core.example_world(), key=key) if fold.service == "registry" else core.example_world()
    state = core.State()
    for record in log:
        for number, emit in enumerate(core.step(state, record, world)):
            if _is_kept(emit.topic):
                sequence = record.offset * SEQUENCES_PER_OFFSET + number
                yield (emit.topic, sequence), (record.known_ms, _body(emit.event))


def _body(event: Any) -> dict[str, Any]:
    return {"event": type(event).__name__, **event.model_dump(mode="json", exclude={"signature"})}


def _compare(fold: Fold, log: list[Record], made: dict[Place, Told], stands: dict[Place, Told]) -> Folded:
    folded = Folded(fold.id, len(log))
    for place in sorted(made.keys() | stands.keys(), key=lambda place: (place[1], place[0])):
        topic, sequence = place
        if made.get(place) == stands.get(place):
            folded.equal[topic] = folded.equal.get(topic, 0) + 1
        elif folded.first_difference is None:
            folded.first_difference = {
                "topic": topic,
                "cause": f"control-log/0/{sequence // SEQUENCES_PER_OFFSET}",
                "made_again": _told(made.get(place)),
                "stands": _told(stands.get(place)),
            }
    return folded


def _told(told: Told | None) -> dict[str, Any] | None:
    return None if told is None else {"known_ms": told[0], **told[1]}


# --- offline gates ----------------------------------------------------------------------------------------


def _gates(log: list[Record], bus: Bus, artifacts: Artifacts, namespace: str) -> Iterator[Gate]:
    """Each offline verdict that a replay gave, made again."""
    releases = {record.event.release: record.event for record in log if isinstance(record.event, PipelineReleased)}
    for job, verdict in _judged(log):
        rows = job.end_offset - job.start_offset
        gate = Gate(job.run, job.end_offset, verdict.verdict, "skipped")
        if job.release not in releases:
            gate.why = f"release {job.release} is not in the log"
        elif rows > ROWS_AT_MOST:
            gate.why = f"{rows:,} rows; at most {ROWS_AT_MOST:,} are replayed here"
        else:
            try:
                again = judge(job, releases[job.release], bus, artifacts, namespace, None, alone=False)
            except BusError as error:
                gate.why = str(error)
            else:
                gate.outcome, gate.why = _same(again, verdict)
        yield gate


def _judged(log: Iterable[Record]) -> Iterator[tuple[Job, ModelValidated]]:
    """The job that each offline verdict answered, as the evaluator's fold held it open."""
    state = offline.State()
    for record in log:
        event = record.event
        if isinstance(event, ModelValidated) and event.stage == "offline" and event.pipeline in state.pipelines:
            job = state.pipelines[event.pipeline].jobs.get((event.run, "offline"))
            if job is not None and not job.forced and job.end_offset == event.offset:
                yield job, event
        offline.step(state, record, None)


def _same(again: ModelValidated, verdict: ModelValidated) -> tuple[str, str]:
    """What a gate costs is the machine's; all else must be the same."""
    costs = {"seconds", "peak_mb"}
    made, stands = again.model_dump(exclude=costs), verdict.model_dump(exclude=costs)
    differing = [f"{name} {made[name]!r}, in the log {stands[name]!r}" for name in made if made[name] != stands[name]]
    return ("different", "; ".join(differing)) if differing else ("equal", "")
