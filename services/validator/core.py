"""The validator: checks every record against the contract, drops repeats, sums up each window.

Every example and label ends in exactly one of validated, rejected, counted as a duplicate. Records that are canonical
already (nearly all) are checked while they are decoded and forwarded byte for byte.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from zlib import crc32

import msgspec

from headrace.contract import digest
from headrace.schemas.codec import TYPE_OF, Undecodable, decode, header
from headrace.schemas.contract import ContractSpec
from headrace.schemas.control import PipelineReleased, PipelineRetired
from headrace.schemas.record import BEFORE_ALL_MS, Emit, Record
from headrace.schemas.signing import is_signed
from headrace.schemas.stream import Problem, RecordRejected, Tick
from headrace.services.validator.compiled import MAX_BYTES, Compiled, compile_contract, encode
from headrace.services.validator.examine import EXAMPLE, LABEL, OURS, Refused, examine
from headrace.services.validator.reasons import problem
from headrace.services.validator.seen import SAME, forget, remember_example, remember_label, seen_key
from headrace.services.validator.tidy import Accepted, Arrival, accepted, tidy
from headrace.services.validator.times import AHEAD, EARLIEST, minute_end, to_datetime
from headrace.services.validator.window import Window, count_extras, count_reject, window_event

VALIDATED, REJECTED, RESULTS = "<p>.data-validated", "<p>.data-rejected", "validation-results"
TABLES: dict[str, type] = {"examples": bytes, "labels": bytes}

WINDOW_RECORDS = 1_000  # bounds the rows kept for the summary
KEPT_KEY = 1_000  # bytes of a reject's key: a reject must fit into a message whatever came
CONTRACTS = 256  # compiled and kept

IN_BAND = {TYPE_OF[kind] for kind in (Tick, PipelineReleased, PipelineRetired)}
_EXAMPLE_HEADER, _LABEL_HEADER = ("ce_type", EXAMPLE.encode()), ("ce_type", LABEL.encode())
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_astuple = msgspec.structs.astuple

# Follows from the contract alone, so it may outlive and precede any state.
_compiled: dict[str, Compiled] = {}


@dataclass(frozen=True)
class World:
    """The key that signs markers and ticks."""

    key: bytes


@dataclass(slots=True)
class State:
    """The release in force, the ids accepted, the window.

    `examples` and `labels` are keyed by id (and entity), each bounded by `dedupe_ids`: the place and fingerprint of
    the first example, the newest label. `contract_digest` is empty while no record can be taken.
    """

    examples: MutableMapping[str, bytes] = field(default_factory=dict)
    labels: MutableMapping[str, bytes] = field(default_factory=dict)
    release: int = 0
    partitions: int = 0
    contract: ContractSpec | None = None
    contract_digest: str = ""
    dedupe_ids: int = 1
    retired: bool = False
    clock_ms: int = BEFORE_ALL_MS
    minute_end_ms: int = BEFORE_ALL_MS
    latest: datetime = EARLIEST
    last_tick: datetime | None = None
    window: Window = field(default_factory=Window)


def example_world() -> World:
    """A world for the laws."""
    return World(key=b"example")


def step(state: State, record: Record, world: World) -> list[Emit]:
    """Take one record of `<p>.data-arrived` to its fate; pass in-band events on to every partition."""
    if record.known_ms > state.clock_ms:
        _pass_time(state, record.known_ms)
    event_type = _event_type(record.headers)
    if event_type in IN_BAND:
        return _in_band(state, record, world, event_type)
    c = _compiled.get(state.contract_digest) or _compile(state)
    if c is None:
        emits = _reject(state, record, _place_id(record), [_closed(state)])
    elif event_type == EXAMPLE or (event_type is None and b'"features"' in record.body):
        emits = _forward_example(state, record, c, event_type)
    elif event_type == LABEL or event_type is None:
        emits = _forward_label(state, record, c, event_type)
    else:
        emits = _look_closer(state, record, c, event_type)
    window = state.window
    window.records += 1
    if window.records >= WINDOW_RECORDS:
        return [*emits, _close(state, record)]
    return emits


def _event_type(headers: Any) -> str | None:
    """What the envelope says the record is, in our words; None where its shape must tell."""
    if headers and len(headers) > 3:
        fourth = headers[3]
        if fourth == _EXAMPLE_HEADER:
            return EXAMPLE
        if fourth == _LABEL_HEADER:
            return LABEL
    named = header(headers, "ce_type", 3)
    return named if named is not None and named.startswith(OURS) else None


def _forward_example(state: State, record: Record, c: Compiled, event_type: str | None) -> list[Emit]:
    """The bytes as they stand, where they are canonical: one decoder has then checked columns, types and bounds.

    An inline label is the one thing taken apart here, since many write it.
    """
    body = record.body
    try:
        example = c.decode_example(body)
    except _UNREADABLE:
        return _look_closer(state, record, c, event_type)
    row = _astuple(example.features)
    label = example.label
    quotes = c.quotes_of(row) if c.optional else c.quotes
    if example.history:
        quotes += 2
    if label is not None:
        quotes += c.inline_quotes
    if body.count(b'"') != quotes or len(body) > MAX_BYTES or not EARLIEST <= example.time <= state.latest:
        return _look_closer(state, record, c, event_type)
    if label is not None:
        return _take(
            state, record, c, accepted(c, example.id, example.time, example.entity, row, label, example.history, [])
        )
    entity, example_id = example.entity, example.id
    mark = c.layout | crc32(c.fingerprint(*row))
    first = remember_example(state.examples, seen_key(example_id, entity), mark, record.offset)
    if first is not None:
        return _repeated(state, record, example_id, first)
    window = state.window
    window.validated += 1
    window.rows.append(row)
    return [Emit(VALIDATED, example, (entity or example_id).encode(), None, "", body, EXAMPLE)]


def _forward_label(state: State, record: Record, c: Compiled, event_type: str | None) -> list[Emit]:
    """The bytes as they stand, where they are a canonical label."""
    body = record.body
    try:
        label = c.decode_label(body)
    except _UNREADABLE:
        return _look_closer(state, record, c, event_type)
    if body.count(b'"') != c.label_quotes or len(body) > MAX_BYTES or not EARLIEST <= label.time <= state.latest:
        return _look_closer(state, record, c, event_type)
    if not remember_label(state.labels, seen_key(label.id, label.entity), encode(label.label)):
        state.window.duplicates += 1
        return []
    state.window.labels += 1
    return [Emit(VALIDATED, label, (label.entity or label.id).encode(), None, "", body, LABEL)]


def _look_closer(state: State, record: Record, c: Compiled, event_type: str | None) -> list[Emit]:
    arrival = Arrival(_place_id(record), to_datetime(record.known_ms), state.latest)
    found: Accepted | Refused | None = None
    if event_type in (EXAMPLE, None):
        found = tidy(c, record.body, arrival)
    if found is None:
        found = examine(c, event_type, record.body, arrival)
    if isinstance(found, Refused):
        return _reject(state, record, found.id, found.problems)
    return _take(state, record, c, found)


def _take(state: State, record: Record, c: Compiled, found: Accepted) -> list[Emit]:
    """A record made canonical: its example, then its label, each where it is new."""
    window = state.window
    emits: list[Emit] = []
    example, label = found.example, found.label
    if example is not None:
        mark = c.layout | crc32(c.fingerprint(*found.row))
        first = remember_example(state.examples, seen_key(example.id, example.entity), mark, record.offset)
        if first is None:
            emits.append(Emit(VALIDATED, example, (example.entity or example.id).encode()))
            window.rows.append(found.row)
        elif first != SAME or label is None:
            return _repeated(state, record, example.id, first)
    if label is not None and remember_label(state.labels, seen_key(label.id, label.entity), encode(label.label)):
        emits.append(Emit(VALIDATED, label, (label.entity or label.id).encode()))
    count_extras(window, found.extras)
    if not emits:
        window.duplicates += 1
    elif emits[0].event is example:
        window.validated += 1
    else:
        window.labels += 1
    return emits


def _repeated(state: State, record: Record, example_id: str, first: int) -> list[Emit]:
    if first == SAME:
        state.window.duplicates += 1
        return []
    detail = f"this id came at offset {first} with other features; give every example an id of its own"
    return _reject(state, record, example_id, [problem("id_conflict", detail)])


def _reject(state: State, record: Record, record_id: str, problems: list[Problem]) -> list[Emit]:
    count_reject(state.window, problems)
    event = RecordRejected(
        id=record_id,
        topic=record.pipeline + record.topic[3:],
        partition=record.partition,
        offset=record.offset,
        problems=problems,
        value=record.body[:MAX_BYTES],
        key=record.key[:KEPT_KEY] if record.key else None,
        release=state.release,
    )
    return [Emit(REJECTED, event, record_id.encode())]


def _closed(state: State) -> Problem:
    if state.retired:
        return problem("after_retirement", "the pipeline is retired; its name is never used again")
    return problem("before_first_release", "the pipeline is not released yet; release it, then publish this again")


def _in_band(state: State, record: Record, world: World, event_type: str) -> list[Emit]:
    try:
        event = decode(event_type, record.body)
        authentic = event.pipeline == record.pipeline and event.signature.isascii() and is_signed(world.key, event)
    except Undecodable:
        authentic = False
    if not authentic:
        state.window.records += 1
        detail = f"{event_type} is written by the system only, signed, for {record.pipeline}"
        return _reject(state, record, _place_id(record), [problem("marker_not_signed", detail)])
    if isinstance(event, Tick):
        if state.last_tick is not None and event.due <= state.last_tick:
            return []
        emits = _close_if_any(state, record)
        state.last_tick = event.due
    elif isinstance(event, PipelineReleased):
        if event.release <= state.release or state.retired:
            return []
        emits = _close_if_any(state, record)
        _take_up(state, event)
    else:
        if state.retired or state.release == 0:
            return []
        emits = _close_if_any(state, record)
        state.retired, state.contract_digest = True, ""
    key = record.pipeline.encode()
    return emits + [Emit(VALIDATED, event, key, partition, body=record.body) for partition in range(state.partitions)]


def _take_up(state: State, event: PipelineReleased) -> None:
    """The new definition is in force; the ids stay."""
    contract = event.definition.contract
    state.release, state.partitions = event.release, event.partitions
    state.contract, state.contract_digest = contract, digest(contract)
    state.dedupe_ids = event.definition.policies.retention.dedupe_ids


def _compile(state: State) -> Compiled | None:
    if not state.contract_digest or state.contract is None:
        return None
    if len(_compiled) >= CONTRACTS:
        _compiled.clear()
    return _compiled.setdefault(state.contract_digest, compile_contract(state.contract))


def _close_if_any(state: State, record: Record) -> list[Emit]:
    return [_close(state, record)] if state.window.records else []


def _close(state: State, record: Record) -> Emit:
    """End the window after this record: its event; and forget ids beyond the bound."""
    event = window_event(state.window, record, state.clock_ms, state.release, state.contract)
    state.window = Window(start_offset=record.offset + 1, start_ms=state.clock_ms)
    forget(state.examples, state.dedupe_ids)
    forget(state.labels, state.dedupe_ids)
    return Emit(RESULTS, event, record.pipeline.encode(), 0)


def _pass_time(state: State, known_ms: int) -> None:
    state.clock_ms = known_ms
    if state.window.start_ms is None:
        state.window.start_ms = known_ms
    if known_ms >= state.minute_end_ms:
        state.minute_end_ms = minute_end(known_ms)
        state.latest = to_datetime(state.minute_end_ms) + AHEAD


def _place_id(record: Record) -> str:
    return f"{record.pipeline}{record.topic[3:]}-{record.partition}-{record.offset}"
