"""What the demo sees of the stream: counts, accuracy as it develops, delays. Pure: records in, numbers out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from headrace.demo.curves import Row
from headrace.demo.measure import ACCURACY, Measure
from headrace.schemas.control import (
    AliasRemoved,
    DriftDetected,
    ModelUpdated,
    ModelValidated,
    PipelineReleased,
    RunEnded,
    SnapshotTaken,
    TrainingRequested,
)
from headrace.schemas.record import Record
from headrace.schemas.stream import ExampleLabelled, LabelArrived, PredictionMade, RecordRejected
from headrace.why import alert_words

BUCKET_ROWS = 2_000


@dataclass
class Bucket:
    """What the baselines scored over `BUCKET_ROWS` labelled rows: the majority or mean, and no change.

    Both are scored on the rows that a model answered; the rows before the first model are `rows - scored`.
    """

    rows: int = 0
    scored: int = 0
    rival: float = 0
    last: float = 0
    age_rows: int = 0

    def mean(self, what: str) -> float | None:
        """The mean score of `rival` or `last`; None where no row was scored."""
        return getattr(self, what) / self.scored if self.scored else None


class Decision(NamedTuple):
    """What was decided, by an event of which type, and after how many labelled rows it was seen."""

    row: int
    event: str
    what: str


@dataclass
class Observed:
    """Everything the live table and the closing report show."""

    measure: Measure = ACCURACY
    counts: Counter[str] = field(default_factory=Counter)
    buckets: list[Bucket] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    rejects: list[dict[str, Any]] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    versions: list[dict[str, Any]] = field(default_factory=list)
    alerts: list[int] = field(default_factory=list)
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    revisions: int = 0
    revisions_served: set[int] = field(default_factory=set)
    prediction_delay_ms: list[float] = field(default_factory=list)
    served_delay_ms: list[float] = field(default_factory=list)
    waiting: list[tuple[int, int]] = field(default_factory=list)

    def see(self, record: Record, now_ms: float) -> None:
        """Take one record in; `now_ms` is when it became visible here."""
        event = record.event
        seen = _SEERS.get(type(event))
        if seen is not None:
            seen(self, event, record, now_ms)

    def decide(self, event: object, what: str) -> None:
        """Note a decision, at the row where it was seen."""
        self.decisions.append(Decision(self.counts["labelled"], type(event).__name__, what))

    def newest_scores(self, last: int = 500) -> list[float]:
        """How the served model scored on the last rows that it answered, the newest first."""
        return list(islice((row.score for row in reversed(self.rows) if row.score is not None), last))

    def score(self, last: int = 500) -> float | None:
        """The mean score of the served model over the last rows."""
        scores = self.newest_scores(last)
        return sum(scores) / len(scores) if scores else None


def _prediction(seen: Observed, event: PredictionMade, record: Record, now_ms: float) -> None:
    seen.counts["predictions"] += 1
    seen.prediction_delay_ms.append(now_ms - record.known_ms)
    champion = event.predictions.get("champion")
    if champion is None:
        return
    seen.counts["served"] += event.served is not None
    seen.revisions_served.add(champion.learned_to)
    while seen.waiting and seen.waiting[0][0] < champion.learned_to:
        seen.served_delay_ms.append(now_ms - seen.waiting.pop(0)[1])


def _labelled(seen: Observed, event: ExampleLabelled, record: Record, now_ms: float) -> None:
    seen.counts["labelled"] += 1
    if seen.versions:
        seen.waiting.append((record.offset, event.labelled_at_ms))
    if not seen.buckets or seen.buckets[-1].rows >= BUCKET_ROWS:
        seen.buckets.append(Bucket())
    bucket, prediction = seen.buckets[-1], event.prediction
    bucket.rows += 1
    arm = prediction.predictions.get(prediction.served or "")
    learned_to, score = None, None
    if arm is not None and arm.error is None:
        of, baselines = seen.measure.of, prediction.baselines
        learned_to, score = arm.learned_to, of(arm.value, event.label)
        bucket.scored += 1
        bucket.rival += of(getattr(baselines, seen.measure.rival), event.label)
        bucket.last += of(baselines.last, event.label)
        bucket.age_rows += record.offset - arm.learned_to
    seen.rows.append(Row(record.offset, prediction.features, event.label, learned_to, score))


def _rejected(seen: Observed, event: RecordRejected, record: Record, now_ms: float) -> None:
    seen.counts["rejected"] += 1
    for problem in event.problems:
        seen.rejects.append(
            {
                "id": event.id,
                "code": problem.code,
                "message": problem.message,
                "offset": event.offset,
                "partition": event.partition,
                "topic": event.topic,
            }
        )
    seen.decide(event, f"rejected {event.id}: {'; '.join(problem.message for problem in event.problems)}")


def _label(seen: Observed, event: LabelArrived, record: Record, now_ms: float) -> None:
    seen.counts["labels"] += 1


def _updated(seen: Observed, event: ModelUpdated, record: Record, now_ms: float) -> None:
    seen.versions.append(
        {
            "row": seen.counts["labelled"],
            "alias": event.alias,
            "version": event.version,
            "run": event.run,
            "reason": event.reason,
            "snapshot_offset": event.snapshot_offset,
        }
    )
    seen.decide(event, f"{event.alias} is version {event.version}: {event.reason}")


def _validated(seen: Observed, event: ModelValidated, record: Record, now_ms: float) -> None:
    seen.verdicts.append(event.model_dump(mode="json"))
    failed = [
        f"{c.name} {c.value:.3f} against {c.limit:.3f}"
        for c in event.checks
        if c.verdict != "pass" and c.value is not None and c.limit is not None
    ]
    seen.decide(
        event,
        f"{event.stage} gate at {event.n_labels} labels: {event.verdict}"
        + (f" ({'; '.join(failed)})" if failed else ""),
    )


def _snapshot(seen: Observed, event: SnapshotTaken, record: Record, now_ms: float) -> None:
    seen.revisions += 1


def _released(seen: Observed, event: PipelineReleased, record: Record, now_ms: float) -> None:
    if record.topic != "pipelines":  # its marker in a topic of the pipeline
        return
    seen.decide(event, f"release {event.release} of {event.pipeline} is in force")


def _drift(seen: Observed, event: DriftDetected, record: Record, now_ms: float) -> None:
    seen.counts["alerts"] += 1
    if event.kind == "performance":
        seen.decide(event, f"alert, {event.kind}: {alert_words.found(event)}")
        if event.degraded:
            seen.alerts.append(seen.counts["labelled"])


def _requested(seen: Observed, event: TrainingRequested, record: Record, now_ms: float) -> None:
    seen.decide(event, f"a training from row {event.start:,} was requested ({event.trigger}): {event.cause}")


def _ended(seen: Observed, event: RunEnded, record: Record, now_ms: float) -> None:
    seen.decide(event, f"run {event.run} ended: {event.reason}")


def _removed(seen: Observed, event: AliasRemoved, record: Record, now_ms: float) -> None:
    seen.decide(event, f"{event.alias} is none: {event.reason}")


_SEERS: dict[type, Callable[..., None]] = {
    PredictionMade: _prediction,
    ExampleLabelled: _labelled,
    RecordRejected: _rejected,
    LabelArrived: _label,
    ModelUpdated: _updated,
    ModelValidated: _validated,
    SnapshotTaken: _snapshot,
    PipelineReleased: _released,
    DriftDetected: _drift,
    TrainingRequested: _requested,
    RunEnded: _ended,
    AliasRemoved: _removed,
}
