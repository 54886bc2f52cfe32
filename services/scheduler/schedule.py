"""Which ticks are due at a moment: a pure function of the time and the pipelines in force."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple

from croniter import croniter

from headrace.schemas.control import PipelineReleased
from headrace.schemas.signing import sign
from headrace.schemas.stream import Tick

MINUTE = "minute"


class Due(NamedTuple):
    """One tick and where it goes; `topic` is a name of `TOPICS`."""

    topic: str
    pipeline: str
    partition: int
    tick: Tick


def due_at(now_s: float, every_s: float) -> datetime:
    """The newest due time: whole multiples of the interval since 1970, so that all schedulers agree on it."""
    return datetime.fromtimestamp(now_s // every_s * every_s, UTC)


def due_ticks(due: datetime, pipelines: Iterable[PipelineReleased], key: bytes) -> list[Due]:
    """The ticks of one due time: one for `ticks`, a signed one for every data partition, and the schedules due.

    A schedule is a cron expression in UTC. A tick's id is its schedule and due time, so a second scheduler that
    writes the same ones does no harm.
    """
    ticks = [Due("ticks", "", 0, Tick(schedule=MINUTE, due=due))]
    for released in pipelines:
        name, schedule = released.pipeline, released.definition.policies.triggers.schedule
        signed = sign(key, Tick(schedule=MINUTE, due=due, pipeline=name))
        ticks += [Due("<p>.data-arrived", name, partition, signed) for partition in range(released.partitions)]
        if schedule is not None and due.second == 0 and croniter.match(schedule, due):
            ticks.append(Due("ticks", name, 0, Tick(schedule=schedule, due=due, pipeline=name)))
    return ticks
