"""Scores every arm behind the labels: the newest window, fading and cumulative, with coverage and baselines.

Rows without an answer (no champion yet, an arm without an opinion) are skipped, as River's progressive validation
does. A row counts for the run that predicted it, so late labels of an old version stay with that version.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
from river import stats

from headrace.schemas.control import Alias, LabelsCounted, MetricsUpdated, PipelineReleased, PipelineRetired
from headrace.schemas.record import BEFORE_ALL_MS, Emit, Record, first_place
from headrace.schemas.stream import (
    ArmPrediction,
    Baselines,
    ExampleLabelled,
    Label,
    LabelCorrected,
    StreamEvent,
    Tick,
)
from headrace.services.evaluator.coverage import Coverage
from headrace.services.evaluator.scores import Task, brier, checked, decided, has_probabilities, log_loss

WINDOW_ROWS = 1_000
FADING = 0.999  # a row weighs half after 693 more (Gama, Sebastião, Rodrigues 2013: prequential with fading factors)
MINUTE_MS = 60_000
RUNS_KEPT = 16  # arms and their late labels; the one that was silent longest goes first
FIRST_COUNT = 200

NAMES: dict[tuple[Task, bool], tuple[str, ...]] = {
    ("binary", True): ("accuracy", "majority_accuracy", "last_accuracy", "logloss", "brier"),
    ("binary", False): ("accuracy", "majority_accuracy", "last_accuracy"),
    ("multiclass", True): ("accuracy", "majority_accuracy", "last_accuracy", "logloss", "brier"),
    ("multiclass", False): ("accuracy", "majority_accuracy", "last_accuracy"),
    ("regression", False): ("mae", "rmse", "mean_mae", "last_mae"),
}
ROOTS = {"rmse"}  # reported as the root of the mean
SHARES = {"accuracy", "majority_accuracy", "last_accuracy"}  # hits / rows, exact; the others are River's running mean

Scope = Literal["windowed", "fading", "cumulative"]
World = type(None)


def example_world() -> None:
    """The scores need no world."""
    return


class Answered(StreamEvent, frozen=True):
    """What the scores need of a PredictionMade: no features."""

    predictions: dict[str, ArmPrediction]
    baselines: Baselines = Baselines()


class Labelled(StreamEvent, frozen=True):
    """What the scores need of an ExampleLabelled."""

    prediction: Answered
    label: Label
    partition: int
    number: int
    pending_from: int
    inferred: bool = False


DECODERS = {"ExampleLabelled": msgspec.json.Decoder(Labelled).decode}  # half the cost of the whole event


@dataclass(slots=True)
class Scores:
    """One arm's run: sums over the newest window, fading sums, River's running means; rows not reported yet."""

    alias: Alias
    run: str
    version: int | None
    names: tuple[str, ...]
    window: list[float]
    fading: list[float]
    total: list[Any]
    n: int = 0
    window_n: int = 0
    window_start: int = 0
    window_end: int = 0
    fading_n: float = 0.0
    unreported: int = 0
    failed: int = 0
    window_coverage: tuple[int, int] = (0, 0)


@dataclass(slots=True)
class State:
    """The scores of each arm's runs, and what the labels add up to."""

    task: Task | None = None
    every_labels: int | None = None
    clock_ms: int = BEFORE_ALL_MS
    minute: int = BEFORE_ALL_MS // MINUTE_MS
    labels: int = 0
    corrected: int = 0
    next_count: int = FIRST_COUNT
    arms: dict[tuple[str, str], Scores] = field(default_factory=dict)
    coverage: Coverage = field(default_factory=Coverage)


def step(state: State, record: Record, world: None) -> list[Emit]:
    """Score one labelled example, or notice that a minute passed."""
    event = record.event
    state.clock_ms = max(state.clock_ms, record.known_ms)
    emits: list[Emit] = []
    if isinstance(event, Labelled | ExampleLabelled):
        _count(state, event, record, emits)
        _score(state, event, record, emits)
    elif isinstance(event, LabelCorrected):
        state.corrected += 1
    elif isinstance(event, Tick):
        if event.pending_from is not None:
            state.coverage.wait_from(first_place(record)[0], event.pending_from)
    elif isinstance(event, PipelineReleased):
        state.task = event.definition.contract.label.task
        state.every_labels = event.definition.policies.triggers.every_labels
    minute = state.clock_ms // MINUTE_MS
    if minute > state.minute or isinstance(event, PipelineRetired):
        state.minute = minute
        for scores in state.arms.values():
            if scores.unreported:
                emits += _report(state, scores, record.pipeline)
    return emits


def _count(state: State, event: Labelled | ExampleLabelled, record: Record, emits: list[Emit]) -> None:
    state.coverage.came_in(event.partition, event.number, is_label=not event.inferred)
    state.coverage.wait_from(event.partition, event.pending_from)
    state.labels += 1
    due = state.labels == state.next_count
    if due:
        state.next_count *= 2
    if due or (state.every_labels is not None and state.labels % state.every_labels == 0):
        counted = LabelsCounted(pipeline=record.pipeline, n=state.labels, offset=record.offset + 1)
        emits.append(Emit("model-validations", counted, record.pipeline.encode(), partition=0))


def _score(state: State, event: Labelled | ExampleLabelled, record: Record, emits: list[Emit]) -> None:
    if state.task is None:
        return  # no release marker passed: nothing can have been predicted
    for alias, arm in event.prediction.predictions.items():
        value = checked(state.task, arm.value)
        scores = state.arms.get((alias, arm.run))
        if scores is None:
            if value is None and arm.error is None:
                continue
            scores = _begin(state, alias, arm, has_probabilities(state.task, value), record, emits)
        if value is None:
            scores.failed += arm.error is not None
            continue
        row = _row(state.task, value, event.label, event.prediction.baselines)
        if len(row) != len(scores.names):
            scores.failed += 1  # with probabilities once, without the next time: no such answer can be compared
            continue
        _add(scores, row, record.offset)
        if scores.window_n >= WINDOW_ROWS:
            emits += _report(state, scores, record.pipeline)
            _begin_window(state, scores, record.offset + 1)


def _row(task: Task, value: Any, label: Label, baselines: Baselines) -> tuple[float, ...]:
    """One row's numbers, in the order of `NAMES`; a baseline without an answer misses, or says 0."""
    if task == "regression":
        error = float(value) - float(label)
        mean, last = baselines.mean or 0.0, float(baselines.last or 0.0)
        return abs(error), error * error, abs(mean - float(label)), abs(last - float(label))
    hits = (
        float(decided(task, value) == label),
        float(baselines.majority is not None and baselines.majority == label),
        float(baselines.last is not None and baselines.last == label),
    )
    if not has_probabilities(task, value):
        return hits
    return (*hits, log_loss(task, value, label), brier(task, value, label))


def _begin(
    state: State, alias: str, arm: ArmPrediction, probabilities: bool, record: Record, emits: list[Emit]
) -> Scores:
    """The scores of a run that answers for the first time under this alias; the most silent one makes room."""
    assert state.task is not None
    names = NAMES[state.task, probabilities]
    totals = [0.0 if name in SHARES else stats.Mean() for name in names]
    scores = Scores(alias, arm.run, arm.version, names, [0.0] * len(names), [0.0] * len(names), totals)  # type: ignore[arg-type]
    _begin_window(state, scores, record.offset)
    if len(state.arms) >= RUNS_KEPT:
        silent = min(state.arms, key=lambda key: state.arms[key].window_end)
        emits += _report(state, state.arms.pop(silent), record.pipeline)
    state.arms[alias, arm.run] = scores
    return scores


def _begin_window(state: State, scores: Scores, offset: int) -> None:
    scores.window = [0.0] * len(scores.names)
    scores.window_n, scores.window_start, scores.window_end = 0, offset, offset
    scores.window_coverage = state.coverage.came, state.coverage.matured


def _add(scores: Scores, row: tuple[float, ...], offset: int) -> None:
    scores.n += 1
    scores.window_n += 1
    scores.unreported += 1
    scores.window_end = offset + 1
    scores.fading_n = scores.fading_n * FADING + 1
    window, fading, total = scores.window, scores.fading, scores.total
    for index, x in enumerate(row):
        window[index] += x
        fading[index] = fading[index] * FADING + x
        if isinstance(total[index], float):
            total[index] += x
        else:
            total[index].update(x)


def _report(state: State, scores: Scores, pipeline: str) -> list[Emit]:
    if not scores.n:
        return []
    scores.unreported = 0
    coverage = state.coverage
    came, matured = scores.window_coverage
    window_coverage = (coverage.came - came) / (coverage.matured - matured) if coverage.matured > matured else None
    totals = [x / scores.n if isinstance(x, float) else x.get() for x in scores.total]
    failed = {"failed": float(scores.failed)}
    reports: tuple[tuple[Scope, int, float | None, list[float], dict[str, float]], ...] = (
        ("windowed", scores.window_n, window_coverage, [x / max(scores.window_n, 1) for x in scores.window], {}),
        ("fading", scores.n, coverage.share(), [x / scores.fading_n for x in scores.fading], {}),
        ("cumulative", scores.n, coverage.share(), totals, failed),
    )
    return [
        Emit(
            "metrics",
            MetricsUpdated(
                pipeline=pipeline,
                alias=scores.alias,
                version=scores.version,
                run=scores.run,
                scope=scope,
                n=n,
                coverage=share,
                metrics={
                    name: mean**0.5 if name in ROOTS else mean for name, mean in zip(scores.names, means, strict=True)
                }
                | more,
                window=(scores.window_start, scores.window_end) if scope == "windowed" else None,
            ),
            pipeline.encode(),
            partition=0,
        )
        for scope, n, share, means, more in reports
        if n
    ]
