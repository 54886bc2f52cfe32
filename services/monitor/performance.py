"""Watches the losses of the champion's answers, and the flow of labels.

Only rows count that the current champion's run predicted after its promotion, which the rows themselves tell (run and
epoch); a new run begins a new detector once labels come in their usual mix of fast and slow ones. A rise of the loss
is told once, until it is over, grows on, or another run is champion. While it lasts the champion is *degraded*: a
warning repeats after 1, 2, 4, 7 days, and the end is told too. ADWIN alone hears a step once and a slow decay never,
so the newest rows are also compared with the mean after the promotion. A champion that misses `Success` is degraded as
well, whatever its loss was before.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Any, Literal

from headrace.schemas.control import DriftDetected, PipelineReleased
from headrace.schemas.policies import Drift, Success
from headrace.schemas.record import BEFORE_ALL_MS, Emit, Record, first_place
from headrace.schemas.stream import ExampleLabelled, Tick
from headrace.services.evaluator.scores import metric_of
from headrace.services.monitor.flow import Flow
from headrace.services.monitor.lean import Labelled, decode_labelled
from headrace.services.monitor.losses import Loss
from headrace.services.monitor.success import Bar
from headrace.statistics.change_point import change_point
from headrace.statistics.rising import RECENT, RisingMean

CHAMPION = "champion"
KEPT = 3_000  # losses among which the change point is looked for
WINDOW = 1_000  # rows of the reference after a promotion, and of what is compared with it
COOLDOWN = 500
SIGMAS = 4.5  # of the difference of two windows' means: chance 3e-6 a window
DAY_MS, LONGEST_MS = 86_400_000, 7 * 86_400_000
DECODERS = {"ExampleLabelled": decode_labelled}

Level = Literal["warning", "drift"]

World = type(None)


def example_world() -> None:
    """The monitor needs no world."""
    return


@dataclass(slots=True)
class Told:
    """An alert in force: the loss before it and before all that it grew from, the newest, when it is told again."""

    before: float
    usual: float
    recent: float
    since: tuple[int, int]
    next_ms: int
    from_row: int
    pause_ms: int = DAY_MS
    rows: int = 0


@dataclass(slots=True)
class Champion:
    """What is known of the run that serves: it counts from `epoch` on, and begins at the known time `from_ms`."""

    run: str
    version: int | None
    epoch: int
    from_ms: float
    rising: RisingMean
    losses: array[float] = field(default_factory=lambda: array("d"))
    places: array[int] = field(default_factory=lambda: array("q"))
    times: array[int] = field(default_factory=lambda: array("q"))
    rows: int = 0
    reference: float = 0.0
    told: Told | None = None
    bar: Bar | None = None


@dataclass(slots=True)
class State:
    """The rules of the release, the champion's losses, the flow of labels."""

    release: int = 0
    policy: Drift = field(default_factory=Drift)
    success: Success | None = None
    loss: Loss | None = None
    clock_ms: int = BEFORE_ALL_MS
    champion: Champion | None = None
    flow: Flow = field(default_factory=Flow)
    counts: dict[str, int] = field(default_factory=lambda: {"performance": 0, "labels": 0, "old": 0, "early": 0})


def step(state: State, record: Record, world: None) -> list[Emit]:
    """Take one labelled example, or notice that a minute passed."""
    event: Any = record.event
    state.clock_ms = max(state.clock_ms, record.known_ms)
    place = record.offset, state.clock_ms
    emits: list[Emit] = []
    if isinstance(event, Labelled | ExampleLabelled):
        if state.loss is not None:
            is_history = event.prediction.history
            if not event.inferred:
                delay_ms = None if is_history else event.labelled_at_ms - event.predicted_at_ms
                said = state.flow.label(event.partition, event.number, delay_ms, place)
                emits += [_labels(state, one.rule, one.numbers, one.since, record) for one in said]
            if not is_history:
                emits += _scored(state, state.loss, event, record)
    elif isinstance(event, Tick):
        if event.predicted is not None and state.loss is not None:
            said = state.flow.tick(first_place(record)[0], event.predicted, place)
            emits += [_labels(state, one.rule, one.numbers, one.since, record) for one in said]
    elif isinstance(event, PipelineReleased) and event.release > state.release:
        emits += _take_up(state, event, record)
    return emits


def _take_up(state: State, event: PipelineReleased, record: Record) -> list[Emit]:
    emits: list[Emit] = []
    state.release = event.release
    policies, task = event.definition.policies, event.definition.contract.label.task
    metric = metric_of(task, policies.success)
    rules = (task, metric, policies.drift, policies.success)
    if state.loss is None or (state.loss.task, state.loss.metric, state.policy, state.success) != rules:
        champion = state.champion
        if champion is not None and _is_degraded(champion):
            why, since = f"over: release {event.release} judges by other rules", (record.offset, state.clock_ms)
            emits = [_alert("performance", "warning", why, {}, since, champion, record, degraded=False)]
        state.loss, state.policy, state.success, state.champion = (
            Loss(task, metric),
            policies.drift,
            policies.success,
            None,
        )
    state.flow.policy = policies.labels
    return emits


def _scored(state: State, loss: Loss, event: Labelled | ExampleLabelled, record: Record) -> list[Emit]:
    predicted = event.prediction
    loss.learn(event.label, predicted.baselines.mean)
    arm = predicted.predictions.get(CHAMPION)
    if arm is None:
        return []
    champion = state.champion
    if champion is None or (arm.run != champion.run and predicted.epoch > champion.epoch):
        from_ms = event.predicted_at_ms + state.flow.settles_ms()
        rising = RisingMean(state.policy.performance_delta, state.policy.performance_effect)
        bar = Bar(loss.task, state.success) if state.success is not None and state.success.asked else None
        champion = state.champion = Champion(arm.run, arm.version, predicted.epoch, from_ms, rising, bar=bar)
    if arm.run != champion.run or predicted.epoch < champion.epoch:
        state.counts["old"] += 1  # a late label of a champion that serves no longer, or not yet
        return []
    if event.labelled_at_ms < champion.from_ms:
        state.counts["early"] += 1
        return []
    one = loss.of(arm.value, event.label)
    bar = champion.bar
    turns = bar is not None and bar.turns(arm.value, event.label, (record.offset, record.known_ms))
    emits = [] if one is None else _count(state, champion, one, record)
    if bar is not None and turns:
        level: Level = "drift" if bar.is_missed and champion.told is None else "warning"
        emits.append(_crossed(state, champion, bar, level, record))
    return emits


def _count(state: State, champion: Champion, loss: float, record: Record) -> list[Emit]:
    """One more loss of the champion."""
    champion.losses.append(loss)
    champion.places.append(record.offset)
    champion.times.append(record.known_ms)
    if len(champion.losses) >= 2 * KEPT:
        for column in (champion.losses, champion.places, champion.times):
            del column[:KEPT]
    champion.rows += 1
    if champion.rows <= WINDOW:
        champion.reference += (loss - champion.reference) / champion.rows
    told = champion.told
    if told is not None and champion.rising.quiet_for == 1:  # the cool-down ends: what rose until now is the same rise
        told.recent = max(told.recent, _mean(champion.rising.recent[-RECENT:]))
    rise = champion.rising.update(loss)
    if rise is not None and (told is None or rise.recent >= told.recent + state.policy.performance_effect):
        champion.rising.be_quiet(COOLDOWN)
        detector = f"ADWIN(delta={state.policy.performance_delta:g})"
        return [_rose(state, champion, rise.before, rise.recent, detector, record)]
    if champion.rows % WINDOW or champion.rows < 2 * WINDOW:
        return [] if told is None else _lasts(state, champion, told, record)
    recent = _mean(champion.losses[-WINDOW:])
    if told is not None:
        is_newer = champion.rows - told.from_row >= WINDOW
        if is_newer and recent < told.usual + state.policy.performance_effect / 2:
            told.recent = recent
            return [_came_back(state, champion, told, record)]
        return []
    noise = SIGMAS * ((_variance(champion.reference) + _variance(recent)) / WINDOW) ** 0.5
    if recent - champion.reference < max(state.policy.performance_effect, noise):
        return []
    return [_rose(state, champion, champion.reference, recent, "mean after the promotion", record)]


def _rose(state: State, champion: Champion, before: float, recent: float, detector: str, record: Record) -> Emit:
    """The loss rose: told, with where it began."""
    at = change_point(champion.losses[-KEPT:])
    first = len(champion.losses) - len(champion.losses[-KEPT:]) + (at or 0)
    since = champion.places[first], champion.times[first]
    usual = before if champion.told is None else min(before, champion.told.usual)
    champion.told = Told(before, usual, recent, since, state.clock_ms + DAY_MS, champion.rows)
    return _performance(state, champion, "drift", detector, since, record)


def _lasts(state: State, champion: Champion, told: Told, record: Record) -> list[Emit]:
    """The loss is still high after the pause, and by a thousand rows more: a warning, and twice the pause."""
    told.rows += 1
    if state.clock_ms < told.next_ms or told.rows < WINDOW:
        return []
    told.rows, told.pause_ms = 0, min(2 * told.pause_ms, LONGEST_MS)
    told.next_ms = state.clock_ms + told.pause_ms
    recent = _mean(champion.losses[-WINDOW:])
    if recent < told.usual + state.policy.performance_effect:
        return []
    told.recent = recent
    return [_performance(state, champion, "warning", "still above the loss before", told.since, record)]


def _came_back(state: State, champion: Champion, told: Told, record: Record) -> Emit:
    """The loss is what it was; a new rise is told anew. Where `Success` is missed, the champion is degraded by that."""
    bar = champion.bar
    if bar is not None and bar.is_missed:
        champion.told = None
        return _crossed(state, champion, bar, "warning", record)
    over = _performance(state, champion, "warning", "over: the loss came back", told.since, record, degraded=False)
    champion.told = None
    return over


def _crossed(state: State, champion: Champion, bar: Bar, level: Level, record: Record) -> Emit:
    """The champion misses `Success`, or meets it again."""
    assert bar.since is not None
    state.counts["performance"] += 1
    rows_since = sum(1 for place in champion.places if place >= bar.since[0])
    evidence = {**bar.numbers(), "rows_since": rows_since, "n": champion.rows}
    detector = "Success missed twice in a row" if bar.is_missed else "over: Success is met again"
    return _alert("performance", level, detector, evidence, bar.since, champion, record, _is_degraded(champion))


def _is_degraded(champion: Champion) -> bool:
    return champion.told is not None or (champion.bar is not None and champion.bar.is_missed)


def _performance(
    state: State,
    champion: Champion,
    level: Level,
    detector: str,
    since: tuple[int, int],
    record: Record,
    degraded: bool = True,
) -> Emit:
    assert champion.told is not None and state.loss is not None  # noqa: PT018
    evidence = {
        "loss": "0/1" if state.loss.metric == "accuracy" else state.loss.metric,
        "reference_loss": champion.told.before,
        "usual_loss": champion.told.usual,
        "recent_loss": champion.told.recent,
        "loss_after_promotion": champion.reference,
        "limit": state.policy.performance_effect,
        "rows_since": sum(1 for place in champion.places if place >= since[0]),
        "n": champion.rows,
    }
    state.counts["performance"] += 1
    return _alert("performance", level, detector, evidence, since, champion, record, degraded)


def _labels(state: State, rule: str, numbers: dict[str, Any], since: tuple[int, int], record: Record) -> Emit:
    state.counts["labels"] += 1
    return _alert("labels", "warning", rule, numbers, since, state.champion, record)


def _alert(
    kind: Literal["performance", "labels"],
    level: Level,
    detector: str,
    evidence: dict[str, Any],
    since: tuple[int, int],
    champion: Champion | None,
    record: Record,
    degraded: bool | None = None,
) -> Emit:
    alert = DriftDetected(
        pipeline=record.pipeline,
        kind=kind,
        level=level,
        since=since[0],
        since_ms=since[1],
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        detector=detector,
        evidence=evidence,
        run=champion.run if champion else None,
        version=champion.version if champion else None,
        epoch=champion.epoch if champion else None,
        degraded=degraded,
    )
    return Emit("drift-alerts", alert, record.pipeline.encode(), partition=0)


def _mean(losses: array[float]) -> float:
    return sum(losses) / len(losses)


def _variance(mean: float) -> float:
    return mean * (1 - mean)  # the most that losses in [0, 1] can have
