"""What the joiner reads, keeps and writes of a row: lean twins of the events, and the values of its tables."""

from __future__ import annotations

import msgspec

from headrace.schemas.stream import Label, StreamEvent


class Predicted(StreamEvent, frozen=True):
    """What the join needs of a PredictionMade; the features are only compared."""

    id: str
    features: msgspec.Raw
    entity: str | None = None


class Answered(StreamEvent, frozen=True):
    """What the join needs of a LabelArrived."""

    id: str
    label: Label
    entity: str | None = None


class Joined(StreamEvent, frozen=True):
    """An ExampleLabelled whose prediction is still the bytes that the predictor wrote."""

    prediction: msgspec.Raw
    label: Label
    predicted_at_ms: int
    labelled_at_ms: int
    partition: int
    number: int
    pending_from: int
    known_to: int
    inferred: bool = False


class Waiting(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A prediction that waits for its label; `mark` is a checksum of its features, `body` the whole event."""

    number: int
    known_ms: int
    known_to: int
    mark: int
    body: bytes


class Early(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A label that waits for its prediction: its place and bytes, and the newest value told after it."""

    label: Label
    known_ms: int
    latest: Label
    latest_ms: int
    offset: int
    body: bytes


class Done(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An example that waits no more: the label that decided and the newest one told, None where it was given up."""

    mark: int
    first: Label | None = None
    latest: Label | None = None


decode_predicted = msgspec.json.Decoder(Predicted).decode
decode_answered = msgspec.json.Decoder(Answered).decode


def log_key_of(row: Predicted | Answered) -> bytes:
    """The key of the row's records in every data topic."""
    return (row.entity or row.id).encode()
