"""What the demo sees of the stream: counts, accuracy as it develops, delays. Pure: records in, numbers out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from headrace.schemas.control import ModelUpdated, ModelValidated, PipelineReleased, SnapshotTaken
from headrace.schemas.record import Record
from headrace.schemas.stream import ExampleLabelled, LabelArrived, PredictionMade, RecordRejected

BUCKET_ROWS = 2_000


@dataclass
class Bucket:
    """Hits over `BUCKET_ROWS` labelled rows, of the served model, of the majority and of no-change.

    All three are counted on the rows that a model answered; the rows before the first model are `rows - scored`.
    """

    rows: int = 0
    scored: int = 0
    model: int = 0
    majority: int = 0
    last: int = 0
    age_rows: int = 0

    def accuracy(self, what: str) -> float | None:
        """Share of hits of `model`, `majority` or `last`; None where no row was scored."""
        return getattr(self, what) / self.scored if self.scored else None


@dataclass
class Observed:
    """Everything the live table and the closing report show."""

    counts: Counter[str] = field(default_factory=Counter)
    buckets: list[Bucket] = field(default_factory=list)
    recent: list[int] = field(default_factory=list)
    rejects: list[dict[str, Any]] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    versions: list[dict[str, Any]] = field(default_factory=list)
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

    def accuracy(self, last: int = 500) -> float | None:
        """Share of hits of the served model over the last rows."""
        rows = self.recent[-last:]
        return sum(rows) / len(rows) if rows else None


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
    if arm is not None and arm.error is None:
        hit = int(_answer(arm.value) == event.label)
        bucket.scored += 1
        bucket.model += hit
        bucket.majority += prediction.baselines.majority == event.label
        bucket.last += prediction.baselines.last == event.label
        bucket.age_rows += record.offset - arm.learned_to
        seen.recent.append(hit)


def _answer(value: Any) -> Any:
    if isinstance(value, float):
        return value > 0.5
    return max(value, key=lambda name: value[name]) if isinstance(value, dict) else value


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
    seen.events.append(f"rejected {event.id}: {'; '.join(problem.message for problem in event.problems)}")


def _label(seen: Observed, event: LabelArrived, record: Record, now_ms: float) -> None:
    seen.counts["labels"] += 1


def _updated(seen: Observed, event: ModelUpdated, record: Record, now_ms: float) -> None:
    seen.versions.append(
        {
            "alias": event.alias,
            "version": event.version,
            "run": event.run,
            "reason": event.reason,
            "snapshot_offset": event.snapshot_offset,
        }
    )
    seen.events.append(f"{event.alias} is version {event.version}: {event.reason}")


def _validated(seen: Observed, event: ModelValidated, record: Record, now_ms: float) -> None:
    seen.verdicts.append(event.model_dump(mode="json"))
    failed = [
        f"{c.name} {c.value:.3f} against {c.limit:.3f}"
        for c in event.checks
        if c.verdict != "pass" and c.value is not None and c.limit is not None
    ]
    seen.events.append(
        f"{event.stage} gate at {event.n_labels} labels: {event.verdict}"
        + (f" ({'; '.join(failed)})" if failed else "")
    )


def _snapshot(seen: Observed, event: SnapshotTaken, record: Record, now_ms: float) -> None:
    seen.revisions += 1


def _released(seen: Observed, event: PipelineReleased, record: Record, now_ms: float) -> None:
    seen.events.append(f"release {event.release} of {event.pipeline} is in force")


_SEERS: dict[type, Callable[..., None]] = {
    PredictionMade: _prediction,
    ExampleLabelled: _labelled,
    RecordRejected: _rejected,
    LabelArrived: _label,
    ModelUpdated: _updated,
    ModelValidated: _validated,
    SnapshotTaken: _snapshot,
    PipelineReleased: _released,
}
