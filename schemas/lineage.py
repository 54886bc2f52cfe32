"""What happened as OpenLineage run events (https://openlineage.io/spec/2-0-2/OpenLineage.json): one shape for all who
tell lineage.

Topics are datasets of the namespace `kafka`, named without HEADRACE_NAMESPACE (folds do not know it); files are
datasets of `file`. What the specification has no facet for stands in a facet `headrace`.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from headrace.schemas.control import LineageRecorded

SPEC = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/"
FACETS = "https://openlineage.io/spec/facets/1-0-1/"
PRODUCER = "https://pypi.org/project/headrace"
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, PRODUCER)

State = Literal["START", "COMPLETE", "FAIL", "ABORT"]
Dataset = dict[str, Any]


def run_id(name: str) -> str:
    """The id of the run with this name, the same wherever it is made."""
    return str(uuid.uuid5(NAMESPACE, name))


def topic(name: str, **facts: Any) -> Dataset:
    """A topic, such as `rainfall.data-arrived`, with what is known of it."""
    return _dataset("kafka", name, facts)


def file(path: str, *, version: str | None = None, **facts: Any) -> Dataset:
    """A file or folder by its absolute path, where it has one in this version, with what is known of it."""
    found = _dataset("file", path, facts)
    if version is not None:
        schema = f"{FACETS}DatasetVersionDatasetFacet.json#/$defs/DatasetVersionDatasetFacet"
        found.setdefault("facets", {})["version"] = _facet(schema, datasetVersion=version)
    return found


def run_event(
    state: State,
    job: str,
    run: str,
    at_ms: int,
    *,
    pipeline: str = "",
    inputs: Sequence[Dataset] = (),
    outputs: Sequence[Dataset] = (),
    facts: Mapping[str, Any] | None = None,
    error: str | None = None,
) -> LineageRecorded:
    """The run `run` (an id of `run_id`) of a job passed into a state at a time; `error` says why it failed."""
    facets: dict[str, Any] = {}
    if facts:
        facets["headrace"] = _facet(f"{SPEC}RunFacet", **facts)
    if error is not None:
        schema = f"{FACETS}ErrorMessageRunFacet.json#/$defs/ErrorMessageRunFacet"
        facets["errorMessage"] = _facet(schema, message=error, programmingLanguage="python")
    event = {
        "eventType": state,
        "eventTime": datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds"),
        "producer": PRODUCER,
        "schemaURL": f"{SPEC}RunEvent",
        "run": {"runId": run, "facets": facets},
        "job": {"namespace": "headrace", "name": job},
        "inputs": list(inputs),
        "outputs": list(outputs),
    }
    return LineageRecorded(pipeline=pipeline, run_event=event)


def _dataset(namespace: str, name: str, facts: Mapping[str, Any]) -> Dataset:
    found: Dataset = {"namespace": namespace, "name": name}
    return found | {"facets": {"headrace": _facet(f"{SPEC}DatasetFacet", **facts)}} if facts else found


def _facet(schema: str, **facts: Any) -> dict[str, Any]:
    return {"_producer": PRODUCER, "_schemaURL": schema, **facts}
