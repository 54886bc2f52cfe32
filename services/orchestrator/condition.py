"""The state a pipeline is in: degraded while its champion's loss stays up or it misses `Success`, skewed while too many
records are rejected.

Both are told as decisions, when they begin and when they are over; that a champion is degraded is told once a day too.
While it is, trainings are tried again, each time after twice the pause; while the schema is skewed nothing is trained
that no person asked for.
"""

from __future__ import annotations

from typing import Any

from headrace.schemas.control import DriftDetected, ModelUpdated, PipelineDegraded, SchemaSkewed, WindowValidated
from headrace.schemas.record import Emit
from headrace.services.orchestrator.choice import in_turn
from headrace.services.orchestrator.training import DAY_MS, Degraded, Skewed, Training
from headrace.services.orchestrator.triggers import automatic, request, until_now
from headrace.why.alert_words import found

LONGEST_PAUSE_MS = 7 * DAY_MS
SHORTEST_PAUSE_MS = 60_000
REASONS_TOLD = 3
SEEN = ("reference_loss", "recent_loss", "usual_loss", "limit", "rows_since", "loss", "metric", "value", "asked")


def on_performance(training: Training, event: DriftDetected, known_ms: int) -> list[Emit]:
    """The champion's loss rose, rose again, lasts, or came back."""
    champion, known = training.champion, training.degraded
    if event.kind != "performance" or champion is None or event.run != champion.run or event.degraded is None:
        return []
    if not event.degraded:
        return _over(training, event.detector.removeprefix("over: "), known_ms)
    if known is not None and event.level == "warning":
        known.alert = event
        return []
    pause_ms = _first_pause_ms(training)
    since_ms = known_ms if known is None else known.since_ms
    training.degraded = Degraded(event, since_ms, known_ms, pause_ms, known_ms + pause_ms)
    return [_told(training, training.degraded, known_ms)]


def on_champion(training: Training, event: ModelUpdated, known_ms: int) -> list[Emit]:
    """Another run serves: how the one before did says nothing of it."""
    known = training.degraded
    if known is None or known.alert.run == event.run:
        return []
    return _over(training, f"version {event.version} serves in its place", known_ms)


def on_day_and_pause(training: Training, known_ms: int) -> list[Emit]:
    """A day passed in which the champion was degraded: told. A pause passed and nothing is trained: tried again."""
    known = training.degraded
    if known is None or training.retired:
        return []
    emits: list[Emit] = []
    if known_ms >= known.told_ms + DAY_MS:
        known.told_ms = known_ms
        emits.append(_told(training, known, known_ms))
    is_idle = training.slot is None and training.waiting is None and not training.skewed
    if (
        is_idle
        and training.policies.triggers.on_performance_drift
        and known_ms >= max(known.retry_ms, training.cooled_ms)
    ):
        emits += _again(training, known, known_ms)
    return emits


def on_window(training: Training, event: WindowValidated, known_ms: int) -> list[Emit]:
    """A partition's records are rejected as never before, or are accepted again."""
    before, partition = training.skewed.pop(event.partition, None), event.partition
    counts = f"{event.rejected:,} of {_records(event):,} records of partition {partition} were rejected"
    if event.verdict == "skewed":
        why = ", ".join(f"{code} {n:,}" for code, n in _most(event.reasons))
        training.skewed[partition] = Skewed(f"{counts} ({why})", known_ms if before is None else before.since_ms)
        reason = f"{counts} ({why}); nothing is trained by itself until that is over"
        numbers = _window_numbers(event) | {"reasons": dict(_most(event.reasons))}
        return [_decision(SchemaSkewed(pipeline=event.pipeline, reason=reason, numbers=numbers))]
    if before is None:
        return []
    others = ", ".join(map(str, sorted(training.skewed)))
    reason = counts + (f"; skewed still: partition {others}" if others else "")
    numbers = _window_numbers(event) | {"days": _days(before.since_ms, known_ms)}
    return [_decision(SchemaSkewed(pipeline=event.pipeline, reason=reason, numbers=numbers, over=True))]


def _again(training: Training, known: Degraded, known_ms: int) -> list[Emit]:
    """Another training from where the loss rose, by the recipe whose turn it is; the next one after twice the pause."""
    known.tries += 1
    known.pause_ms = min(2 * known.pause_ms, LONGEST_PAUSE_MS)
    known.retry_ms = known_ms + known.pause_ms
    start = max(known.alert.since or 0, 0)
    asked = request(
        training, f"performance-{known.alert.run}-{start}-again-{known.tries}", "performance",
        f"degraded for {_days(known.since_ms, known_ms):g} days, try {known.tries}: {found(known.alert)}",
        start=start, end=until_now(training, start),
    )  # fmt: skip
    return automatic(training, in_turn(training, asked), known_ms)


def _first_pause_ms(training: Training) -> int:
    return max(round(training.policies.triggers.cooldown_s * 1000), SHORTEST_PAUSE_MS)


def _over(training: Training, why: str, known_ms: int) -> list[Emit]:
    known, training.degraded = training.degraded, None
    if known is None:
        return []
    numbers = {**_numbers(known, known_ms), "tries": known.tries}
    event = PipelineDegraded(pipeline=known.alert.pipeline, reason=why, numbers=numbers, over=True)
    return [_decision(event)]


def _told(training: Training, known: Degraded, known_ms: int) -> Emit:
    alert = known.alert
    reason = f"version {alert.version} (run {alert.run}): {found(alert)}"
    return _decision(PipelineDegraded(pipeline=alert.pipeline, reason=reason, numbers=_numbers(known, known_ms)))


def _numbers(known: Degraded, known_ms: int) -> dict[str, Any]:
    alert = known.alert
    seen = {name: alert.evidence[name] for name in SEEN if name in alert.evidence}
    days = _days(known.since_ms, known_ms)
    return {"run": alert.run, "version": alert.version, "since": alert.since, "days": days, **seen}


def _days(since_ms: int, known_ms: int) -> float:
    return round((known_ms - since_ms) / DAY_MS, 3)


def _window_numbers(event: WindowValidated) -> dict[str, Any]:
    fields = ("partition", "start_offset", "end_offset", "validated", "labels", "rejected")
    return {name: getattr(event, name) for name in fields}


def _records(event: WindowValidated) -> int:
    return event.validated + event.labels + event.rejected


def _most(reasons: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(reasons.items(), key=lambda one: (-one[1], one[0]))[:REASONS_TOLD]


def _decision(event: PipelineDegraded | SchemaSkewed) -> Emit:
    return Emit("decisions", event, event.pipeline.encode(), partition=0)
