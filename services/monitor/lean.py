"""Lean twins of the data events: what the monitor needs, decoded from the same bytes at less cost."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.schemas.stream import Baselines, Features, Label, StreamEvent


class Answer(StreamEvent, frozen=True):
    """What one arm said."""

    run: str
    version: int | None
    value: Any = None


class Answered(StreamEvent, frozen=True):
    """What the losses need of a PredictionMade."""

    predictions: dict[str, Answer]
    epoch: int
    history: bool = False
    baselines: Baselines = Baselines()


class Seen(StreamEvent, frozen=True):
    """What the inputs need of a PredictionMade."""

    features: Features
    predictions: dict[str, Answer]
    epoch: int
    history: bool = False


class Labelled(StreamEvent, frozen=True):
    """What the losses and the flow of labels need of an ExampleLabelled."""

    prediction: Answered
    label: Label
    predicted_at_ms: int
    labelled_at_ms: int
    partition: int
    number: int
    inferred: bool = False


decode_seen = msgspec.json.Decoder(Seen).decode
decode_labelled = msgspec.json.Decoder(Labelled).decode
