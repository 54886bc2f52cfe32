"""Answers every validated example with every arm, before its label is known.

Exactly one PredictionMade for each example, to the same partition, whatever the models do. What may differ when it
is made again (a newer model) leaves nothing in the state, so the first prediction in the log is the one that counts.

The anchor answers a sample of the examples, chosen by a hash of their id.

In a canary the challenger's answer is served to its share of the units, the same units each time; where it has none,
the champion's is.

An arm that serves nobody, and has used up the time that it may take, is shed: it is not asked, and its error says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from headrace.canary import place_of, unit_of
from headrace.schemas.control import PipelineReleased
from headrace.schemas.record import Emit, Record, first_place
from headrace.schemas.stream import (
    SHED,
    ArmPrediction,
    Baselines,
    ExampleArrived,
    Features,
    FeaturesComputed,
    Label,
    LabelArrived,
    PredictionMade,
)
from headrace.services.predictor.budget import Budget
from headrace.verbs import project

CLASSES_AT_MOST = 1_000  # open classes are bounded; later ones can no longer become the majority

SERVES, CANARY, ANCHOR = "champion", "challenger", "anchor"
EXAMPLES = (ExampleArrived, FeaturesComputed)


@dataclass(frozen=True, slots=True)
class Arm:
    """A loaded model: the run and revision it is, its signature, and how it answers.

    `releases` are those whose examples have exactly the arm's columns, so that they need no projection.
    """

    version: int | None
    run: str
    learned_to: int
    columns: Mapping[str, bool]
    releases: frozenset[int]
    answer: Callable[[Features], Any]


@dataclass(frozen=True, slots=True)
class World:
    """The arms by alias, the epoch of the aliases, and the share of units that the challenger serves in a canary.

    `sample` is the share of examples that the anchor answers too. `clock_us` counts microseconds where answers are to
    be timed, in a canary. `budget` is the time of the arms that serve nobody, None where they may take any.

    Replaced as a whole, between two records.
    """

    arms: Mapping[str, Arm] = field(default_factory=dict)
    epoch: int = 0
    share: float | None = None
    sample: float = 0.0
    clock_us: Callable[[], int] | None = None
    budget: Budget | None = None


def example_world() -> World:
    """A world in a canary, whose challenger always fails."""

    def mean(features: Features) -> float:
        numbers = [float(value) for value in features.values() if not isinstance(value, str)]
        return 1 / (1 + abs(sum(numbers)))

    def fail(features: Features) -> float:
        raise ValueError("a broken model")

    champion = Arm(1, "r1", 7, {}, frozenset({0, 1}), mean)
    return World({SERVES: champion, "challenger": Arm(None, "r2", 7, {}, frozenset({0, 1}), fail)}, 1, 0.5)


@dataclass(slots=True)
class State:
    """The release in force, and what is known of the labels of this partition."""

    release: int = 0
    regression: bool = False
    counts: dict[Label, int] = field(default_factory=dict)
    majority: Label | None = None
    labels: int = 0
    mean: float = 0.0
    last: Label | None = None


def step(state: State, record: Record, world: World) -> list[Emit]:
    """Predict an example; take a label into the baselines; pass on what is no example."""
    event = record.event
    if isinstance(event, EXAMPLES):
        return [Emit("<p>.predictions", _prediction(state, event, record, world), record.key, record.partition)]
    if isinstance(event, LabelArrived):
        _count(state, event.label)
    elif isinstance(event, PipelineReleased) and event.release > state.release:
        state.release = event.release
        state.regression = event.definition.contract.label.task == "regression"
    assert event is not None
    return [Emit("<p>.predictions", event, record.key, record.partition, body=record.body)]


def _prediction(state: State, event: ExampleArrived | FeaturesComputed, record: Record, world: World) -> PredictionMade:
    predictions: dict[str, ArmPrediction] = {}
    served = None
    if not event.history:
        if world.budget is not None:
            world.budget.begin()
        for alias, arm in world.arms.items():
            if alias == ANCHOR and place_of(ANCHOR, event.id) >= world.sample:
                continue
            predictions[alias] = made = _answer(alias, arm, event.features, state.release, world)
            if alias == SERVES and made.value is not None:
                served = alias
        if world.share is not None and _is_for_challenger(predictions, world.share, event.id, event.entity):
            served = CANARY
    return PredictionMade(
        id=event.id,
        time=event.time,
        features=event.features,
        predictions=predictions,
        served=served,
        release=state.release,
        epoch=world.epoch,
        origin=first_place(record),
        entity=event.entity,
        baselines=_baselines(state),
        history=event.history,
        cold=SERVES not in world.arms,
        share=world.share if predictions else None,
    )


def _is_for_challenger(made: Mapping[str, ArmPrediction], share: float, id: str, entity: str | None) -> bool:
    """Whether this unit is the challenger's, and it has an answer."""
    arm = made.get(CANARY)
    return arm is not None and arm.value is not None and place_of(arm.run, unit_of(id, entity)) < share


def _answer(alias: str, arm: Arm, features: Features, release: int, world: World) -> ArmPrediction:
    """The arm's answer, or that it was shed: never where it serves, as both arms do in a canary."""
    budget = world.budget
    if budget is None:
        return _ask(arm, features, release, world.clock_us)
    serves = alias == SERVES or (alias == CANARY and world.share is not None)
    if not serves and not budget.allows(arm.run):
        return ArmPrediction(version=arm.version, run=arm.run, learned_to=arm.learned_to, error=SHED)
    made = _ask(arm, features, release, world.clock_us)
    budget.charge(arm.run, serves=serves)
    return made


def _ask(arm: Arm, features: Features, release: int, clock_us: Callable[[], int] | None) -> ArmPrediction:
    began = 0 if clock_us is None else clock_us()
    value, failure = None, None
    try:
        if release not in arm.releases:
            features = project(features, arm.columns)
        value = arm.answer(features)
    except MemoryError:
        raise
    except Exception as error:
        failure = f"{type(error).__name__}: {error}"
    return ArmPrediction(
        version=arm.version,
        run=arm.run,
        learned_to=arm.learned_to,
        value=value,
        error=failure,
        took_us=None if clock_us is None else clock_us() - began,
    )


def _baselines(state: State) -> Baselines:
    if not state.labels:
        return Baselines()
    if state.regression:
        return Baselines(mean=state.mean, last=state.last)
    return Baselines(majority=state.majority, last=state.last)


def _count(state: State, label: Label) -> None:
    """Take one label in. The majority keeps its place until another class has more."""
    state.labels += 1
    state.last = label
    if state.regression:
        state.mean += (float(label) - state.mean) / state.labels
        return
    counts = state.counts
    if label in counts or len(counts) < CLASSES_AT_MOST:
        count = counts[label] = counts.get(label, 0) + 1
        if state.majority is None or count > counts[state.majority]:
            state.majority = label
