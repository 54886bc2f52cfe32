"""Watches what the models are asked and what they answer: input drift by column, drift of the champion's predictions.

The reference is what the champion learned from: for the first one the rows from the log's start, for a later one the
rows since it first appeared in shadow. It changes where a prediction names another run as champion: that is how the
fold learns of a promotion, at the same place in every replay. Both kinds are warnings; neither trains by default.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from headrace.schemas.control import DriftDetected, PipelineReleased
from headrace.schemas.policies import Drift
from headrace.schemas.record import Emit, Record
from headrace.schemas.stream import PredictionMade
from headrace.services.monitor.columns import Column, columns_of
from headrace.services.monitor.diagnosis import diagnose
from headrace.services.monitor.lean import Seen, decode_seen
from headrace.services.monitor.panel import Finding, Panel, limit_of, panel_of

CHAMPION, CHALLENGER = "champion", "challenger"
PREDICTION = "prediction"
DECODERS = {"PredictionMade": decode_seen}

World = type(None)


def example_world() -> None:
    """The monitor needs no world."""
    return


@dataclass(slots=True)
class State:
    """What is watched in one partition. `coming` is the reference of the run that may be promoted next."""

    release: int = 0
    policy: Drift = field(default_factory=Drift)
    columns: tuple[tuple[str, bool], ...] = ()
    contract: Any = None
    inputs: Panel | None = None
    coming: Panel | None = None
    coming_run: str = ""
    predictions: Panel | None = None
    run: str = ""
    version: int | None = None
    epoch: int = 0
    examples: int = 0
    counts: dict[str, int] = field(default_factory=lambda: {"input": 0, "prediction": 0})


def step(state: State, record: Record, world: None) -> list[Emit]:
    """Take one prediction into the windows; an alert where a window that ends says something new."""
    event: Any = record.event
    if isinstance(event, Seen | PredictionMade):
        return [] if event.history else _watch(state, event, record)
    if isinstance(event, PipelineReleased) and event.release > state.release:
        _take_up(state, event)
    return []


def _take_up(state: State, event: PipelineReleased) -> None:
    """A release: with other columns or another drift policy the windows begin anew."""
    state.release = event.release
    contract, policy = event.definition.contract, event.definition.policies.drift
    columns = tuple((column.name, column.is_number) for column in columns_of(contract, 0.0))
    if state.inputs is None or columns != state.columns or policy != state.policy:
        state.policy, state.columns, state.contract = policy, columns, contract
        state.inputs, state.coming, state.coming_run, state.predictions = _panel(state), None, "", None


def _panel(state: State) -> Panel:
    return panel_of(columns_of(state.contract, limit_of(state.policy)), state.policy)


def _watch(state: State, event: Seen | PredictionMade, record: Record) -> list[Emit]:
    if state.inputs is None:
        return []  # no release marker passed: no columns are known
    state.examples += 1
    _follow(state, event)
    emits: list[Emit] = []
    inputs, place = state.inputs, (record.offset, record.known_ms)
    if state.coming is not None and state.coming.halves is not None:  # its windows begin with the promotion
        state.coming.add(event.features, *place)
    found = inputs.add(event.features, *place)
    if found is not None:
        diagnosis = diagnose(inputs, list(found.columns), found.rows)
        emits.append(_alert(state, "input", found, diagnosis, record))
    answer = event.predictions.get(CHAMPION)
    if answer is not None:  # in a canary too, where another may be served: these are the champion's answers
        emits += _answered(state, _decided(answer.value), record)
    return emits


def _follow(state: State, event: Seen | PredictionMade) -> None:
    """Notice a challenger that begins, and a promotion."""
    challenger = event.predictions.get(CHALLENGER)
    if challenger is not None and challenger.run not in (state.coming_run, state.run):
        state.coming, state.coming_run = _panel(state), challenger.run
    champion = event.predictions.get(CHAMPION)
    if champion is None or event.epoch < state.epoch:  # a predictor that starts may for a moment know older aliases
        return
    if champion.run != state.run:
        if state.run:
            is_known = state.coming is not None and champion.run == state.coming_run
            state.inputs = state.coming if is_known else _panel(state)
            state.predictions = None
        state.coming, state.coming_run = None, ""
        state.run = champion.run
    state.version, state.epoch = champion.version, event.epoch


def _answered(state: State, value: float | str | None, record: Record) -> list[Emit]:
    if value is None:
        return []
    is_number = not isinstance(value, str)
    if state.predictions is None:
        column = Column(PREDICTION, is_number, limit_of(state.policy))
        state.predictions = panel_of([column], state.policy)
    if state.predictions.columns[0].is_number != is_number:
        return []
    found = state.predictions.add({PREDICTION: value}, record.offset, record.known_ms)
    return [] if found is None else [_alert(state, "prediction", found, None, record)]


def _decided(value: Any) -> float | str | None:
    """What is watched of an answer: P(true), a number, or the class."""
    if isinstance(value, dict):
        return max(value, key=value.__getitem__) if value else None
    if isinstance(value, bool | str):
        return str(value)
    return float(value) if isinstance(value, int | float) else None


def _alert(
    state: State, kind: Literal["input", "prediction"], found: Finding, diagnosis: str | None, record: Record
) -> Emit:
    state.counts[kind] += 1
    panel = state.inputs if kind == "input" else state.predictions
    assert panel is not None
    by_change = sorted(found.columns, key=lambda name: (-_size(found.columns[name]), name))
    evidence: dict[str, Any] = {
        "columns": {name: found.columns[name] for name in by_change},
        "window_rows": panel.window,
        "reference_rows": panel.columns[0].rows,
        "fdr": panel.fdr,
        "example": state.examples,
    }
    alert = DriftDetected(
        pipeline=record.pipeline,
        kind=kind,
        level="warning",
        since=found.offset,
        since_ms=found.known_ms,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        detector="chi-square, BH and PSI",
        evidence=evidence,
        features=tuple(by_change) if kind == "input" else (),
        run=state.run or None,
        version=state.version,
        epoch=state.epoch,
        diagnosis=diagnosis,
    )
    return Emit("drift-alerts", alert, record.pipeline.encode(), partition=0)


def _size(numbers: dict[str, float]) -> float:
    return max(numbers.get("psi", 0.0), numbers.get("missing", 0.0), numbers.get("unseen", 0.0))
