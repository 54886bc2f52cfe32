"""Copies what decides, unchanged, into `control-log`: one order of decisions for every pipeline.

Each control topic has a fold of its own with a state of its own. The runtime gives the copy its first source and
sequence and a header with the place first written, so a copy made twice is one decision.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from headrace.schemas.control import WindowValidated
from headrace.schemas.record import Emit, Record
from headrace.schemas.stream import Tick

COPIES = True  # the runtime keeps source, sequence and bytes of the original

World = type(None)


def example_world() -> None:
    """The sequencer needs no world."""
    return


@dataclass(slots=True)
class State:
    """The last verdict of each validator window's partition, and the largest due time of each schedule.

    Both are bounded by the number of pipelines and their partitions.
    """

    verdicts: dict[tuple[str, int], str] = field(default_factory=dict)
    due: dict[tuple[str, str], str] = field(default_factory=dict)


def step(state: State, record: Record, world: None) -> list[Emit]:
    """Pass the record on, unless it is a window that says nothing new or a tick of a time that has passed already."""
    event = record.event
    if isinstance(event, WindowValidated):
        place = (event.pipeline, event.partition)
        if state.verdicts.get(place, "ok") == event.verdict:
            return []
        state.verdicts[place] = event.verdict
    elif isinstance(event, Tick):
        schedule, due = (event.pipeline, event.schedule), event.due.isoformat()
        if due <= state.due.get(schedule, ""):
            return []
        state.due[schedule] = due
    assert event is not None  # only `data-arrived` comes without one
    return [Emit("control-log", event, record.key, partition=0, body=record.body)]
