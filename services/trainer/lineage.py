"""Runs as OpenLineage run events (https://openlineage.io/spec/2-0-2/OpenLineage.json)."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any, Literal

from headrace.schemas.control import LineageRecorded, RunStarted
from headrace.schemas.record import Emit

SCHEMA = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/definitions/RunEvent"
PRODUCER = "https://pypi.org/project/headrace"
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, PRODUCER)


def lineage(kind: Literal["START", "COMPLETE"], started: RunStarted, known_ms: int, why: str = "") -> Emit:
    """The start or end of a run: it reads `<p>.labelled-examples` and writes `<p>.snapshots`."""
    pipeline = started.pipeline
    run_id = str(uuid.uuid5(NAMESPACE, f"{pipeline}/{started.run}"))
    facet: dict[str, Any] = {
        "_producer": PRODUCER,
        "_schemaURL": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/definitions/RunFacet",
        "run": started.run,
        "request": started.request,
        "release": started.release,
        "seed": started.seed,
        "start_offset": started.start_offset,
        "parent": started.parent,
    }
    if why:
        facet["reason"] = why
    event = {
        "eventType": kind,
        "eventTime": datetime.fromtimestamp(known_ms / 1000, UTC).isoformat(timespec="milliseconds"),
        "producer": PRODUCER,
        "schemaURL": SCHEMA,
        "run": {"runId": run_id, "facets": {"headrace": facet}},
        "job": {"namespace": "headrace", "name": f"{pipeline}.trainer"},
        "inputs": [{"namespace": "kafka", "name": f"{pipeline}.labelled-examples"}],
        "outputs": [{"namespace": "kafka", "name": f"{pipeline}.snapshots"}],
    }
    recorded = LineageRecorded(pipeline=pipeline, run_event=event)
    return Emit("lineage", recorded, run_id.encode(), partition=0)
