"""The trainer's shell: gives each pipeline's runs their labelled examples, as `control` says which runs live."""

from __future__ import annotations

from typing import Any

from headrace.infra.bus import Place, Producer
from headrace.infra.continuity import BeyondLog, HistoryGone
from headrace.infra.follow import Pipelines
from headrace.infra.runtime import FoldRunner
from headrace.infra.service import Wiring
from headrace.schemas.topics import full_name
from headrace.services.trainer import control
from headrace.services.trainer.runs import FOLD, Runs


class Lockstep:
    """A member of the group that reads `<p>.labelled-examples`, with one `Runs` for each pipeline."""

    def __init__(self, wiring: Wiring, deciding: FoldRunner) -> None:
        """`deciding` is the runner of the fold `control`, which must be ticked beside this."""
        self._wiring, self._deciding = wiring, deciding
        self._control_log = (full_name("control-log", namespace=wiring.namespace), 0)
        self._known_to = wiring.bus.offsets(self._control_log)[1]
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
        return done + sum([worker.rest() for worker in self._workers()])

    def close(self) -> None:
        """Clean stop: a last snapshot of every run, committed."""
        for worker in self._workers():
            worker.finish()
        self._runner.close()

    def counts(self) -> dict[str, Any]:
        """Numbers for /metrics, by place."""
        return self._runner.counts()

    def _make(self, place: Place, producer: Producer) -> Runs:
        return Runs(place, producer, self._wiring, self._pipelines)

    def _pipelines(self) -> Pipelines:
        assert self._runner.pipelines is not None
        return self._runner.pipelines

    def _workers(self) -> list[Runs]:
        return [worker for worker in self._runner.workers.values() if isinstance(worker, Runs)]

    def _follow(self) -> int:
        decided = self._deciding.workers.get(self._control_log)
        if decided is None or decided.offset < self._known_to:
            return 0  # what was decided before this process began is not read yet
        state: control.State = decided.state  # type: ignore[attr-defined]
        begun = 0
        for worker in self._workers():
            trained = state.pipelines.get(worker.pipeline)
            if trained is not None:
                begun += self._follow_one(worker, trained)
        return begun

    def _check_log(self, worker: Runs, start: int) -> None:
        """Raises HistoryGone, BeyondLog: a run learns its range without a gap, or it is another model."""
        topic, partition = worker.place
        first, end = self._wiring.bus.offsets(worker.place)
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
        if trained.live.keys() != worker.runs.keys() and all(
            (worker.pipeline, live.started.release) in known.releases for live in trained.live.values()
        ):
            start = worker.follow(trained.live)
            if start is not None:
                self._check_log(worker, start)
                self._runner.seek(worker.place, start)
                begun = 1
        if worker.misplaced:
            worker.misplaced = False
            self._runner.seek(worker.place, worker.next_offset)
        worker.thin({update.uri for update in trained.aliases.values()})
        return begun
