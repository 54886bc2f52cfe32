"""Release a pipeline file: check it, store its source, see to its topics, ask the registry, wait for the answer."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from headrace.errors import NoAnswer, Refused
from headrace.infra import create_topics, pipeline_files
from headrace.infra.artifacts import Artifacts
from headrace.infra.bus import Bus, Message, Place
from headrace.infra.follow import Follower
from headrace.infra.user_events import new_request
from headrace.schemas.codec import TYPE_OF, Undecodable, decode, encode, header, headers_of
from headrace.schemas.control import PipelineReleased, ReleaseAsked, RequestRefused
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
    arrived = full_name("<p>.data-arrived", pipeline.name, settings.namespace)
    count = partitions or bus.partitions(arrived) or 1
    if settings.create_topics:
        create_topics.create(bus, settings.namespace)
        create_topics.create_pipeline(bus, pipeline.name, count, definition.policies, settings.namespace)
    else:
        create_topics.require_pipeline(bus, pipeline.name, count, definition.policies, settings.namespace)
    event = ReleaseAsked(
        pipeline=pipeline.name,
        request=new_request("release"),
        by=by,
        definition=definition,
        partitions=count,
        topic_id=bus.topic_id(arrived),
    )
    ends = {(arrived, partition): bus.offsets((arrived, partition))[1] for partition in range(count)}
    released = _ask(bus, event, settings.namespace, limit_s)
    await_markers(bus, ends, released, limit_s)
    return released


def await_markers(bus: Bus, ends: dict[Place, int], released: PipelineReleased, limit_s: float) -> None:
    """Wait until the release stands in band in every partition: what is published from now on comes after it.

    The answer may be seen first (no order holds between topics), and what came before the marker would be rejected.
    """
    missing, deadline = set(ends), time.monotonic() + limit_s
    reader = bus.reader()
    try:
        reader.assign(ends)
        while missing:
            for message in reader.poll(500, 0.1):
                if _is_marker_of(released, message):
                    missing.discard((message.topic(), message.partition()))
            if missing and time.monotonic() > deadline:
                raise NoAnswer(
                    f"release {released.release} of {released.pipeline} is decided, but its marker did not come to "
                    f"{len(missing)} partitions of {min(missing)[0]} within {limit_s:g} s: is the registry up?",
                    "headrace status",
                )
    finally:
        reader.close()


def _is_marker_of(released: PipelineReleased, message: Message) -> bool:
    if header(message.headers(), "ce_type", 3) != TYPE_OF[PipelineReleased]:
        return False
    try:
        return bool(decode(TYPE_OF[PipelineReleased], message.value() or b"") == released)
    except Undecodable:  # users write this topic, and may write anything
        return False


def _ask(bus: Bus, event: ReleaseAsked, namespace: str, limit_s: float) -> PipelineReleased:
    """Publish the request and wait for the release that names it. Raises Refused, NoAnswer."""
    answers = Follower(bus, namespace, [full_name(topic, namespace=namespace) for topic in ("pipelines", "decisions")])
    producer = bus.producer("operator")
    try:
        answers.read_to_end()
        producer.produce(
            full_name("operator-requests", namespace=namespace),
            0,
            event.pipeline.encode(),
            encode(event),
            headers_of(TYPE_OF[ReleaseAsked], "/operator", 0),
            0,
        )
        producer.flush()
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            for record in answers.poll(0.1):
                answer = record.event
                if getattr(answer, "request", None) != event.request:
                    continue
                if isinstance(answer, RequestRefused):
                    raise Refused(answer.reason, answer.next, answer.kind)
                if isinstance(answer, PipelineReleased):
                    return answer
        raise NoAnswer(
            f"nobody answered ReleaseAsked for {event.pipeline} within {limit_s:g} s: are the services up?",
            "headrace status",
        )
    finally:
        answers.close()
        producer.close()
