"""Events that occur once per record: frozen msgspec Structs, decoded four times as fast as with pydantic.

Times are timezone-aware datetimes (event time) or milliseconds since 1970 (known time, names end in `_ms`).
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec

Scalar = bool | int | float | str
Features = dict[str, Scalar]
Label = bool | int | float | str
Time = Annotated[datetime, msgspec.Meta(tz=True)]


class StreamEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A fact of a pipeline's data topics."""


class ExampleArrived(StreamEvent, frozen=True):
    """A user published an example; `time` is when it happened. `history`: joined and learned, never served."""

    id: str
    time: Time
    features: Features
    entity: str | None = None
    label: Label | None = None
    history: bool = False


class LabelArrived(StreamEvent, frozen=True):
    """A user published the answer to the example with the same id (and entity, where the pipeline has one)."""

    id: str
    time: Time
    label: Label
    entity: str | None = None


class Tick(StreamEvent, frozen=True):
    """Time passed. Its id is `schedule` and `due`; `signature` authenticates it among users' records.

    `pending_from` and `predicted` are the joiner's: the number of the oldest prediction that still waits for its
    label, and how many predictions its partition has had.
    """

    schedule: str
    due: Time
    signature: str = ""
    pipeline: str = ""
    pending_from: int | None = None
    predicted: int | None = None


class Problem(StreamEvent, frozen=True):
    """One reason for a rejection: a code, the column it concerns, and a sentence for people."""

    code: str
    message: str
    feature: str | None = None


class RecordRejected(StreamEvent, frozen=True):
    """A record that no service will learn from: its bytes (base64), where they stood, and every reason."""

    id: str
    topic: str
    partition: int
    offset: int
    problems: list[Problem]
    value: bytes
    key: bytes | None = None
    release: int = 0


class FeaturesComputed(StreamEvent, frozen=True):
    """An example with the declared windowed features beside its own."""

    id: str
    time: Time
    features: Features
    entity: str | None = None
    history: bool = False


SHED = "shed: too slow to run in shadow"  # the error of an arm that was not asked


class ArmPrediction(StreamEvent, frozen=True):
    """What one arm answered: P(true) for bool, {class: p} for classes, a number for regression, or an error.

    `learned_to` is the offset of `<p>.labelled-examples` up to which (exclusive) the arm had learned. `took_us`, in a
    canary, is how many microseconds the answer took.
    """

    version: int | None
    run: str
    learned_to: int
    value: Any = None
    error: str | None = None
    took_us: int | None = None


class Baselines(StreamEvent, frozen=True):
    """What a model must beat, folded per partition from the labels in log order; None before the first label."""

    majority: Label | None = None
    mean: float | None = None
    last: Label | None = None


class PredictionMade(StreamEvent, frozen=True):
    """Exactly one for every validated example, whatever the models do.

    `served` names the alias whose value was served, None without a champion (`cold`). `share` is the part of the units
    that the challenger serves in a canary, None outside one. `origin` is the partition and offset of
    `<p>.data-arrived`; `epoch` counts the changes of the pipeline's aliases.
    """

    id: str
    time: Time
    features: Features
    predictions: dict[str, ArmPrediction]
    served: str | None
    release: int
    epoch: int
    origin: tuple[int, int]
    entity: str | None = None
    baselines: Baselines = Baselines()
    history: bool = False
    cold: bool = False
    share: float | None = None


class ExampleLabelled(StreamEvent, frozen=True):
    """A prediction and its label, joined; the order of these in the log is the order of learning.

    `number` is the running number of the prediction in the joiner's input partition `partition`; `pending_from` that
    of the oldest prediction still waiting there. `known_to` is the sequence of the joiner's last ExampleLabelled when
    the prediction passed, -1 where there was none: of the rows with this source, exactly those whose sequence is not
    larger could have been learned by then. Times in milliseconds since 1970.
    """

    prediction: PredictionMade
    label: Label
    predicted_at_ms: int
    labelled_at_ms: int
    partition: int
    number: int
    pending_from: int
    known_to: int
    inferred: bool = False


class LabelCorrected(StreamEvent, frozen=True):
    """A later label that differs from the first: reports use it, running models and evidence do not."""

    id: str
    first: Label
    corrected: Label
    labelled_at_ms: int
    entity: str | None = None


def key_of(id: str, entity: str | None) -> str:
    """One key for an id and its entity, which no other pair shares; a pipeline either has entities or has none.

    >>> key_of("d1", None), key_of("d1", "station 7")
    ('d1', '9 station 7d1')
    """
    return id if entity is None else f"{len(entity)} {entity}{id}"
