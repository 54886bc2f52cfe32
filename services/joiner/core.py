"""The joiner: brings labels to their predictions. The order of what it writes is the order of learning.

The first label of an example decides. Labels may come before their prediction and wait for it; predictions wait for
the TTL and a grace, by the clock of the log. A prediction's bytes are kept and joined as they are, so a pair costs
a look at its ids and no second encoding (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import Any
from zlib import crc32

import msgspec

from headrace.schemas.codec import TYPE_OF
from headrace.schemas.control import PipelineReleased, PipelineRetired
from headrace.schemas.policies import Labels, Retention
from headrace.schemas.record import BEFORE_ALL_MS, OUTPUTS_PER_STEP, SEQUENCES_PER_OFFSET, Emit, Record
from headrace.schemas.stream import ExampleLabelled, Label, LabelCorrected, Problem, RecordRejected, Tick, key_of
from headrace.services.joiner.rows import (
    Answered,
    Done,
    Early,
    Joined,
    Predicted,
    Waiting,
    decode_answered,
    decode_predicted,
    log_key_of,
)

LABELLED, REJECTED = "<p>.labelled-examples", "<p>.data-rejected"
TABLES: dict[str, type] = {"pending": Waiting, "early": Early, "done": Done}
DECODERS = {"PredictionMade": decode_predicted, "LabelArrived": decode_answered}
EXAMPLE_LABELLED = TYPE_OF[ExampleLabelled]

FORGET_EVERY = 1_000  # predictions between two looks at the bound of `done`
FORGET = 10_000  # ids forgotten at one look, at most: still a short step
COUNTS = ("joined", "early", "late", "expired", "dropped", "unmatched", "corrected", "repeats", "conflicts")

World = type(None)


@dataclass(slots=True)
class State:
    """What waits, what is done, and counts since the partition's first record.

    `pending` and `early` hold at most `max_pending` each, `done` about `dedupe_ids`. `number` is the next
    prediction's, `pending_from` the oldest one's that waits, `known_to` the sequence of the last ExampleLabelled.
    `overdue`: more fell due than one step may tell.
    """

    pending: MutableMapping[str, Waiting] = field(default_factory=dict)
    early: MutableMapping[str, Early] = field(default_factory=dict)
    done: MutableMapping[str, Done] = field(default_factory=dict)
    number: int = 0
    pending_from: int = 0
    known_to: int = -1
    clock_ms: int = BEFORE_ALL_MS
    overdue: bool = False
    release: int = 0
    ttl_ms: int = int(Labels().ttl_s * 1000)
    grace_ms: int = int(Labels().grace_s * 1000)
    max_pending: int = Labels().max_pending
    on_timeout: Label = Labels().on_timeout
    dedupe_ids: int = Retention().dedupe_ids
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))


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
    if kind is Predicted:
        _prediction(state, record, event, emits)
    elif kind is Answered:
        _label(state, record, event, emits)
    else:
        _in_band(state, record, event, emits)
    if state.overdue and kind is not Tick:
        _expire(state, record, emits)
    return emits


def _prediction(state: State, record: Record, event: Predicted, emits: list[Emit]) -> None:
    key = key_of(event.id, event.entity)
    mark = crc32(event.features)
    first = state.pending.get(key) or state.done.get(key)
    if first is not None:
        _repeated(state, record, event, first.mark == mark, emits)
        return
    row = Waiting(state.number, record.known_ms, state.known_to, mark, record.body)
    state.number += 1
    early = state.early.pop(key, None) if state.early else None
    if early is not None and record.known_ms - early.known_ms > state.ttl_ms:
        emits.append(_unmatched(state, record, early))
        early = None
    if early is None:
        state.pending[key] = row
        if len(state.pending) > state.max_pending:
            _drop_oldest(state)
    else:
        state.counts["early"] += 1
        _join(state, record, key, row, early.label, early.known_ms, emits)
        if early.latest != early.label:
            _correct(state, record, key, event, early.latest, early.latest_ms, emits)
    if state.number % FORGET_EVERY == 0:
        for old in list(islice(state.done, min(FORGET, max(0, len(state.done) - state.dedupe_ids)))):
            del state.done[old]


def _label(state: State, record: Record, event: Answered, emits: list[Emit]) -> None:
    key = key_of(event.id, event.entity)
    row = state.pending.get(key)
    if row is None:
        _label_alone(state, record, key, event, emits)
        return
    after_ms = record.known_ms - row.known_ms
    if after_ms > state.ttl_ms:  # the prediction waits on: a label known in time may still come by a slower way
        state.counts["late"] += 1
        after_s, ttl_s = after_ms / 1000, state.ttl_ms / 1000
        detail = f"known {after_s:,.0f} s after its prediction; labels are taken for {ttl_s:,.0f} s"
        emits.append(_reject(state, record, event, "label_too_late", detail))
        return
    del state.pending[key]
    _join(state, record, key, row, event.label, record.known_ms, emits)


def _join(
    state: State, record: Record, key: str, row: Waiting, label: Label, labelled_at_ms: int, emits: list[Emit]
) -> None:
    state.done[key] = Done(row.mark, label, label)
    state.counts["joined"] += 1
    if row.number == state.pending_from:
        _find_oldest(state)
    _tell(state, record, row, label, labelled_at_ms, record.key, emits)


def _tell(
    state: State,
    record: Record,
    row: Waiting,
    label: Label,
    labelled_at_ms: int,
    key: bytes | None,
    emits: list[Emit],
    inferred: bool = False,
) -> None:
    """The joined row; it is the newest one that later predictions may have learned from."""
    state.known_to = record.offset * SEQUENCES_PER_OFFSET + len(emits)
    joined = Joined(
        prediction=msgspec.Raw(row.body),
        label=label,
        predicted_at_ms=row.known_ms,
        labelled_at_ms=labelled_at_ms,
        partition=record.partition,
        number=row.number,
        pending_from=state.pending_from,
        known_to=row.known_to,
        inferred=inferred,
    )
    emits.append(Emit(LABELLED, joined, key, 0, "", None, EXAMPLE_LABELLED))


def _find_oldest(state: State) -> None:
    """The oldest prediction waits no more: which is the oldest now."""
    oldest = next(iter(state.pending.values()), None)
    state.pending_from = state.number if oldest is None else oldest.number


def _label_alone(state: State, record: Record, key: str, event: Answered, emits: list[Emit]) -> None:
    """A label for which no prediction waits: too late, a repeat, a correction, or early."""
    done, early = state.done.get(key), state.early.get(key)
    if done is not None and done.first is None:
        state.counts["late"] += 1
        detail = "its prediction waits no more: it was given up after the labels' TTL and grace, or as one too many"
        emits.append(_reject(state, record, event, "label_too_late", detail))
    elif event.label in [known.latest for known in (done, early) if known is not None]:
        state.counts["repeats"] += 1
    elif done is not None:
        _correct(state, record, key, event, event.label, record.known_ms, emits)
    elif early is not None:
        state.early[key] = msgspec.structs.replace(early, latest=event.label, latest_ms=record.known_ms)
    else:
        state.early[key] = Early(event.label, record.known_ms, event.label, record.known_ms, record.offset, record.body)
        if len(state.early) > state.max_pending:
            emits.append(_unmatched(state, record, state.early.pop(next(iter(state.early)))))


def _correct(
    state: State, record: Record, key: str, event: Predicted | Answered, label: Label, known_ms: int, emits: list[Emit]
) -> None:
    """Another label than the newest one: told, never learned."""
    done = state.done[key]
    assert done.first is not None
    state.done[key] = Done(done.mark, done.first, label)
    state.counts["corrected"] += 1
    corrected = LabelCorrected(
        id=event.id, first=done.first, corrected=label, labelled_at_ms=known_ms, entity=event.entity
    )
    emits.append(Emit(LABELLED, corrected, record.key, 0))


def _repeated(state: State, record: Record, event: Predicted, same: bool, emits: list[Emit]) -> None:
    """A second prediction of an id: its copies met two partitions of the validator, or its window forgot the first."""
    if same:
        state.counts["repeats"] += 1
        return
    state.counts["conflicts"] += 1
    detail = "this id was predicted before, with other features; give every example an id of its own"
    emits.append(_reject(state, record, event, "id_conflict", detail))


def _in_band(state: State, record: Record, event: Any, emits: list[Emit]) -> None:
    """Pass it on; the first marker of a release changes the rules, a Tick says from where predictions still wait."""
    if isinstance(event, Tick):
        _expire(state, record, emits)
        event = msgspec.structs.replace(event, pending_from=state.pending_from, predicted=state.number)
        emits.append(Emit(LABELLED, event, record.key, 0))
    elif isinstance(event, PipelineReleased):
        if event.release > state.release:
            _take_up(state, event)
            emits.append(Emit(LABELLED, event, record.key, 0, body=record.body))
    elif isinstance(event, PipelineRetired):
        emits.append(Emit(LABELLED, event, record.key, 0, body=record.body))
    else:
        raise TypeError(f"{type(event).__name__} is no event of {record.topic}, or was not decoded by DECODERS")


def _take_up(state: State, event: PipelineReleased) -> None:
    labels = event.definition.policies.labels
    state.release = event.release
    state.ttl_ms, state.grace_ms = int(labels.ttl_s * 1000), int(labels.grace_s * 1000)
    state.max_pending, state.on_timeout = labels.max_pending, labels.on_timeout
    state.dedupe_ids = event.definition.policies.retention.dedupe_ids


def _expire(state: State, record: Record, emits: list[Emit]) -> None:
    """Give up what waited longer than TTL and grace, oldest first; more than one step may tell waits for the next."""
    room = OUTPUTS_PER_STEP - 1 - len(emits)  # one is the Tick's
    before_ms = state.clock_ms - state.ttl_ms - state.grace_ms
    due = list(_known_before(before_ms, state.pending, room))
    for key, row in due:
        del state.pending[key]
        state.done[key] = Done(row.mark)
    if due:
        state.counts["expired"] += len(due)
        _find_oldest(state)
        if state.on_timeout != "missing":
            for _, row in due:
                log_key = log_key_of(decode_predicted(row.body))
                _tell(state, record, row, state.on_timeout, state.clock_ms, log_key, emits, inferred=True)
    lost = list(_known_before(before_ms, state.early, room - len(due)))
    for key, early in lost:
        del state.early[key]
        emits.append(_unmatched(state, record, early))
    state.overdue = len(due) + len(lost) == room


def _known_before(ms: int, table: MutableMapping[str, Any], limit: int) -> Iterator[tuple[str, Any]]:
    return takewhile(lambda item: item[1].known_ms < ms, islice(table.items(), limit))


def _drop_oldest(state: State) -> None:
    """More wait than allowed: the oldest is given up, as if its label had never come; two, after the bound fell."""
    for key in list(islice(state.pending, min(2, len(state.pending) - state.max_pending))):
        state.done[key] = Done(state.pending.pop(key).mark)
        state.counts["dropped"] += 1
    _find_oldest(state)


def _unmatched(state: State, record: Record, early: Early) -> Emit:
    """A label that waited in vain: its example was rejected, or never came."""
    state.counts["unmatched"] += 1
    detail = "no example with this id was predicted while the label waited"
    place = msgspec.structs.replace(record, offset=early.offset, body=early.body)
    return _reject(state, place, decode_answered(early.body), "label_without_example", detail)


def _reject(state: State, record: Record, event: Predicted | Answered, code: str, detail: str) -> Emit:
    rejected = RecordRejected(
        id=event.id,
        topic=record.pipeline + record.topic[3:],
        partition=record.partition,
        offset=record.offset,
        problems=[Problem(code=code, message=detail)],
        value=record.body,
        key=log_key_of(event),
        release=state.release,
    )
    return Emit(REJECTED, rejected, event.id.encode(), record.partition)
