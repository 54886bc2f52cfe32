"""Data events → rows. Pure; the hot part of the recorder, so it works on batches and makes columns, not rows.

`Batch` holds the undecoded records of one event in one partition. Records that cannot be decoded leave the batch as
faults; all others give rows.
"""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from headrace.schemas.contract import ContractSpec
from headrace.services.recorder import lean
from headrace.services.recorder.arrow import arrow_columns, arrow_rows, same_value
from headrace.services.recorder.scores import answers, log_losses, number, text
from headrace.services.recorder.tables import (
    LABELLED_EXAMPLES,
    LABELS,
    PREDICTIONS,
    FeatureColumn,
    Table,
    feature_columns,
    features_table,
)

Row = tuple[Any, ...]
Rows = defaultdict[str, list[Row]]  # by table; a row has its table's columns in order

KNOWN_MS = (-62_135_596_800_000, 253_402_300_799_999)  # years 1 to 9999, what a TIMESTAMPTZ is shown as


class Batch:
    """Records of one event in one partition: what was read of each. `headers` only where rows need them."""

    __slots__ = ("bodies", "headers", "known_ms", "offsets", "partition")

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.offsets: list[int] = []
        self.known_ms: list[int] = []
        self.bodies: list[bytes] = []
        self.headers: list[Any] = []


class Fault(msgspec.Struct):
    """A record that no retry can fix, and why."""

    offset: int
    known_ms: int
    reason: str
    body: bytes


class Made:
    """What the next commit puts into the store: rows and Arrow tables, by the name of their table."""

    def __init__(self) -> None:
        self.rows: Rows = defaultdict(list)
        self.parts: defaultdict[str, list[Any]] = defaultdict(list)

    def all(self, tables: Mapping[str, Table]) -> list[tuple[str, Any]]:
        """One Arrow table for each table that gets rows."""
        for name, rows in self.rows.items():
            self.parts[name].append(arrow_rows(tables[name], rows))
        self.rows.clear()
        return [(name, pa.concat_tables(parts)) for name, parts in self.parts.items()]


class PipelineRows:
    """How one pipeline's events become rows; made anew when a release adds a feature."""

    def __init__(self, pipeline: str, contracts: list[ContractSpec]) -> None:
        self.pipeline = pipeline
        self.features: tuple[FeatureColumn, ...] = feature_columns(contracts)
        self.table = features_table(pipeline, self.features)
        self.label_type = contracts[-1].label.type
        self.makers: dict[str, tuple[tuple[lean.Decode, ...], Callable[[list[Any], Batch, Made], None]]] = {
            "PredictionMade": (
                (lean.prediction_decoder(self.features), lean.decode_predicted_anything), self._add_predictions
            ),
            "LabelArrived": ((lean.decode_label,), self._add_labels),
            "ExampleLabelled": ((lean.decode_labelled, lean.decode_labelled_anything), self._add_labelled),
            "LabelCorrected": ((lean.decode_corrected,), self._add_corrections),
            "RecordRejected": ((lean.decode_rejected,), self._add_rejects),
        }

    def add(self, event: str, batch: Batch, made: Made) -> list[Fault]:
        """Make the rows of a batch; returns what could not be decoded."""
        decoders, maker = self.makers[event]
        events, faults = decoded(batch, *decoders)
        if events:
            maker(events, batch, made)
        return faults

    def _add_predictions(self, events: list[Any], batch: Batch, made: Made) -> None:
        n = len(events)
        values, other = self._features(events)
        examples = arrow_columns(self.table, {
            "id": [e.id for e in events], "entity": [e.entity for e in events], "event_time": [e.time for e in events],
            "known_at": batch.known_ms, "release": [e.release for e in events], "served": [e.served for e in events],
            "cold": [e.cold for e in events], "history": [e.history for e in events],
            "log_partition": same_value(batch.partition, n), "log_offset": batch.offsets,
            "origin_partition": [e.origin.partition for e in events], "origin_offset": [e.origin.offset for e in events],
            "other": other, **{f.column.name: value for f, value in zip(self.features, values, strict=True)},
        })
        made.parts[self.table.name].append(examples)
        predictions = [e.predictions for e in events]
        for alias in lean.aliases(predictions):
            arms = lean.arms(predictions, alias)
            rows = range(n) if None not in arms else [row for row, arm in enumerate(arms) if arm is not None]
            if rows:
                made.parts[PREDICTIONS.name].append(self._arm_rows(
                    alias, [arm for arm in arms if arm is not None], [events[row] for row in rows],
                    examples if len(rows) == n else examples.take(rows),
                ))

    def _arm_rows(self, alias: str, arms: list[Any], events: list[Any], examples: Any) -> Any:
        n = len(arms)
        values = [arm.value for arm in arms]
        return arrow_columns(PREDICTIONS, {
            "pipeline": same_value(self.pipeline, n), "alias": same_value(alias, n), **_model(arms),
            **_answers(values, self.label_type),
            "probabilities": [_encode(v) if type(v) is dict else None for v in values] if dict in map(type, values) else None,
            "error": [arm.error for arm in arms], "served": [e.served == alias for e in events],
            "epoch": [e.epoch for e in events], **{name: examples[name] for name in OF_THE_EXAMPLE},
        })

    def _features(self, events: list[Any]) -> tuple[list[Sequence[Any]], list[bytes | None] | None]:
        astuple = msgspec.structs.astuple
        if not any(type(e) is lean.PredictedAnything for e in events):
            columns: list[Sequence[Any]] = list(zip(*[astuple(e.features) for e in events], strict=True))
            return columns, None
        values, other = [], []
        for e in events:
            if isinstance(e.features, dict):
                row, rest = self._sort_out(e.features)
                values.append(row)
                other.append(rest)
            else:
                values.append(astuple(e.features))
                other.append(None)
        return list(zip(*values, strict=True)), other

    def _sort_out(self, features: dict[str, Any]) -> tuple[tuple[Any, ...], bytes | None]:
        row = tuple(features.pop(f.feature) if _fits(features.get(f.feature), f.type) else None for f in self.features)
        try:
            return row, _encode(features) if features else None
        except (OverflowError, ValueError):  # a whole number beyond 64 bits
            return row, _encode({name: str(value) for name, value in features.items()})

    def _add_labelled(self, events: list[Any], batch: Batch, made: Made) -> None:
        n = len(events)
        before = [e.prediction for e in events]
        labels = [e.label for e in events]
        arms = _served(before)
        values = [arm.value for arm in arms]
        answered = _answers(values, self.label_type)
        names = [text(label) for label in labels]
        numbers = [number(label) for label in labels]
        regression = self.label_type == "float"
        made.parts[LABELLED_EXAMPLES.name].append(arrow_columns(LABELLED_EXAMPLES, {
            "pipeline": same_value(self.pipeline, n), "id": [p.id for p in before], "entity": [p.entity for p in before],
            "event_time": [p.time for p in before], "label": names, "label_value": numbers,
            "served": [p.served for p in before], **_model(arms), **answered,
            "correct": None if regression else [
                None if p is None else p == name for p, name in zip(answered["prediction"], names, strict=True)
            ],
            "log_loss": None if regression else log_losses(values, labels),
            "error": [
                None if score is None or value is None else score - value
                for score, value in zip(answered["score"], numbers, strict=True)
            ] if regression else None,
            "predicted_at": [e.predicted_at_ms for e in events], "labelled_at": [e.labelled_at_ms for e in events],
            "label_delay_s": [(e.labelled_at_ms - e.predicted_at_ms) / 1000 for e in events],
            "inferred": [e.inferred for e in events], "history": [p.history for p in before],
            "cold": [p.cold for p in before], "release": [p.release for p in before], "epoch": [p.epoch for p in before],
            "majority": [text(p.baselines.majority) for p in before], "mean": [p.baselines.mean for p in before],
            "last": [text(p.baselines.last) for p in before], "number": [e.number for e in events],
            "pending_from": [e.pending_from for e in events], "known_to": [e.known_to for e in events],
            "log_partition": same_value(batch.partition, n), "log_offset": batch.offsets,
            "origin_partition": [p.origin.partition for p in before], "origin_offset": [p.origin.offset for p in before],
        }))

    def _add_labels(self, events: list[Any], batch: Batch, made: Made) -> None:
        labels = [e.label for e in events]
        made.parts[LABELS.name].append(arrow_columns(LABELS, {
            "pipeline": same_value(self.pipeline, len(events)), "id": [e.id for e in events],
            "entity": [e.entity for e in events], "event_time": [e.time for e in events], "known_at": batch.known_ms,
            "label": [text(label) for label in labels], "label_value": [number(label) for label in labels],
            "log_partition": same_value(batch.partition, len(events)), "log_offset": batch.offsets,
        }))

    def _add_corrections(self, events: list[Any], batch: Batch, made: Made) -> None:
        made.rows["label_corrections"] += [
            (self.pipeline, e.id, e.entity, text(e.first), text(e.corrected), e.labelled_at_ms, batch.partition, offset)
            for e, offset in zip(events, batch.offsets, strict=True)
        ]

    def _add_rejects(self, events: list[Any], batch: Batch, made: Made) -> None:
        for e, offset, known_ms in zip(events, batch.offsets, batch.known_ms, strict=True):
            first = e.problems[0] if e.problems else lean.Problem("", "")
            made.rows["rejects"].append((
                self.pipeline, e.id, known_ms, first.code, first.message,
                [{"code": p.code, "feature": p.feature, "message": p.message} for p in e.problems],
                e.topic, e.partition, e.offset, e.key, e.value, e.release, batch.partition, offset,
            ))


def decoded(batch: Batch, decode: lean.Decode, *others: lean.Decode) -> tuple[list[Any], list[Fault]]:
    """The batch's events, each by the first decoder that takes it.

    Records that none takes, or of an impossible time, leave the batch as faults.
    """
    if KNOWN_MS[0] <= min(batch.known_ms) and max(batch.known_ms) <= KNOWN_MS[1]:
        try:
            return [decode(body) for body in batch.bodies], []
        except (ValueError, RecursionError):
            pass
    events, faults, kept = [], [], []
    for index, (offset, known_ms, body) in enumerate(zip(batch.offsets, batch.known_ms, batch.bodies, strict=True)):
        try:
            if not KNOWN_MS[0] <= known_ms <= KNOWN_MS[1]:
                raise ValueError(f"its timestamp, {known_ms} ms, is in no year from 1 to 9999")
            events.append(_first(body, decode, *others))
            kept.append(index)
        except (ValueError, RecursionError) as error:
            faults.append(Fault(offset, known_ms, str(error), body))
    for name in ("offsets", "known_ms", "bodies", "headers"):
        old = getattr(batch, name)
        setattr(batch, name, [old[index] for index in kept] if old else [])
    return events, faults


def _first(body: bytes, *decoders: lean.Decode) -> Any:
    *some, last = decoders
    for decode in some:
        try:
            return decode(body)
        except ValueError:
            continue
    return last(body)


def from_base64(value: str) -> bytes:
    """The bytes that an event holds as base64; those of the text where it is none."""
    try:
        return base64.b64decode(value, validate=True)
    except ValueError:
        return value.encode()


OF_THE_EXAMPLE = (
    "id", "entity", "known_at", "release", "log_partition", "log_offset", "origin_partition", "origin_offset",
)
_encode = msgspec.json.Encoder().encode


def _model(arms: list[Any]) -> dict[str, list[Any]]:
    return {
        "version": [arm.version for arm in arms], "run": [arm.run for arm in arms],
        "learned_to": [arm.learned_to for arm in arms],
    }


def _answers(values: list[Any], label_type: str) -> dict[str, list[Any]]:
    predictions, scores = answers(values, label_type)
    return {"prediction": predictions, "score": scores}


def _served(before: list[Any]) -> list[lean.Arm]:
    """The arm whose answer was served."""
    if any(type(p.predictions) is dict for p in before):
        return [
            lean.arms([p.predictions], p.served)[0] or lean.NO_ARM if p.served is not None else lean.NO_ARM for p in before
        ]
    return [getattr(p.predictions, p.served or "", None) or lean.NO_ARM for p in before]


def _fits(value: Any, type_name: str) -> bool:
    if type_name == "float":
        return isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53)
    if type_name == "int":
        return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
    return isinstance(value, bool if type_name == "bool" else str)


__all__ = ["Batch", "Fault", "Made", "PipelineRows", "Row", "Rows", "decoded", "from_base64"]
