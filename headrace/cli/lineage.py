"""What a command does, as a run in `lineage`: START when it begins, then COMPLETE, FAIL or (Ctrl-C) ABORT."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headrace.cli import output
from headrace.errors import HeadraceError, Unreachable
from headrace.infra.bus import Bus, BusError
from headrace.schemas import lineage
from headrace.schemas.codec import TYPE_OF, encode, headers_of
from headrace.schemas.control import LineageRecorded
from headrace.schemas.topics import full_name

Write = Callable[[LineageRecorded], bool]


@contextmanager
def recorded(
    write: Write, job: str, pipeline: str, inputs: Sequence[lineage.Dataset], outputs: Sequence[lineage.Dataset]
) -> Iterator[dict[str, Any]]:
    """Record what happens inside as a run of `<pipeline>.<job>`; what is put into the dict stands in its last event.

    `write` returns False where there is no topic yet: then it is asked again with the next event. Lineage that cannot
    be written is a note, no error: what the command does has been done.
    """
    run, facts, waiting = str(uuid.uuid4()), dict[str, Any](), list[LineageRecorded]()

    def tell(state: lineage.State, error: str | None = None) -> None:
        waiting.append(
            lineage.run_event(
                state,
                f"{pipeline}.{job}",
                run,
                time.time_ns() // 1_000_000,
                pipeline=pipeline,
                inputs=inputs,
                outputs=outputs,
                facts=facts,
                error=error,
            )
        )
        try:
            while waiting and write(waiting[0]):
                waiting.pop(0)
        except (HeadraceError, BusError) as problem:
            output.note(f"The lineage of this {job} is not recorded: {problem}")

    tell("START")
    try:
        yield facts
    except Unreachable:
        raise  # who cannot be reached cannot be told
    except KeyboardInterrupt:
        tell("ABORT")
        raise
    except Exception as error:
        tell("FAIL", str(error) or type(error).__name__)
        raise
    tell("COMPLETE")


def writer(bus: Bus, namespace: str) -> Write:
    """Writes run events to the `lineage` of a bus, where it exists."""
    topic, source = full_name("lineage", namespace=namespace), f"/operator/{uuid.uuid4().hex[:12]}"
    written = 0

    def write(event: LineageRecorded) -> bool:
        nonlocal written
        if bus.partitions(topic) is None:
            return False
        written += 1
        producer = bus.producer("operator")
        try:
            headers = headers_of(TYPE_OF[LineageRecorded], source, written)
            now_ms = time.time_ns() // 1_000_000
            producer.produce(topic, 0, event.run_event["run"]["runId"].encode(), encode(event), headers, now_ms)
            producer.flush()
        finally:
            producer.close()
        return True

    return write


def file(path: Path, **facts: Any) -> lineage.Dataset:
    """A file of this machine as a dataset."""
    return lineage.file(str(path.resolve()), size=path.stat().st_size, **facts)
