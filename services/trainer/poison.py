"""A learn that raised: was it the example or the moment? Only what raises again on the restored model is poison."""

from __future__ import annotations

from headrace import model_bytes
from headrace.infra.artifacts import Artifacts
from headrace.infra.bus import Bus, Place
from headrace.infra.follow import read_range
from headrace.schemas.record import Emit, Record
from headrace.services.trainer import core
from headrace.services.trainer.snapshots import Run, restore

MACHINE_TROUBLE = (MemoryError, OSError)  # the machine's fault: the process ends, and nothing is skipped


def learn_again(
    run: Run, record: Record, place: Place, bus: Bus, namespace: str, artifacts: Artifacts
) -> tuple[list[Emit], str]:
    """Restore the run's newest snapshot (the raise left half a change), fold up to the record, learn it once more.

    Returns what the step emits and "", or, where it raised again and is skipped from now on, nothing and the reason.
    Raises ArtifactRefused, BusError and whatever is the machine's fault.
    """
    skipped, base = run.state.skipped, run.base
    if base is None:
        run.state = core.begin(run.world)
        start, sequences = run.live.started.start_offset, {}
    else:
        run.state, run.history = restore(base, artifacts)
        start, sequences = base.offset, dict(base.sequences)
    run.state.skipped = skipped
    for earlier in read_range(bus, place, start, record.offset, namespace, sequences=sequences):
        core.step(run.state, earlier, run.world)
    before = model_bytes.dumps(run.state)
    try:
        return core.step(run.state, record, run.world), ""
    except MACHINE_TROUBLE:
        raise
    except Exception as error:
        run.state = model_bytes.loads(before)
        run.state.skipped.append(record.offset)
        return [], f"{type(error).__name__}: {error}"
