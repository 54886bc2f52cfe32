"""The events that a model, a run, a training, a verdict, an alert or an answer follows from, in the order of the log.

Two kinds of thread lead back: the causation id in each event's headers (the place of its direct parent), and what the
events name of each other: run, request, offset. Without the second a verdict would lead to the example at which its
run was judged, and not to the request that began the run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from headrace.errors import InvalidInput, Missing
from headrace.reproduce.roots import parse
from headrace.schemas.codec import ORIGIN, header
from headrace.schemas.control import (
    ALIASES,
    AliasRemoved,
    ChallengerExpired,
    ChallengerSuperseded,
    ControlEvent,
    DriftDetected,
    ModelUpdated,
    ModelValidated,
    PipelineDegraded,
    PipelineReleased,
    RunEnded,
    RunStarted,
    SchemaSkewed,
    SnapshotTaken,
    TrainingCompleted,
    TrainingFailed,
    TrainingRequested,
    WindowValidated,
)
from headrace.schemas.record import Record
from headrace.schemas.stream import ExampleLabelled, PredictionMade
from headrace.why import alert_words

PLACE = re.compile(r"([a-z][a-z0-9.-]*)/(?:[0-9a-f]{32}/)?(\d+)/(\d+)")
FORMS = (
    "a model (rainfall@1, rainfall@champion, rainfall@1@1204), a run, a request, a run's gate (RUN/offline), a "
    "pipeline's newest alert of a kind (rainfall/performance), its state (rainfall/degraded, rainfall/skewed), or the "
    "place of an event (control-log/0/17, rainfall.predictions/0/3)"
)
DECISIONS: dict[str, type] = {"degraded": PipelineDegraded, "skewed": SchemaSkewed}
OF_A_RUN = (TrainingCompleted, TrainingFailed, ModelValidated, ModelUpdated, AliasRemoved, RunEnded)


@dataclass(frozen=True)
class Link:
    """One event: where it stands, where it was first written ("" if there), what it names as its cause."""

    record: Record
    place: str
    origin: str = ""
    cause: str = ""
    correlation: str = ""

    @property
    def event(self) -> Any:
        """The event itself."""
        return self.record.event


@dataclass
class Log:
    """What is known: the links of `control-log` in order, and of snapshots and answers beside it, by place."""

    links: list[Link] = field(default_factory=list)
    by_place: dict[str, Link] = field(default_factory=dict)
    snapshots: list[Link] = field(default_factory=list)

    @classmethod
    def of(cls, control: Iterable[Record], beside: Iterable[Record] = ()) -> Log:
        """`beside` are SnapshotTaken, and the answer that is asked about."""
        log = cls()
        for record in control:
            if isinstance(record.event, ControlEvent):
                log.links.append(log._add(record))
        for record in beside:
            link = log._add(record)
            if isinstance(record.event, SnapshotTaken):
                log.snapshots.append(link)
        return log

    def _add(self, record: Record) -> Link:
        link = link_of(record)
        for place in filter(None, (link.place, link.origin)):
            self.by_place.setdefault(place, link)
        return link

    def all_of(self, *kinds: type, **fields: Any) -> Iterator[Link]:
        """The links whose event is of a kind and has these fields."""
        for link in self.links:
            if isinstance(link.event, kinds) and all(getattr(link.event, k, None) == v for k, v in fields.items()):
                yield link


def link_of(record: Record) -> Link:
    """A record with its places, as `topic/partition/offset`."""
    topic = record.topic.replace("<p>", record.pipeline, 1)
    return Link(
        record,
        f"{topic}/{record.partition}/{record.offset}",
        short(header(record.headers, ORIGIN, 7) or ""),
        short(header(record.headers, "ce_causationid", 6) or ""),
        short(header(record.headers, "ce_correlationid", 5) or ""),
    )


def short(place: str) -> str:
    """A place without its topic's id."""
    found = PLACE.fullmatch(place)
    return "/".join(found.groups()) if found else place


def snapshots_of(what: str) -> str:
    """The pipeline whose snapshots are needed: of a revision or an answer; "" where none are."""
    if "@" in what:
        name = parse(what)
        return name.pipeline if name.offset is not None else ""
    place = data_place(what)
    return place[1] if place is not None else ""


def data_place(what: str) -> tuple[str, str, int, int] | None:
    """Topic of the table, pipeline, partition and offset of an event in a pipeline's own topic."""
    found = PLACE.fullmatch(what)
    if found is None or "." not in found[1]:
        return None
    pipeline, _, topic = found[1].partition(".")
    return f"<p>.{topic}", pipeline, int(found[2]), int(found[3])


def story(log: Log, what: str) -> list[Link]:
    """The events behind what is asked, and those, oldest first. Raises Missing, InvalidInput."""
    found: dict[str, Link] = {}
    todo = _asked(log, what)
    todo += [one for link in todo if isinstance(link.event, DriftDetected) for one in _watched(log, link)]
    while todo:
        link = todo.pop()
        if link.place not in found:
            found[link.place] = link
            todo += _causes(log, link)
    return sorted(found.values(), key=_order)


def _order(link: Link) -> tuple[int, int, int]:
    """The order of decisions is that of `control-log`, not of known times: a run may be told what is long known.

    What stands elsewhere decides nothing, it follows.
    """
    if link.record.topic == "control-log":
        return 0, link.record.offset, 0
    return 1, link.record.known_ms, link.record.offset


def _asked(log: Log, what: str) -> list[Link]:
    place = PLACE.fullmatch(what)
    if place is not None:
        link = log.by_place.get("/".join(place.groups()))
        if link is None:
            raise Missing(f"no event that decides stands at {what}", "headrace watch --json shows each event's place")
        return [link]
    if "@" in what:
        return _model(log, what)
    run, _, stage = what.partition("/")
    if stage in DriftDetected.model_fields["kind"].annotation.__args__:  # type: ignore[union-attr]
        alerts = list(log.all_of(DriftDetected, pipeline=run, kind=stage))
        if not alerts:
            raise Missing(f"of {run} no {stage} alert was told", f"headrace alerts {run}")
        return alerts[-1:]
    if stage in DECISIONS:
        told = list(log.all_of(DECISIONS[stage], pipeline=run))
        if not told:
            raise Missing(f"{run} was never told to be {stage}", f"headrace alerts {run}")
        return told[-1:]
    if stage:
        verdicts = list(log.all_of(ModelValidated, run=run, stage=stage))
        if not verdicts and not any(log.all_of(RunStarted, run=run)):
            raise InvalidInput(f"nothing in the log is named {what!r}; ask about {FORMS}")
        if not verdicts:
            raise Missing(f"run {run} has no verdict of stage {stage!r}", "headrace runs")
        return verdicts[-1:]
    found = [link for link in log.links if what in (getattr(link.event, "run", None), _request(link))]
    if found:
        return found
    mine = list(log.all_of(ControlEvent, pipeline=what))
    if not mine:
        raise InvalidInput(f"nothing in the log is named {what!r}; ask about {FORMS}")
    champion = [link for link in mine if isinstance(link.event, ModelUpdated) and link.event.alias == "champion"]
    return champion[-1:] or mine[-1:]


def _model(log: Log, what: str) -> list[Link]:
    name = parse(what)
    updates = list(log.all_of(ModelUpdated, pipeline=name.pipeline))
    if name.which.isdigit():
        updates = [link for link in updates if link.event.version == int(name.which)][:1]
    elif name.which in ALIASES:
        updates = [link for link in updates if link.event.alias == name.which][-1:]
    else:
        return _asked(log, name.which)
    if not updates:
        which = f"version {name.which}" if name.which.isdigit() else name.which
        raise Missing(f"{name.pipeline} has no {which}", f"headrace why {name.pipeline}")
    if name.offset is None:
        return updates
    taken = _taken(log, updates[0].event.run, name.offset)
    if taken is None:
        raise Missing(
            f"no snapshot of {name.pipeline}@{name.which} was taken at offset {name.offset}",
            f"headrace why {name.pipeline}@{name.which}",
        )
    return [*updates, taken]


def _taken(log: Log, run: str, offset: int) -> Link | None:
    at = (link for link in log.snapshots if link.event.offset == offset and run in link.event.runs)
    return next(at, None)


def _request(link: Link) -> str | None:
    return getattr(link.event, "request", None) or None  # the online gates do not know their run's request


def _causes(log: Log, link: Link) -> list[Link]:
    """The direct parents: by its header, and by what it names."""
    named = [log.by_place.get(link.cause)]
    event = link.event
    match event:
        case ModelUpdated():
            of_run = {"pipeline": event.pipeline, "run": event.run}
            named += _before(link, log.all_of(ModelValidated, **of_run))
            if event.alias in ("champion", "challenger"):  # the steps of its canary
                named += _before(link, log.all_of(ModelUpdated, alias="challenger", **of_run))
        case ModelValidated():
            named += log.all_of(TrainingCompleted, run=event.run, end_offset=event.offset)
            if event.stage != "offline":
                named += _before(link, log.all_of(ModelValidated, run=event.run, offset=event.offset))
        case RunStarted():
            named += log.all_of(TrainingRequested, pipeline=event.pipeline, request=event.request)
            named += list(log.all_of(PipelineReleased, pipeline=event.pipeline, release=event.release))[:1]
        case DriftDetected():
            same = log.all_of(DriftDetected, pipeline=event.pipeline, kind=event.kind, run=event.run, since=event.since)
            named += _before(link, same) if event.since is not None else []
        case PipelineDegraded():
            alerts = _before(link, log.all_of(DriftDetected, pipeline=event.pipeline, kind="performance"))
            named += [one for one in alerts if one.event.run == event.numbers.get("run")][-1:]
        case SchemaSkewed():
            partition = event.numbers.get("partition")
            named += _before(link, log.all_of(WindowValidated, pipeline=event.pipeline, partition=partition))[-1:]
        case TrainingRequested(alerts=(_, *_)):
            named += [log.by_place.get(f"control-log/0/{offset}") for offset in event.alerts]
        case TrainingRequested(trigger="performance"):  # tried again: a minute passed, the champion is degraded still
            named += _before(link, log.all_of(PipelineDegraded, pipeline=event.pipeline))[-1:]
        case ChallengerSuperseded() | ChallengerExpired():
            named += log.all_of(RunStarted, run=event.run)
        case PredictionMade() | ExampleLabelled():
            named += _of_an_answer(log, event if isinstance(event, PredictionMade) else event.prediction, link)
        case SnapshotTaken():
            for run in event.runs:
                named += log.all_of(RunStarted, run=run)
        case _:
            pass
    if isinstance(event, OF_A_RUN):
        named += list(log.all_of(RunStarted, run=event.run))[:1]
    if isinstance(event, ControlEvent) and _request(link) is not None:
        asked = (one for one in log.links if _request(one) == _request(link) and one is not link)
        named += [one for one in asked if type(one.event).__name__.endswith("Asked")]
    return [one for one in named if one is not None]


def _watched(log: Log, link: Link) -> list[Link]:
    """What an alert was told of, where it is the question: champion, release, and the inputs that drifted beside it.

    In other stories it is a cause among causes; the champion's own would make each promotion tell all before it.
    """
    alert = link.event
    updates = log.all_of(ModelUpdated, pipeline=alert.pipeline, alias="champion", run=alert.run, version=alert.version)
    released = _before(link, log.all_of(PipelineReleased, pipeline=alert.pipeline))
    inputs = (one for one in log.all_of(DriftDetected) if alert_words.is_beside(link.record, one.record))
    return [*[one for one in updates if one.event.epoch <= (alert.epoch or 0)][-1:], *released[-1:], *inputs]


def _before(link: Link, others: Iterable[Link]) -> list[Link]:
    return [one for one in others if one.record.offset < link.record.offset]


def _of_an_answer(log: Log, made: PredictionMade, link: Link) -> list[Link | None]:
    """The alias as it stood in the answer's epoch, and the snapshot that answered."""
    found: list[Link | None] = []
    for alias, arm in made.predictions.items():
        updates = log.all_of(ModelUpdated, alias=alias, run=arm.run, version=arm.version)
        upto = [one for one in updates if one.event.epoch <= made.epoch]
        found += upto[-1:]
        found.append(_taken(log, arm.run, arm.learned_to))
    return found
