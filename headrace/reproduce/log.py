"""What `reproduce` reads of the log beside the examples: `control-log`, and the snapshots of a pipeline."""

from __future__ import annotations

from collections.abc import Iterator

from headrace.errors import Missing
from headrace.infra.bus import Bus, Place
from headrace.infra.follow import read_range
from headrace.reproduce import roots
from headrace.reproduce.roots import Roots
from headrace.schemas.control import ControlEvent, PipelineReleased
from headrace.schemas.record import Record
from headrace.schemas.topics import full_name


def records(bus: Bus, namespace: str, topic: str, pipeline: str = "") -> list[Record]:
    """All that a topic of one partition holds now, without repeats; `topic` is a name of the table."""
    return list(_read(bus, namespace, topic, pipeline))


def find(text: str, bus: Bus, namespace: str = "") -> Roots:
    """The roots of a model by its name, or by the address of its artifact. Raises Missing, InvalidInput."""
    if roots.URI.fullmatch(text):
        control = _decisions(bus, namespace)
        name = roots.named(text, control, _all_snapshots(bus, namespace, control))
    else:
        name = roots.parse(text)
        control = _decisions(bus, namespace)
    _check(name.pipeline, control)
    return roots.find(name, control, records(bus, namespace, "<p>.snapshots", name.pipeline))


def check_released(pipeline: str, bus: Bus, namespace: str = "") -> None:
    """Raises Missing where no pipeline of this name was ever released."""
    _check(pipeline, _decisions(bus, namespace))


def _read(bus: Bus, namespace: str, topic: str, pipeline: str = "") -> Iterator[Record]:
    place: Place = (full_name(topic, pipeline, namespace), 0)
    return read_range(bus, place, *bus.offsets(place), namespace)


def _decisions(bus: Bus, namespace: str) -> list[Record]:
    """`control-log` without its ticks: half a million a year."""
    return [record for record in _read(bus, namespace, "control-log") if isinstance(record.event, ControlEvent)]


def _check(pipeline: str, control: list[Record]) -> None:
    if pipeline not in _released(control):
        raise Missing(f"no pipeline is named {pipeline!r}", "headrace status lists them")


def _all_snapshots(bus: Bus, namespace: str, control: list[Record]) -> Iterator[Record]:
    for pipeline in _released(control):
        yield from records(bus, namespace, "<p>.snapshots", pipeline)


def _released(control: list[Record]) -> list[str]:
    events = (record.event for record in control)
    return list(dict.fromkeys(event.pipeline for event in events if isinstance(event, PipelineReleased)))
