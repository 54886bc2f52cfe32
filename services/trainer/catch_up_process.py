"""A catch-up in a process of its own, so that the runs in lockstep learn on beside it.

It reads the log as fast as it can. Near the log's end it hands the run over as bytes, with its offset and sequences,
and waits: the lockstep takes it, or finds that too much came in between and asks for it nearer.
"""

from __future__ import annotations

import os
import sys
import time
from multiprocessing.connection import Connection
from typing import NamedTuple

from headrace import model_bytes
from headrace.infra import child
from headrace.infra.artifacts import Artifacts
from headrace.infra.bus import Bus, BusError, Place
from headrace.infra.settings import Settings
from headrace.services.trainer.beginning import Releases, begin, world_of
from headrace.services.trainer.catch_up import CatchUp
from headrace.services.trainer.control import Live

NEAR = 1_000  # records before the log's end
PAUSE_S = 0.1  # at most, of the lockstep, to learn what came after the handover
BATCH = 500
LOOK_S = 0.5  # between two looks at the log's end
NICE = 10  # on a busy machine the runs that serve go first
TROUBLED = 75  # exit code (EX_TEMPFAIL): broker, disk or memory; to be tried again, however often
NEARER = "nearer"


class HandedOver(NamedTuple):
    """The run's state as bytes, where it stands, and how long it takes to learn one record."""

    data: bytes
    offset: int
    sequences: dict[str, int]
    said_complete: bool
    a_record_s: float


def work(pipe: Connection, live: Live, releases: Releases, settings: Settings, key: bytes, place: Place) -> None:
    """The body of the process. It sends what the run tells (a list), why it cannot begin (a str), or the run."""
    if hasattr(os, "nice"):
        os.nice(NICE)
    bus = child.bus_of(settings, "trainer-catch-up")
    try:
        try:
            artifacts = Artifacts(settings.artifact_url, key)
            world = world_of(live.started, releases, artifacts)
            restored = begin(world, releases, artifacts)
        except (MemoryError, OSError, BusError):
            raise
        except Exception as error:
            pipe.send(f"{type(error).__name__}: {error}")
            return
        run = CatchUp(live, world, restored, place, bus, settings.namespace)
        _learn(run, bus, place, pipe)
    except (EOFError, BrokenPipeError):
        return  # the parent is gone, or needs this no more
    except (MemoryError, OSError, BusError) as error:
        os.write(2, f"{place[0]}: run {live.started.run} cannot catch up now: {error}\n".encode())
        sys.exit(TROUBLED)


def _learn(run: CatchUp, bus: Bus, place: Place, pipe: Connection) -> None:
    parent, reader = os.getppid(), bus.reader()
    reader.assign({place: run.offset})
    if told := run.begun():
        pipe.send(told)
    learned, spent_s, look_at = 0, 0.0, 0.0
    while os.getppid() == parent:
        messages = reader.poll(BATCH, 0.05)
        began = time.perf_counter()
        told = run.learn(messages)
        spent_s += time.perf_counter() - began
        learned += len(messages)
        if told:
            pipe.send(told)
        if messages and time.monotonic() < look_at:
            continue
        look_at = time.monotonic() + LOOK_S
        left, a_record_s = bus.offsets(place)[1] - run.offset, spent_s / max(learned, 1)
        if left <= NEAR and left * a_record_s <= PAUSE_S / 2:
            data = model_bytes.dumps(run.state)
            pipe.send(HandedOver(data, run.offset, dict(run.sequences), run.said_complete, a_record_s))
            if pipe.recv() != NEARER:
                return
            look_at = 0.0
