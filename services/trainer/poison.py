"""A learn that raised: was it the example or the moment? Only what raises again on the restored model is poison."""

from __future__ import annotations

from typing import NamedTuple

from headrace import model_bytes
from headrace.infra.bus import Bus, Place
from headrace.infra.follow import read_range
from headrace.schemas.record import Emit, Record
from headrace.services.trainer import core

MACHINE_TROUBLE = (MemoryError, OSError)  # the machine's fault: the process ends, and nothing is skipped


class Restored(NamedTuple):
    """A run as it stood at an offset, with the sequences it had seen by then."""

    state: core.State
    offset: int
    sequences: dict[str, int]


class Again(NamedTuple):
    """The run after the second try. `why` it raised again, if it did: then its state is as `before` the record."""

    state: core.State
    emits: list[Emit]
    why: str
    before: bytes


def learn_again(
    restored: Restored, skipped: list[int], record: Record, world: core.World, place: Place, bus: Bus, namespace: str
) -> Again:
    """Fold a restored run up to the record (the raise left half a change) and learn that once more.

    What raises again is one of the run's `skipped` offsets from now on. Raises BusError and whatever is the machine's
    fault.
    """
    state, start, sequences = restored
    state.skipped = skipped
    decoders = core.DECODERS
    for earlier in read_range(
        bus, place, start, record.offset, namespace, sequences=dict(sequences), decoders=decoders
    ):
        core.step(state, earlier, world)
    before = model_bytes.dumps(state)
    try:
        return Again(state, core.step(state, record, world), "", before)
    except MACHINE_TROUBLE:
        raise
    except Exception as error:
        state = model_bytes.loads(before)
        state.skipped.append(record.offset)
        return Again(state, [], f"{type(error).__name__}: {error}", before)
