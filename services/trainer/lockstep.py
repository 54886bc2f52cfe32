"""The trainer's shell: gives each pipeline's runs their labelled examples, as `control` says which runs live.

It folds `control-log` for itself, as a table: the group that reads it in order to decide may have given it to another
process than the one that has the labelled examples.
"""

from __future__ import annotations

import time
from typing import Any

from headrace.infra.bus import Place, Producer
from headrace.infra.continuity import BeyondLog, HistoryGone
from headrace.infra.follow import Follower, Pipelines
from headrace.infra.runtime import FOLLOW_S, FoldRunner
from headrace.infra.service import Wiring
from headrace.schemas.record import Record
from headrace.schemas.topics import full_name
from headrace.services.trainer import control
from headrace.services.trainer.runs import FOLD, Runs


class Lockstep:
    """A member of the group that reads `<p>.labelled-examples`, with one `Runs` for each pipeline."""

    def __init__(self, wiring: Wiring) -> None:
        """Reads what was decided before. Raises BusError where it cannot be read."""
        self._wiring = wiring
        control_log = full_name("control-log", namespace=wiring.namespace)
        wiring.bus.offsets((control_log, 0))  # raises where it is missing
        self._decisions = Follower(wiring.bus, wiring.namespace, [control_log])
        self._decided = control.State()
        self._clock = wiring.timing.get("clock", time.monotonic)
        self._follow_s = wiring.timing.get("follow_s", FOLLOW_S)
        self._next_follow = self._clock()
        self._fold(self._decisions.read_to_end())
        self._releases = 0
        self._runner = FoldRunner(
            FOLD,
            ["<p>.labelled-examples"],
            wiring.bus,
            self._make,
            namespace=wiring.namespace,
            instance=wiring.settings.instance,
            **wiring.timing,
        )

    def tick(self, timeout_s: float = 0.0) -> int:
        """Let the runs learn one batch, then begin and end runs as decided; returns how much of all that."""
        done = self._runner.tick(timeout_s) + self._follow()
        return done + sum([worker.look_after() + worker.rest() for worker in self._workers()])

    def close(self) -> None:
        """Clean stop: a last snapshot of every run, committed."""
        for worker in self._workers():
            worker.finish()
        self._runner.close()
        self._decisions.close()

    def counts(self) -> dict[str, Any]:
        """Numbers for /metrics, by place."""
        return self._runner.counts()

    def _make(self, place: Place, producer: Producer) -> Runs:
        return Runs(place, producer, self._wiring, self._pipelines, self._processes)

    def _pipelines(self) -> Pipelines:
        assert self._runner.pipelines is not None
        return self._runner.pipelines

    def _processes(self) -> int:
        return sum(worker.outside.processes for worker in self._workers())

    def _workers(self) -> list[Runs]:
        return [worker for worker in self._runner.workers.values() if isinstance(worker, Runs)]

    def _follow(self) -> int:
        now, done = self._clock(), 0
        if now >= self._next_follow:
            self._next_follow = now + self._follow_s
            done = self._fold(self._decisions.poll())
        for worker in self._workers():
            trained = self._decided.pipelines.get(worker.pipeline)
            if trained is not None:
                done += self._follow_one(worker, trained)
        return done

    def _fold(self, records: list[Record]) -> int:
        for record in records:
            control.step(self._decided, record, None)  # what it tells, the fold's own runner tells
        return len(records)

    def _check_log(self, worker: Runs, start: int) -> None:
        """Raises HistoryGone, BeyondLog: a run learns its range without a gap, or it is another model."""
        topic, partition = worker.place
        first, end = self._wiring.bus.offsets(worker.place, at_least=start)
        where = f"the runs of {worker.pipeline} stand at offset {start} of {topic} partition {partition}"
        mend = "Put the topic back from a backup, or release the pipeline under a new name: headrace release"
        if start < first:
            raise HistoryGone(f"{where}, but the log begins at {first}: what they must learn next is deleted. {mend}")
        if start > end:
            raise BeyondLog(f"{where}, but the log ends at {end}: the broker lost its tail. {mend}")

    def _follow_one(self, worker: Runs, trained: control.Trained) -> int:
        begun = 0
        known = self._pipelines()
        if len(known.releases) != self._releases:
            self._releases = len(known.releases)
            for one in self._workers():
                one.refresh_worlds()
        if not worker.is_known(trained.live) and all(
            (worker.pipeline, live.started.release) in known.releases for live in trained.live.values()
        ):
            begun = worker.follow(trained.live, trained.ending)
        if worker.misplaced:
            worker.misplaced = False
            self._check_log(worker, worker.next_offset)
            self._runner.seek(worker.place, worker.next_offset)
        worker.thin(trained.kept)
        return begun
