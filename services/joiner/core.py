"""The joiner: brings labels to their predictions. The order of what it writes is the order of learning.

The first label of an example decides. Labels may come before their prediction and wait for it; predictions wait for
the TTL and a grace, by the clock of the log. The bytes of a prediction are kept and joined as they are, so a pair
costs one look at its id and no second encoding (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import Any
from zlib import crc32

import msgspec

from headrace.schemas.codec import TYPE_OF, encode
from headrace.schemas.control import PipelineReleased, PipelineRetired
from headrace.schemas.policies import Labels, Retention
from headrace.schemas.record import OUTPUTS_PER_STEP, SEQUENCES_PER_OFFSET, Emit, Record
from headrace.schemas.stream import (
    ExampleLabelled, Label, LabelArrived, LabelCorrected, PredictionMade, Problem, RecordRejected, StreamEvent, Tick,
)

LABELLED, REJECTED = "<p>.labelled-examples", "<p>.data-rejected"
FORGET_EVERY = 1_000  # predictions between two looks at the bound of `done`
FORGET = 10_000  # ids forgotten at a look, at most: still a short step

World = type(None)


class Predicted(StreamEvent, frozen=True):
    """What the join needs of a PredictionMade; its features are only compared."""

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
    """A prediction that waits for its label; `mark` is a checksum of its features."""

    number: int
    known_ms: int
    known_to: int
    mark: int
    body: bytes


class Early(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A label that waits for its prediction, and the newest one if another value came after it."""

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


TABLES: dict[str, type] = {"pending": Waiting, "early": Early, "done": Done}
_decode_predicted = msgspec.json.Decoder(Predicted).decode
_decode_answered = msgspec.json.Decoder(Answered).decode
DECODERS = {"PredictionMade": _decode_predicted, "LabelArrived": _decode_answered}
EXAMPLE_LABELLED = TYPE_OF[ExampleLabelled]


def _counts() -> dict[str, int]:
    return dict.fromkeys(
        ("joined", "early", "late", "expired", "dropped", "unmatched", "corrected", "repeats", "conflicts"), 0
    )


@dataclass(slots=True)
class State:
    """What waits, what is done, and the counts since the partition's first record.

    `pending` and `early` hold at most `max_pending` each, `done` about `dedupe_ids`. `number` is the next
    prediction's, `pending_from` the oldest one's that waits, `known_to` the sequence of the last ExampleLabelled.
    """

    pending: MutableMapping[str, Waiting] = field(default_factory=dict)
    early: MutableMapping[str, Early] = field(default_factory=dict)
    done: MutableMapping[str, Done] = field(default_factory=dict)
    number: int = 0
    pending_from: int = 0
    known_to: int = -1
    clock_ms: int = 0
    overdue: bool = False
    release: int = 0
    ttl_ms: int = int(Labels().ttl_s * 1000)
    grace_ms: int = int(Labels().grace_s * 1000)
    max_pending: int = Labels().max_pending
    on_timeout: Label = "missing"
    dedupe_ids: int = Retention().dedupe_ids
    counts: dict[str, int] = field(default_factory=_counts)


def example_world() -> None:
    """The joiner needs no world."""
    return


def step(state: State, record: Record, world: None) -> list[Emit]:
    """Join one prediction or label with what waits for it, or let time pass."""
    event: Any = record.event
    if record.known_ms > state.clock_ms:
        state.clock_ms = record.known_ms
    emits: list[Emit] = []
    kind = type(event)
    if kind is Answered or kind is LabelArrived:
        _label(state, record, event, emits)
    elif kind is Predicted:
        _prediction(state, record, event, emits)
    elif kind is PredictionMade:  # from a reader without our DECODERS
        _prediction(state, record, _decode_predicted(record.body), emits)
    else:
        return _in_band(state, record, event)
    if state.overdue:
        _expire(state, record, emits)
    return emits


def key_of(entity: str | None, record_id: str) -> str:
    """One key for an id and its entity; a pipeline either has entities or has none."""
    return record_id if entity is None else f"{len(entity)} {entity}{record_id}"


def _prediction(state: State, record: Record, event: Predicted, emits: list[Emit]) -> None:
    key = key_of(event.entity, event.id)
    mark = crc32(event.features)
    if key in state.pending:
        return _repeated(state, record, event, mark == state.pending[key].mark, emits)
    if key in state.done:
        return _repeated(state, record, event, mark == state.done[key].mark, emits)
    row = Waiting(state.number, record.known_ms, state.known_to, mark, record.body)
    state.number += 1
    early = state.early.pop(key, None) if state.early else None
    if early is not None and record.known_ms - early.known_ms > state.ttl_ms:
        emits.append(_unmatched(state, record, early))
        early = None
    if early is None:
        state.pending[key] = row
        if len(state.pending) > state.max_pending:
            _give_up_oldest(state)
    else:
        state.counts["early"] += 1
        _join(state, record, key, row, early.label, early.known_ms, emits)
        if early.latest != early.label:
            _correct(state, record, key, event, early.latest, early.latest_ms, emits)
    if state.number % FORGET_EVERY == 0:
        for old in list(islice(state.done, min(FORGET, max(0, len(state.done) - state.dedupe_ids)))):
            del state.done[old]
    return None


def _label(state: State, record: Record, event: Answered | LabelArrived, emits: list[Emit]) -> None:
    key = key_of(event.entity, event.id)
    row = state.pending.get(key)
    if row is None:
        return _label_alone(state, record, key, event, emits)
    late_ms = record.known_ms - row.known_ms - state.ttl_ms
    if late_ms > 0:  # the prediction waits on: a label known earlier may still come by a slower way
        state.counts["late"] += 1
        after_s = (late_ms + state.ttl_ms) / 1000
        emits.append(_reject(state, record, event, "label_too_late", (
            f"known {after_s:,.0f} s after its prediction; labels are taken for {state.ttl_ms / 1000:,.0f} s"
        )))
        return None
    del state.pending[key]
    return _join(state, record, key, row, event.label, record.known_ms, emits)


def _join(
    state: State, record: Record, key: str, row: Waiting, label: Label, labelled_at_ms: int, emits: list[Emit]
) -> None:
    """The first label decides: its row leaves `pending` before this is called."""
    state.done[key] = Done(row.mark, label, label)
    state.counts["joined"] += 1
    _labelled(state, record, row, label, labelled_at_ms, emits)


def _labelled(
    state: State, record: Record, row: Waiting, label: Label, labelled_at_ms: int, emits: list[Emit],
    inferred: bool = False,
) -> None:
    if row.number == state.pending_from:
        _find_oldest(state)
    state.known_to = record.offset * SEQUENCES_PER_OFFSET + len(emits)
    joined = Joined(
        prediction=msgspec.Raw(row.body), label=label, predicted_at_ms=row.known_ms, labelled_at_ms=labelled_at_ms,
        partition=record.partition, number=row.number, pending_from=state.pending_from, known_to=row.known_to,
        inferred=inferred,
    )
    emits.append(Emit(LABELLED, joined, record.key, 0, "", None, EXAMPLE_LABELLED))


def _find_oldest(state: State) -> None:
    """The oldest prediction left: find the next one that waits."""
    oldest = next(iter(state.pending), None)
    state.pending_from = state.number if oldest is None else state.pending[oldest].number


def _label_alone(state: State, record: Record, key: str, event: Answered | LabelArrived, emits: list[Emit]) -> None:
    """A label without a waiting prediction: a repeat, a correction, too late, or early."""
    done = state.done.get(key)
    if done is not None:
        if done.first is None:
            state.counts["late"] += 1
            detail = f"its prediction was given up: older than {(state.ttl_ms + state.grace_ms) / 1000:,.0f} s, or one too many"
            emits.append(_reject(state, record, event, "label_too_late", detail))
        elif done.latest == event.label:
            state.counts["repeats"] += 1
        else:
            _correct(state, record, key, event, event.label, record.known_ms, emits)
        return
    early = state.early.get(key)
    if early is not None and early.latest == event.label:
        state.counts["repeats"] += 1
        return
    if early is None:
        early = Early(event.label, record.known_ms, event.label, record.known_ms, record.offset, record.body)
    else:
        early = msgspec.structs.replace(early, latest=event.label, latest_ms=record.known_ms)
    state.early[key] = early
    if len(state.early) > state.max_pending:
        emits.append(_unmatched(state, record, state.early.pop(next(iter(state.early)))))


def _correct(
    state: State, record: Record, key: str, event: Predicted | Answered | LabelArrived, label: Label, known_ms: int,
    emits: list[Emit],
) -> None:
    done = state.done[key]
    assert done.first is not None
    state.done[key] = Done(done.mark, done.first, label)
    state.counts["corrected"] += 1
    corrected = LabelCorrected(
        id=event.id, first=done.first, corrected=label, labelled_at_ms=known_ms, entity=event.entity
    )
    emits.append(Emit(LABELLED, corrected, record.key, 0))


def _repeated(state: State, record: Record, event: Predicted, same: bool, emits: list[Emit]) -> None:
    """A second prediction of one id, which the validator's window had forgotten or another partition's could not see."""
    if same:
        state.counts["repeats"] += 1
        return
    state.counts["conflicts"] += 1
    detail = "this id was predicted before with other features; give every example an id of its own"
    emits.append(_reject(state, record, event, "id_conflict", detail))


def _in_band(state: State, record: Record, event: Any) -> list[Emit]:
    emits: list[Emit] = []
    if isinstance(event, PipelineReleased):
        if event.release <= state.release:
            return emits
        _take_up(state, event)
    elif isinstance(event, Tick):
        _expire(state, record, emits)
        event = msgspec.structs.replace(event, pending_from=state.pending_from)
        return [*emits, Emit(LABELLED, event, record.key, 0)]
    elif not isinstance(event, PipelineRetired):
        raise TypeError(f"{type(event).__name__} at offset {record.offset} is no event of {record.topic}")
    return [Emit(LABELLED, event, record.key, 0, body=record.body)]


def _take_up(state: State, event: PipelineReleased) -> None:
    policies = event.definition.policies
    labels = policies.labels
    state.release = event.release
    state.ttl_ms, state.grace_ms = int(labels.ttl_s * 1000), int(labels.grace_s * 1000)
    state.max_pending, state.on_timeout = labels.max_pending, labels.on_timeout
    state.dedupe_ids = policies.retention.dedupe_ids


def _expire(state: State, record: Record, emits: list[Emit]) -> None:
    """Give up what waited longer than TTL and grace, oldest first; what one step cannot tell waits for the next."""
    room = OUTPUTS_PER_STEP - 1 - len(emits)
    since_ms = state.clock_ms - state.ttl_ms - state.grace_ms
    due = list(takewhile(lambda item: item[1].known_ms < since_ms, islice(state.pending.items(), room)))
    for key, row in due:
        del state.pending[key]
        state.done[key] = Done(row.mark)
    state.counts["expired"] += len(due)
    if due:
        _find_oldest(state)
    if state.on_timeout != "missing":
        for _, row in due:
            _labelled(state, record, row, state.on_timeout, state.clock_ms, emits, inferred=True)
    left = room - len(due)
    lost = list(takewhile(lambda item: item[1].known_ms < since_ms, islice(state.early.items(), left)))
    for key, early in lost:
        del state.early[key]
        emits.append(_unmatched(state, record, early))
    state.overdue = len(due) + len(lost) == room


def _give_up_oldest(state: State) -> None:
    """More wait than allowed: the oldest is given up, as if its label had never come."""
    key = next(iter(state.pending))
    state.done[key] = Done(state.pending.pop(key).mark)
    state.counts["dropped"] += 1
    _find_oldest(state)


def _unmatched(state: State, record: Record, early: Early) -> Emit:
    """A label that waited in vain: its example was rejected, or never came."""
    state.counts["unmatched"] += 1
    detail = "no example with this id was predicted while the label waited"
    place = msgspec.structs.replace(record, offset=early.offset, body=early.body)
    return _reject(state, place, _decode_answered(early.body), "label_without_example", detail)


def _reject(state: State, record: Record, event: Predicted | Answered | LabelArrived, code: str, detail: str) -> Emit:
    key = (event.entity or event.id).encode()
    rejected = RecordRejected(
        id=event.id, topic=record.pipeline + record.topic[3:], partition=record.partition, offset=record.offset,
        problems=[Problem(code=code, message=detail)], value=record.body, key=key, release=state.release,
    )
    return Emit(REJECTED, rejected, event.id.encode(), record.partition)


__all__ = ["DECODERS", "TABLES", "State", "World", "encode", "example_world", "step"]
