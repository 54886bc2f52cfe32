"""A story for people and for programs: its sentences with time and place, the numbers below, what to type next."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from headrace.schemas.control import (
    Check,
    DriftDetected,
    ModelUpdated,
    ModelValidated,
    RunEnded,
    RunStarted,
    SnapshotTaken,
    TrainingCompleted,
)
from headrace.why.chain import Link
from headrace.why.sentences import against, moment, pairs, sentence


def details(link: Link) -> list[str]:
    """The checks of a verdict or a snapshot, the numbers of an alert, one a line, each with value and limit."""
    event = link.event
    if isinstance(event, ModelValidated):
        return [check(one) for one in event.checks]
    if isinstance(event, SnapshotTaken):
        return [
            f"{run}: {one.name} {'passed' if one.passed else 'FAILED'}{against(one.value, one.limit)}"
            for run, taken in event.runs.items()
            for one in taken.checks
        ]
    if isinstance(event, DriftDetected):
        columns = event.evidence.get("columns", {})
        others = {name: value for name, value in event.evidence.items() if name != "columns"}
        return [f"{name}: {pairs(one)}" for name, one in {**columns, "measured": others}.items() if one]
    return []


def as_data(link: Link) -> dict[str, Any]:
    """One event of a story for programs."""
    event = link.event
    return {
        "time": moment(link.record.known_ms),
        "place": link.place,
        "first_written": link.origin or link.place,
        "cause": link.cause or None,
        "correlation": link.correlation or None,
        "event": type(event).__name__,
        "says": sentence(link.event),
        "details": details(link),
        "body": event,
    }


def lines(story: Iterable[Link]) -> list[str]:
    """A story for people: time and place, the sentence, the numbers below it."""
    told = []
    for link in story:
        told += [line(link), *(f"    {one}" for one in details(link))]
    return told


def line(link: Link) -> str:
    """One event in a line: when, what, where it stands."""
    first = f", first {link.origin}" if link.origin else ""
    return f"{moment(link.record.known_ms)}  {sentence(link.event)}  [{link.place}{first}]"


def commands(story: Iterable[Link]) -> list[str]:
    """What to type to look closer at the last event's models and numbers."""
    found: dict[str, None] = {}
    for link in reversed(list(story)):
        event = link.event
        pipeline = getattr(event, "pipeline", "") or link.record.pipeline
        if isinstance(event, ModelUpdated):
            found[f"headrace reproduce {pipeline}@{event.version}"] = None
        elif isinstance(event, ModelValidated | TrainingCompleted | RunEnded | RunStarted):
            found[f"headrace why {event.run}"] = None
            found[f"headrace runs {pipeline}"] = None
        elif isinstance(event, DriftDetected):
            found[f"headrace alerts {pipeline} --kind {event.kind}"] = None
            if event.topic is not None:
                topic = event.topic.replace("<p>", pipeline)
                found[f"headrace why {topic}/{event.partition}/{event.offset}"] = None
        elif isinstance(event, SnapshotTaken):
            for run in event.runs:
                found[f"headrace reproduce {pipeline}@{run}@{event.offset}"] = None
        if pipeline:
            found[f"headrace reproduce {pipeline} --decisions"] = None
    return list(found)


def check(one: Check) -> str:
    """One check with all its numbers."""
    over = "" if one.n is None else f" over {one.n:,} rows"
    looks = "" if one.looks is None else f", looked at {one.looks:,} times"
    detail = f" ({one.detail})" if one.detail else ""
    source = f"; rule: {one.source}" if one.source else ""
    return f"{one.name}: {one.verdict}{against(one.value, one.limit)}{over}{looks}{detail}{source}"
