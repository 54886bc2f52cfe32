"""Data events → rows. Pure; the hot part of the recorder, so it works on batches and makes columns, not rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from headrace.schemas.contract import ContractSpec
from headrace.services.recorder import lean
from headrace.services.recorder.arrow import arrow_columns, same_value, seconds_between
from headrace.services.recorder.batch import Batch, Fault, Made, decoded
from headrace.services.recorder.data_tables import LABELLED_EXAMPLES, LABELS, PREDICTIONS
from headrace.services.recorder.scores import answers, labels_as, outcomes, text, texts
from headrace.services.recorder.tables import FeatureColumn, feature_columns, features_table


class PipelineRows:
    """How one pipeline's events become rows; made anew when a release adds a feature."""

    def __init__(self, pipeline: str, contracts: list[ContractSpec]) -> None:
        self.pipeline = pipeline
        self.features: tuple[FeatureColumn, ...] = feature_columns(contracts)
        self.table = features_table(pipeline, self.features)
        self.label_type = contracts[-1].label.type
        self.makers: dict[str, tuple[tuple[lean.Decode, ...], Callable[[list[Any], Batch, Made], None]]] = {
            "PredictionMade": (lean.prediction_decoders(self.features), self._add_predictions),
            "LabelArrived": ((lean.decode_label,), self._add_labels),
            "ExampleLabelled": (lean.label_decoders(), self._add_labelled),
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
        of = lean.columns(events)
        values, other = self._features(of["features"])
        examples = arrow_columns(
            self.table,
            {
                "id": of["id"],
                "entity": of["entity"],
                "event_time": of["time"],
                "known_at": batch.known_ms,
                "release": of["release"],
                "served": of["served"],
                "cold": of["cold"],
                "history": of["history"],
                **batch.places(),
                **_origins(of["origin"]),
                "other": other,
                **{f.column.name: value for f, value in zip(self.features, values, strict=True)},
            },
        )
        made.parts[self.table.name].append(examples)
        for alias, arms in lean.by_alias(of["predictions"]).items():
            n = len(arms) - arms.count(None)
            if n == len(arms):
                made.parts[PREDICTIONS.name].append(self._arm_rows(alias, arms, of["served"], of["epoch"], examples))
            elif n:
                rows = [row for row, arm in enumerate(arms) if arm is not None]
                made.parts[PREDICTIONS.name].append(
                    self._arm_rows(
                        alias,
                        [arms[row] for row in rows],
                        [of["served"][row] for row in rows],
                        [of["epoch"][row] for row in rows],
                        examples.take(rows),
                    )
                )

    def _arm_rows(
        self, alias: str, arms: Sequence[Any], served: Sequence[Any], epochs: Sequence[int], examples: Any
    ) -> Any:
        of = lean.columns(arms)
        values = of["value"]
        with_classes = dict in map(type, values)
        return arrow_columns(
            PREDICTIONS,
            {
                "pipeline": same_value(self.pipeline, len(arms)),
                "alias": same_value(alias, len(arms)),
                "version": of["version"],
                "run": of["run"],
                "learned_to": of["learned_to"],
                **answers(values, self.label_type),
                "probabilities": [_encode(v) if isinstance(v, dict) else None for v in values]
                if with_classes
                else None,
                "error": of["error"],
                "served": [name == alias for name in served],
                "epoch": epochs,
                **{name: examples[name] for name in OF_THE_EXAMPLE},
            },
        )

    def _features(self, features: Sequence[Any]) -> tuple[Sequence[Sequence[Any]], list[bytes | None] | None]:
        """The values of each column, and what has none."""
        if dict not in map(type, features):
            return list(zip(*map(msgspec.structs.astuple, features), strict=True)), None
        both = [self._sort_out(f) if isinstance(f, dict) else (msgspec.structs.astuple(f), None) for f in features]
        return list(zip(*[row for row, _ in both], strict=True)), [rest for _, rest in both]

    def _sort_out(self, features: dict[str, Any]) -> tuple[tuple[Any, ...], bytes | None]:
        row = tuple(features.pop(f.feature) if _fits(features.get(f.feature), f.type) else None for f in self.features)
        return row, _encode(features) if features else None

    def _add_labelled(self, events: list[Any], batch: Batch, made: Made) -> None:
        of = lean.columns(events)
        before = lean.columns(of["prediction"])
        arm = lean.columns(lean.served_arms(before["predictions"], before["served"]))
        than = lean.columns(before["baselines"])
        made.parts[LABELLED_EXAMPLES.name].append(
            arrow_columns(
                LABELLED_EXAMPLES,
                {
                    "pipeline": same_value(self.pipeline, len(events)),
                    "id": before["id"],
                    "entity": before["entity"],
                    "event_time": before["time"],
                    "served": before["served"],
                    "version": arm["version"],
                    "run": arm["run"],
                    "learned_to": arm["learned_to"],
                    **outcomes(arm["value"], of["label"], self.label_type),
                    "predicted_at": of["predicted_at_ms"],
                    "labelled_at": of["labelled_at_ms"],
                    "label_delay_s": seconds_between(of["predicted_at_ms"], of["labelled_at_ms"]),
                    "inferred": of["inferred"],
                    "history": before["history"],
                    "cold": before["cold"],
                    "release": before["release"],
                    "epoch": before["epoch"],
                    "majority": texts(than["majority"]),
                    "mean": than["mean"],
                    "last": texts(than["last"]),
                    "number": of["number"],
                    "pending_from": of["pending_from"],
                    "known_to": of["known_to"],
                    **batch.places(),
                    **_origins(before["origin"]),
                },
            )
        )

    def _add_labels(self, events: list[Any], batch: Batch, made: Made) -> None:
        of = lean.columns(events)
        made.parts[LABELS.name].append(
            arrow_columns(
                LABELS,
                {
                    "pipeline": same_value(self.pipeline, len(events)),
                    "id": of["id"],
                    "entity": of["entity"],
                    "event_time": of["time"],
                    "known_at": batch.known_ms,
                    **labels_as(of["label"]),
                    **batch.places(),
                },
            )
        )

    def _add_corrections(self, events: list[Any], batch: Batch, made: Made) -> None:
        made.rows["label_corrections"] += [
            (self.pipeline, e.id, e.entity, text(e.first), text(e.corrected), e.labelled_at_ms, batch.partition, offset)
            for e, offset in zip(events, batch.offsets, strict=True)
        ]

    def _add_rejects(self, events: list[Any], batch: Batch, made: Made) -> None:
        for e, offset, known_ms in zip(events, batch.offsets, batch.known_ms, strict=True):
            first = e.problems[0] if e.problems else lean.Problem("", "")
            made.rows["rejects"].append(
                (
                    self.pipeline,
                    e.id,
                    known_ms,
                    first.code,
                    first.message,
                    [{"code": p.code, "feature": p.feature, "message": p.message} for p in e.problems],
                    e.topic,
                    e.partition,
                    e.offset,
                    e.key,
                    e.value,
                    e.release,
                    batch.partition,
                    offset,
                )
            )


OF_THE_EXAMPLE = (
    "id",
    "entity",
    "known_at",
    "release",
    "log_partition",
    "log_offset",
    "origin_partition",
    "origin_offset",
)
_encode = msgspec.json.Encoder().encode


def _origins(origins: Sequence[Any]) -> dict[str, Any]:
    of = lean.columns(origins)
    return {"origin_partition": of["partition"], "origin_offset": of["offset"]}


def _fits(value: Any, type_name: str) -> bool:
    if type_name == "float":
        return isinstance(value, float) or (
            isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53
        )
    if type_name == "int":
        return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
    return isinstance(value, bool if type_name == "bool" else str)
