"""What does not come into the order of decisions: a request to release onto topics that are not there.

Whether topics exist is no input of a fold, so the registry, which writes into them, cannot refuse it: folded again
later it would decide otherwise. Here it is asked once, and `control-log` has the answer: what stands in it passed.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from headrace.infra.bus import Bus, NotAuthorized
from headrace.infra.records import DeadLetter
from headrace.schemas.control import ReleaseAsked
from headrace.schemas.record import Record
from headrace.schemas.topics import PIPELINE_NAME, full_name, pipeline_topics

PATIENCE_S = 5.0  # of several brokers each hears of a new topic when it does


def admission(bus: Bus, namespace: str) -> Callable[[Record], None]:
    """What the sequencer asks of a record before it is folded. Raises DeadLetter with the reason."""

    def admit(record: Record) -> None:
        event = record.event
        if not isinstance(event, ReleaseAsked) or PIPELINE_NAME.fullmatch(event.pipeline) is None:
            return  # what is no name the registry refuses
        deadline = time.monotonic() + PATIENCE_S
        while (problem := _problem(bus, namespace, event)) is not None:
            if time.monotonic() >= deadline:
                raise DeadLetter(
                    f"{problem}: nothing is released onto topics that are not there as the request says; "
                    f"headrace release pipelines/{event.pipeline}.py makes them and asks"
                )
            time.sleep(0.1)

    return admit


def _problem(bus: Bus, namespace: str, event: ReleaseAsked) -> str | None:
    try:
        for topic in pipeline_topics():
            name = full_name(topic.name, event.pipeline, namespace)
            wanted = event.partitions if topic.partitions == "pipeline" else topic.partitions
            found = bus.partitions(name)
            if found is None:
                return f"there is no topic {name}"
            if found != wanted:
                return f"{name} has {found} partitions, not {wanted}"
        arrived = full_name("<p>.data-arrived", event.pipeline, namespace)
        if event.topic_id is not None and bus.topic_id(arrived) != event.topic_id:
            return f"{arrived} has another id than the request names"
    except NotAuthorized as error:
        return str(error)
    return None
