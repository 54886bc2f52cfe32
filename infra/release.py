"""Release a pipeline file: check it, store its source, see to its topics, ask the registry, wait for the answer."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

from headrace.errors import NoAnswer, Refused
from headrace.infra import create_topics, pipeline_files
from headrace.infra.artifacts import Artifacts
from headrace.infra.bus import Bus
from headrace.infra.follow import Follower
from headrace.schemas.codec import TYPE_OF, encode, headers_of
from headrace.schemas.control import ControlEvent, PipelineReleased, ReleaseAsked, RequestRefused
from headrace.schemas.topics import full_name


def release_file(
    path: Path, settings: Any, bus: Bus, by: str, partitions: int | None = None, limit_s: float = 30.0
) -> PipelineReleased:
    """Release the pipeline that a file defines. Raises Refused, NoAnswer, or what `load_file` and topics raise."""
    pipeline = pipeline_files.load_file(path)
    source = path.read_bytes()
    artifacts = Artifacts(settings.artifact_url, settings.key())
    _, uri = artifacts.put_source(source)
    definition = pipeline_files.definition(pipeline, source, uri)
    existing = bus.partitions(full_name("<p>.data-arrived", pipeline.name, settings.namespace))
    count = partitions or existing or 1
    if settings.create_topics:
        create_topics.create(bus, settings.namespace)
        create_topics.create_pipeline(bus, pipeline.name, count, definition.policies, settings.namespace)
    else:
        create_topics.require_pipeline(bus, pipeline.name, count, definition.policies, settings.namespace)
    event = ReleaseAsked(
        pipeline=pipeline.name, request=new_request("release"), by=by, definition=definition, partitions=count
    )
    answer = ask(bus, event, event.request, settings.namespace, limit_s)
    if not isinstance(answer, PipelineReleased):
        raise NoAnswer(f"the request to release {pipeline.name} was answered with {type(answer).__name__}")
    return answer


def new_request(kind: str) -> str:
    """An id for an operator's request."""
    return f"{kind}-{uuid.uuid4().hex[:12]}"


def ask(bus: Bus, event: ControlEvent, request: str, namespace: str = "", limit_s: float = 30.0) -> ControlEvent:
    """Publish an operator's request and return the first event that names it. Raises Refused, NoAnswer."""
    answers = Follower(
        bus,
        namespace,
        [
            full_name(topic, namespace=namespace)
            for topic in ("pipelines", "decisions", "training-requests", "model-updates")
        ],
    )
    producer = bus.producer("operator")
    try:
        answers.read_to_end()
        producer.produce(
            full_name("operator-requests", namespace=namespace),
            0,
            event.pipeline.encode(),
            encode(event),
            headers_of(TYPE_OF[type(event)], "/operator", 0),
            0,
        )
        producer.flush()
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            for record in answers.poll(0.1):
                answer = record.event
                if getattr(answer, "request", None) != request:
                    continue
                if isinstance(answer, RequestRefused):
                    raise Refused(answer.reason, answer.next, answer.kind)
                if isinstance(answer, ControlEvent):
                    return answer
        raise NoAnswer(
            f"nobody answered {type(event).__name__} for {event.pipeline} within {limit_s:g} s: are the services up?",
            "headrace status",
        )
    finally:
        answers.close()
        producer.close()
