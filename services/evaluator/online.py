"""Scores every arm behind the labels: the newest window, fading and cumulative, with coverage and baselines, and the
same by slice where the pipeline declares some.

Rows without an answer (no champion yet, an arm without an opinion) are skipped, as River's progressive validation
does. A row counts for the run that predicted it, so late labels of an old version stay with that version. A corrected
label replaces the first one here, and nowhere else: runs and gates go on by what was learned. Rows that two arms
answered are evidence for a challenger, or about a new champion (evidence.py).
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from headrace.schemas.control import Alias, LabelsCounted, MetricsUpdated, PipelineReleased, PipelineRetired
from headrace.schemas.record import BEFORE_ALL_MS, OUTPUTS_PER_STEP, Emit, Record, first_place
from headrace.schemas.stream import SHED, ArmPrediction, ExampleLabelled, LabelCorrected, Tick, key_of
from headrace.services.evaluator.counting import Counting
from headrace.services.evaluator.coverage import Coverage
from headrace.services.evaluator.evidence import Evidence, pass_time, weigh
from headrace.services.evaluator.kept import Kept, Row
from headrace.services.evaluator.lean import Labelled, decode_labelled
from headrace.services.evaluator.ripening import Waiting
from headrace.services.evaluator.scores import Task, checked, has_probabilities
from headrace.services.evaluator.slices import Slicer
from headrace.services.evaluator.tally import NAMES, WINDOW_ROWS, Tally, numbers

MINUTE_MS = 60_000
RUNS_KEPT = 16  # arms and their late labels; the one that was silent longest goes first
DELAY_EVERY = 16  # labels between two whose delay is noted: a sketch does not need them all
ROWS = (Labelled, ExampleLabelled)  # a union written where it is asked would be built anew for each row
NOTHING: Mapping[str, Any] = {}
PARTS_A_STEP = OUTPUTS_PER_STEP // 4  # slices told in one step, in two scopes each; windows that end need the rest

World = type(None)


def example_world() -> None:
    """The scores need no world."""
    return


DECODERS = {"ExampleLabelled": decode_labelled}
TABLES: dict[str, type] = {"marks": bytes, "blocks": bytes, "waiting": Waiting}


@dataclass(slots=True)
class Scores:
    """One arm's run: the sums over its rows, and those of each slice of them."""

    alias: Alias
    run: str
    version: int | None
    tally: Tally
    parts: dict[str, Tally] = field(default_factory=dict)
    failed: int = 0
    corrected: int = 0
    window_coverage: tuple[int, int] = (0, 0)


@dataclass(slots=True)
class State:
    """The scores of each arm's runs, what the labels add up to, and the newest rows with their marks and blocks.

    `waiting`: rows that wait for labels of earlier predictions before they are evidence. `owed`: slices that a minute
    is to tell of and no step had room for yet.
    """

    marks: MutableMapping[int, bytes] = field(default_factory=dict)
    blocks: MutableMapping[int, bytes] = field(default_factory=dict)
    waiting: MutableMapping[int, Waiting] = field(default_factory=dict)
    kept: Kept = field(default_factory=Kept)
    task: Task | None = None
    slicer: Slicer | None = None
    clock_ms: int = BEFORE_ALL_MS
    minute: int = BEFORE_ALL_MS // MINUTE_MS
    counting: Counting = field(default_factory=Counting)
    arms: dict[tuple[str, str], Scores] = field(default_factory=dict)
    owed: dict[tuple[str, str, str], None] = field(default_factory=dict)
    coverage: Coverage = field(default_factory=Coverage)
    evidence: Evidence = field(default_factory=Evidence)
    counts: dict[str, int] = field(default_factory=lambda: {"corrected": 0, "corrected_too_late": 0})


def step(state: State, record: Record, world: None) -> list[Emit]:
    """Score one labelled example, or correct one, or notice that a minute passed."""
    event = record.event
    state.clock_ms = max(state.clock_ms, record.known_ms)
    emits: list[Emit] = []
    if isinstance(event, ROWS):
        _count(state, event, record, emits)
        slices = () if state.slicer is None else _slices_of(state.slicer, event, record)
        _score(state, event, slices, record, emits)
        if state.evidence.is_open or len(event.prediction.predictions) > 1:
            emits += _weigh(state, event, slices, record)
    elif isinstance(event, LabelCorrected):
        _correct(state, event)
    elif isinstance(event, Tick):
        if event.pending_from is not None:
            partition = first_place(record)[0]
            state.coverage.wait_from(partition, event.pending_from)
            if state.evidence.is_open:
                emits += pass_time(state.evidence, state.waiting, partition, event.pending_from, record)
    elif isinstance(event, PipelineReleased):
        _take_up(state, event)
    minute = state.clock_ms // MINUTE_MS
    if minute > state.minute or isinstance(event, PipelineRetired):
        state.minute = minute
        if state.counting.is_due():
            emits.append(_counted(state.counting, record))
        for scores in state.arms.values():
            if scores.tally.unreported:
                emits += _report(state, scores, record.pipeline)
            for name, part in scores.parts.items():
                if part.unreported:
                    state.owed[scores.alias, scores.run, name] = None
    if state.owed:
        _tell_owed(state, record.pipeline, emits)
    return emits


def _take_up(state: State, event: PipelineReleased) -> None:
    """The rules of a release; with other slices the scores by slice begin anew."""
    state.task = event.definition.contract.label.task
    state.evidence.take_up(state.task, event.definition.policies)
    state.counting.take_up(event.definition.policies.triggers)
    slices = event.definition.policies.slices
    if slices != (state.slicer.slices if state.slicer is not None else ()):
        state.slicer = Slicer(slices) if slices else None
        state.owed.clear()
        for scores in state.arms.values():
            scores.parts.clear()


def _count(state: State, event: Labelled | ExampleLabelled, record: Record, emits: list[Emit]) -> None:
    state.coverage.came_in(event.partition, event.number, is_label=not event.inferred)
    state.coverage.wait_from(event.partition, event.pending_from)
    is_due = state.counting.add(record.offset)
    if not (state.counting.labels % DELAY_EVERY or event.inferred or event.prediction.history):
        state.evidence.delays.add(record.known_ms - event.predicted_at_ms)
    if is_due:
        emits.append(_counted(state.counting, record))


def _counted(counting: Counting, record: Record) -> Emit:
    counting.told = counting.labels
    event = LabelsCounted(
        pipeline=record.pipeline, n=counting.labels, offset=record.offset + 1, newest=counting.newest()
    )
    return Emit("model-validations", event, record.pipeline.encode(), partition=0)


def _score(
    state: State, event: Labelled | ExampleLabelled, slices: tuple[str, ...], record: Record, emits: list[Emit]
) -> None:
    if state.task is None:
        return  # no release marker passed: nothing can have been predicted
    predicted, places = event.prediction, dict[str, int]()
    for alias, arm in predicted.predictions.items():
        value = checked(state.task, arm.value)
        scores = state.arms.get((alias, arm.run))
        if scores is None:
            if value is None and arm.error in (None, SHED):
                continue
            scores = _begin(state, alias, arm, has_probabilities(state.task, value), record, emits)
        if value is None:
            scores.failed += arm.error is not None
            continue
        row = numbers(state.task, value, event.label, predicted.baselines)
        tally = scores.tally
        if len(row) != len(tally.names):
            scores.failed += 1  # with probabilities once, without the next time: no such answer can be compared
            continue
        tally.add(row, record.offset)
        places[alias] = tally.n
        if tally.window_n >= WINDOW_ROWS:
            emits += _report(state, scores, record.pipeline)
            tally.begin_window(record.offset + 1)
            scores.window_coverage = state.coverage.came, state.coverage.matured
        for name in slices:
            part = scores.parts.get(name)
            if part is None:
                part = scores.parts[name] = Tally(tally.names, record.offset, fades=False)
            part.add(row, record.offset)
            if part.window_n >= WINDOW_ROWS:
                emits += _told(scores, part, record.pipeline, slice=name)
                part.begin_window(record.offset + 1)
    key = key_of(predicted.id, predicted.entity)
    kept = Row(key, record.offset, event.label, predicted.predictions, predicted.baselines, places, slices)
    state.kept.add(kept, len(record.body), state.marks, state.blocks)


def _slices_of(slicer: Slicer, event: Labelled | ExampleLabelled, record: Record) -> tuple[str, ...]:
    if not event.prediction.predictions:
        return ()
    if isinstance(event, ExampleLabelled):
        return slicer.names(event.prediction.features)
    return slicer.of_body(record.body)


def _weigh(state: State, event: Labelled | ExampleLabelled, slices: tuple[str, ...], record: Record) -> list[Emit]:
    return weigh(state.evidence, state.waiting, event, slices, record, lambda n: state.kept.newest(n, state.blocks))


def _correct(state: State, event: LabelCorrected) -> None:
    """Score a row anew by its corrected label, in every run that answered it; one no longer kept is only counted."""
    row = state.kept.find(key_of(event.id, event.entity), state.marks, state.blocks)
    if row is None or state.task is None:
        state.counts["corrected_too_late"] += 1
        return
    state.counts["corrected"] += 1
    state.kept.correct(row, event.corrected, state.marks, state.blocks)
    for alias, place in row.places.items():
        arm = row.predictions[alias]
        scores = state.arms.get((alias, arm.run))
        if scores is None or row.offset < scores.tally.first:
            continue  # its run made room, and may have come back since
        value = checked(state.task, arm.value)
        old, new = (numbers(state.task, value, label, row.baselines) for label in (row.label, event.corrected))
        scores.corrected += 1
        scores.tally.replace(old, new, row.offset, scores.tally.n - place)
        for name in row.slices:
            if name in scores.parts:
                scores.parts[name].replace(old, new, row.offset)


def _begin(
    state: State, alias: str, arm: ArmPrediction, probabilities: bool, record: Record, emits: list[Emit]
) -> Scores:
    """The scores of a run that answers for the first time under this alias; the most silent one makes room."""
    assert state.task is not None
    tally = Tally(NAMES[state.task, probabilities], record.offset)
    scores = Scores(alias, arm.run, arm.version, tally)  # type: ignore[arg-type]
    scores.window_coverage = state.coverage.came, state.coverage.matured
    if len(state.arms) >= RUNS_KEPT:
        silent = min(state.arms, key=lambda key: state.arms[key].tally.window_end)
        emits += _report(state, state.arms.pop(silent), record.pipeline)
    state.arms[alias, arm.run] = scores
    return scores


def _report(state: State, scores: Scores, pipeline: str) -> list[Emit]:
    coverage = state.coverage
    came, matured = scores.window_coverage
    window_coverage = (coverage.came - came) / (coverage.matured - matured) if coverage.matured > matured else None
    more = {"failed": float(scores.failed)}
    if scores.corrected:
        more["corrected"] = float(scores.corrected)
    if state.counts["corrected_too_late"]:
        more["corrected_too_late"] = float(state.counts["corrected_too_late"])
    share = coverage.share()
    covered = {"windowed": window_coverage, "fading": share, "cumulative": share}
    return _told(scores, scores.tally, pipeline, covered=covered, more={"cumulative": more})


def _told(
    scores: Scores,
    tally: Tally,
    pipeline: str,
    *,
    slice: str | None = None,
    covered: Mapping[str, float | None] = NOTHING,
    more: Mapping[str, dict[str, float]] = NOTHING,
) -> list[Emit]:
    """The scores of an arm's run, or of one slice of it, in every scope; coverage and further numbers by scope.

    Which slice an example was in whose label never came is not known here: a slice has no coverage.
    """
    events = [
        MetricsUpdated(
            pipeline=pipeline,
            alias=scores.alias,
            version=scores.version,
            run=scores.run,
            scope=report.scope,
            n=report.n,
            coverage=covered.get(report.scope),
            metrics=report.metrics | more.get(report.scope, {}),
            slice=slice,
            window=(tally.window_start, tally.window_end) if report.scope == "windowed" else None,
        )
        for report in tally.reports()
    ]
    return [Emit("metrics", event, pipeline.encode(), partition=0) for event in events]


def _tell_owed(state: State, pipeline: str, emits: list[Emit]) -> None:
    """What the minute owes of slices, as many as one step may tell; the others wait for the next inputs."""
    for key in list(islice(state.owed, PARTS_A_STEP)):
        del state.owed[key]
        alias, run, name = key
        scores = state.arms.get((alias, run))
        part = scores.parts.get(name) if scores is not None else None
        if scores is not None and part is not None and part.unreported:
            emits += _told(scores, part, pipeline, slice=name)
