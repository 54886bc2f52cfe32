"""Control events → rows: releases, runs, verdicts, aliases, scores, windows, lineage, dead letters. Pure."""

from __future__ import annotations

import base64
import json
from typing import Any

from headrace.schemas import control
from headrace.schemas.codec import ORIGIN, TYPE_OF, header
from headrace.schemas.record import Record
from headrace.services.recorder.batch import Row, Rows

RUN_EVENTS = (
    control.TrainingRequested,
    control.RunStarted,
    control.RunEnded,
    control.TrainingFailed,
    control.TrainingCompleted,
)


def add(record: Record, rows: Rows) -> None:
    """Append the rows that one record of a control topic or of `<p>.snapshots` makes."""
    event: Any = record.event
    place = (record.partition, record.offset)
    known_ms = record.known_ms
    if not isinstance(event, control.ControlEvent):
        return  # a Tick, in control-log
    if record.topic == "control-log":
        rows["events"].append(_event(record, place))
    match event:
        case control.ModelValidated():
            rows["validations"].append(_validation(event, known_ms, place))
        case control.ModelUpdated():
            rows["alias_history"].append(
                (
                    event.pipeline,
                    known_ms,
                    event.alias,
                    event.version,
                    event.run,
                    event.release,
                    event.previous_version,
                    event.follows,
                    event.snapshot_offset,
                    event.uri,
                    event.epoch,
                    event.reason,
                    event.forced_by,
                    event.share,
                    *place,
                )
            )
        case control.AliasRemoved():
            of_a_model = (None,) * 5  # release, previous_version, follows, snapshot_offset, uri
            head = (event.pipeline, known_ms, event.alias, None, event.run, *of_a_model)
            rows["alias_history"].append((*head, event.epoch, event.reason, None, None, *place))
        case control.WindowValidated() if record.topic == "validation-results":
            _add_window(event, place, rows)
        case control.MetricsUpdated():
            window_from, window_to = event.window or (None, None)
            rows["metrics"] += [
                (
                    event.pipeline,
                    known_ms,
                    event.alias,
                    event.version,
                    event.run,
                    event.scope,
                    event.slice,
                    metric,
                    value,
                    event.n,
                    event.coverage,
                    window_from,
                    window_to,
                    *place,
                )
                for metric, value in event.metrics.items()
            ]
        case control.SnapshotTaken():
            rows["revisions"] += [
                (
                    event.pipeline,
                    run,
                    event.offset,
                    known_ms,
                    snapshot.uri,
                    snapshot.digest,
                    snapshot.n_learned,
                    snapshot.fit,
                    [check.model_dump() for check in snapshot.checks],
                    _json(snapshot.metrics),
                    *place,
                )
                for run, snapshot in event.runs.items()
            ]
        case control.LineageRecorded():
            rows["lineage"].append((event.pipeline, known_ms, _json(event.run_event), *place))
        case control.FaultFound():
            rows["dead_letters"].append(
                (
                    event.pipeline,
                    known_ms,
                    event.service,
                    event.topic,
                    event.partition,
                    event.offset,
                    event.reason,
                    _from_base64(event.value),
                    *place,
                )
            )
        case _ if isinstance(event, RUN_EVENTS):
            rows["run_events"].append(_run_event(event, known_ms, place))


def release(event: control.PipelineReleased, known_ms: int) -> Row:
    """The row of a release, wherever it was met first: in control-log or in band."""
    definition = event.definition
    return (
        event.pipeline,
        event.release,
        known_ms,
        event.by,
        event.request,
        event.partitions,
        definition.description,
        definition.contract.model_dump_json(),
        definition.policies.model_dump_json(),
        definition.contract_digest,
        definition.recipe_digest,
        definition.source_digest,
        definition.source_uri,
    )


def dead_letter(
    pipeline: str, topic: str, place: tuple[int, int], known_ms: int | None, reason: str, value: bytes
) -> Row:
    """The row of a record that the recorder itself cannot read."""
    return (pipeline, known_ms, "recorder", topic, *place, reason, value, *place)


def _event(record: Record, place: tuple[int, int]) -> Row:
    event: Any = record.event
    name = TYPE_OF[type(event)].split(".")[1]
    return (
        event.pipeline,
        record.known_ms,
        name,
        header(record.headers, ORIGIN, 7),
        header(record.headers, "ce_correlationid", 5),
        header(record.headers, "ce_causationid", 6),
        # DuckDB's JSON has no NaN and no Infinity, which a control event's numbers may be
        record.body if b"NaN" not in record.body and b"Infinity" not in record.body else _json(json.loads(record.body)),
        *place,
    )


def _validation(event: control.ModelValidated, known_ms: int, place: tuple[int, int]) -> Row:
    return (
        event.pipeline,
        known_ms,
        event.run,
        event.request,
        event.stage,
        event.verdict,
        [check.model_dump() for check in event.checks],
        event.n_labels,
        event.offset,
        event.snapshot_uri,
        event.snapshot_offset,
        event.against,
        event.epoch,
        event.seconds,
        event.peak_mb,
        *place,
    )


def _run_event(event: Any, known_ms: int, place: tuple[int, int]) -> Row:
    def field(*names: str) -> Any:
        return next((value for name in names if (value := getattr(event, name, None)) is not None), None)

    return (
        event.pipeline,
        known_ms,
        type(event).__name__,
        field("request"),
        field("run"),
        field("trigger"),
        field("cause"),
        field("release"),
        field("recipe"),
        field("seed"),
        field("parent"),
        field("start_offset", "start"),
        field("end_offset", "offset"),
        field("n_labels", "end_at_labels"),
        field("reason"),
        *place,
    )


def _add_window(event: control.WindowValidated, place: tuple[int, int], rows: Rows) -> None:
    where = (event.partition, event.start_offset, event.end_offset, event.start_ms, event.end_ms)
    rows["windows"].append(
        (
            event.pipeline,
            *where,
            event.release,
            event.validated,
            event.labels,
            event.rejected,
            event.duplicates,
            _json(event.reasons),
            _json(event.extra_columns),
            event.verdict,
            *place,
        )
    )
    rows["feature_windows"] += [
        (
            event.pipeline,
            name,
            *where,
            f.n,
            f.missing,
            f.mean,
            f.sd,
            f.min,
            f.max,
            None if f.quantiles is None else list(f.quantiles),
            None if f.top is None else _json(f.top),
            *place,
        )
        for name, f in event.features.items()
    ]


def _json(value: Any) -> str:
    return json.dumps(_finite(value), ensure_ascii=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def _from_base64(value: str) -> bytes:
    """The bytes that an event holds as base64; those of the text where it is none."""
    try:
        return base64.b64decode(value, validate=True)
    except ValueError:
        return value.encode()
