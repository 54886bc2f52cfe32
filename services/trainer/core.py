"""A run: learns each labelled example once, in the order of the log, after having predicted it.

What a run has learned is its model; the rest of its state is counted beside it: labels, the scores of predicting
before learning (all earlier labels known), the offsets left out because their learn raised.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from headrace.schemas.contract import LabelSpec
from headrace.schemas.control import RunStarted, TrainingCompleted
from headrace.schemas.record import Emit, Record
from headrace.schemas.stream import ExampleLabelled, Features, Label, StreamEvent
from headrace.services.trainer.progress import Progress
from headrace.verbs import FeatureMissing, Train, answer_then_learn, project

RECENT = 200  # inputs kept for the quick checks


class Served(StreamEvent, frozen=True):
    """What a run needs of a PredictionMade."""

    features: Features
    release: int


class Labelled(StreamEvent, frozen=True):
    """What a run needs of an ExampleLabelled."""

    prediction: Served
    label: Label


LEARNED = (Labelled, ExampleLabelled)
DECODERS = {"ExampleLabelled": msgspec.json.Decoder(Labelled).decode}  # half the cost of the whole event


@dataclass(frozen=True, slots=True)
class World:
    """What a run is bound to: its start, its recipe, its signature.

    `releases` are those whose examples have exactly the run's columns, so that they need no projection.
    """

    started: RunStarted
    recipe: Callable[[int], Any]
    label: LabelSpec
    has_probabilities: bool
    columns: Mapping[str, bool]
    releases: frozenset[int]
    excluded: tuple[tuple[int, int], ...] = field(init=False)  # beside `started`, whose fields are slow to read
    every: int = field(init=False)

    def __post_init__(self) -> None:
        """Take from `started` what each step needs."""
        end = self.started.end_at_labels
        object.__setattr__(self, "excluded", self.started.excluded)
        object.__setattr__(self, "every", 0 if end is None else max(end, 1))


def example_world() -> World:
    """The world of a linear model over whatever columns come."""
    from river import linear_model, preprocessing

    def recipe(seed: int) -> Any:
        return preprocessing.StandardScaler() | linear_model.LogisticRegression()

    started = RunStarted(
        pipeline="example", run="r1", request="example", release=1, seed=0, start_offset=0, end_at_labels=8
    )
    return World(started, recipe, LabelSpec(type="bool"), True, {}, frozenset(range(100)))


@dataclass
class State:
    """A run as far as it has learned. Its model is made at the first step, or by `begin`."""

    model: Any = None
    n_learned: int = 0
    unusable: int = 0
    skipped: list[int] = field(default_factory=list)
    progress: Progress = field(default_factory=Progress)
    recent: deque[Features] = field(default_factory=lambda: deque(maxlen=RECENT))

    _train = None  # bound to the model; never saved

    def __getstate__(self) -> dict[str, Any]:
        """Everything but what is bound to the model."""
        return {name: value for name, value in vars(self).items() if name != "_train"}


def begin(world: World) -> State:
    """A run that has learned nothing."""
    return State(model=world.recipe(world.started.seed))


def bind(state: State, world: World) -> Train:
    """How the run's model answers and then learns."""
    if state.model is None:
        state.model = world.recipe(world.started.seed)
    train = answer_then_learn(state.model, world.label, world.has_probabilities)
    state._train = train  # type: ignore[assignment]
    return train


def step(state: State, record: Record, world: World) -> list[Emit]:
    """Predict, score, learn one labelled example. A learn that raises rises; the model may be half changed then."""
    event = record.event
    if not isinstance(event, LEARNED):
        return []
    train = state._train or bind(state, world)
    if (world.excluded or state.skipped) and _is_left_out(record.offset, world.excluded, state.skipped):
        return []
    prediction, label = event.prediction, event.label
    features = prediction.features
    if prediction.release not in world.releases:
        try:
            features = project(features, world.columns)
        except FeatureMissing:
            state.unusable += 1
            return []
    value = train(features, label)
    if value is not None:
        state.progress.score(value, label)
    n = state.n_learned = state.n_learned + 1
    state.recent.append(features)
    if world.every and not n % world.every and _is_power_of_two(n // world.every):
        return [completed(state, world.started, record.offset + 1)]
    return []


def _is_power_of_two(times: int) -> bool:
    """The gates judge at the end of the range and at 2, 4, 8 … times it, until one passes."""
    return not times & (times - 1)


def completed(state: State, started: RunStarted, end_offset: int) -> Emit:
    """The event that says so."""
    event = TrainingCompleted(
        pipeline=started.pipeline,
        run=started.run,
        request=started.request,
        release=started.release,
        n_labels=state.n_learned,
        start_offset=started.start_offset,
        end_offset=end_offset,
        skipped=tuple(offset for offset in state.skipped if offset < end_offset),
    )
    return Emit("training-completed", event, started.pipeline.encode(), partition=0)


def _is_left_out(offset: int, excluded: tuple[tuple[int, int], ...], skipped: list[int]) -> bool:
    return offset in skipped or any(first <= offset < after for first, after in excluded)
