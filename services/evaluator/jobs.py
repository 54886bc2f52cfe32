"""Runs the gates' open jobs in child processes and publishes their verdicts.

A verdict has the source `/evaluator/<pipeline>/<run>/<stage>` and the sequence of the TrainingCompleted that asked,
so one that is published again after a crash is dropped by every reader. A job stays open in the fold until its
verdict is read back; what runs and what was published is remembered here only, and starts again after a crash.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from headrace.infra import child
from headrace.infra.artifacts import Artifacts
from headrace.infra.bus import Bus
from headrace.infra.follow import Pipelines, read_range
from headrace.infra.runtime import FoldRunner
from headrace.infra.service import Wiring
from headrace.infra.settings import Settings
from headrace.schemas.codec import TYPE_OF, decode, encode, headers_of
from headrace.schemas.control import ModelValidated, PipelineReleased, SnapshotTaken
from headrace.schemas.topics import full_name
from headrace.services.evaluator.judge import Snapshot, failed, judge
from headrace.services.evaluator.offline import Job

AT_ONCE = 2  # one pipeline's slow replay must not hold up another's
ATTEMPTS = 3  # a child that dies without a word may have met a broken connection
LIMIT_S = {"offline": 3_600.0, "infra": 300.0, "refresh": 300.0}
RECENT_SNAPSHOTS = 100

Key = tuple[str, str, str, int]  # pipeline, run, stage, sequence


@dataclass(slots=True)
class AtWork:
    """A job in a process of its own."""

    job: Job
    snapshot: Snapshot | None
    child: child.Child
    deadline: float


class Jobs:
    """The part of the evaluator that does what its offline fold holds open."""

    def __init__(self, wiring: Wiring, offline: FoldRunner) -> None:
        """`offline` is the runner of the fold whose jobs are done here."""
        self._wiring, self._offline = wiring, offline
        self._pipelines = Pipelines(wiring.bus, wiring.namespace)
        self._producer = wiring.bus.producer("evaluator-jobs")
        self._topic = full_name("model-validations", namespace=wiring.namespace)
        self._children: dict[Key, AtWork] = {}
        self._attempts: dict[Key, int] = {}
        self._published: set[Key] = set()
        self._seen_at: dict[Key, int] = {}
        self._looked: dict[str, int] = {}
        self.verdicts = 0

    def tick(self, timeout_s: float = 0.0) -> int:
        """Take in what children finished, start what is due; returns how much of both. Waits for nothing."""
        done = sum([self._look_after(key, one) for key, one in list(self._children.items())])
        open_jobs = self._open()
        if not open_jobs:
            self._forget(set())
            return done
        self._forget(set(open_jobs))
        self._pipelines.poll()
        for key, (job, offset) in open_jobs.items():
            if key in self._published or key in self._children or not self._is_current(key, offset):
                continue
            released = self._pipelines.releases.get((job.pipeline, job.release))
            if released is None or len(self._children) >= AT_ONCE:
                continue
            snapshot = self._snapshot(job) if job.stage == "infra" else None
            if job.stage == "infra" and snapshot is None:
                continue
            self._begin(key, job, released, snapshot)
            done += 1
        return done

    def close(self) -> None:
        """Stop the children; their jobs start again at the next start."""
        for one in self._children.values():
            one.child.end()
        self._children.clear()
        self._producer.close()
        self._pipelines.close()

    def counts(self) -> dict[str, Any]:
        """Numbers for /metrics."""
        return {"jobs": {"open": len(self._open()), "running": len(self._children), "verdicts": self.verdicts}}

    def _open(self) -> dict[Key, tuple[Job, int]]:
        """The fold's open jobs, each with the offset up to which the fold has read."""
        return {
            (job.pipeline, job.run, job.stage, job.sequence): (job, worker.offset)
            for worker in self._offline.workers.values()
            for job in worker.state.open_jobs()  # type: ignore[attr-defined]
        }

    def _forget(self, open_keys: set[Key]) -> None:
        self._published &= open_keys
        for known in (self._attempts, self._seen_at):
            for key in known.keys() - open_keys:
                del known[key]

    def _is_current(self, key: Key, offset: int) -> bool:
        """Whether the fold has read the log as it stood when the job was first seen: an old job may be closed there."""
        if key not in self._seen_at:
            place = next(iter(self._offline.workers))
            self._seen_at[key] = self._wiring.bus.offsets(place)[1]
        return offset >= self._seen_at[key]

    def _snapshot(self, job: Job) -> Snapshot | None:
        """The newest fit snapshot of the run at or after the end of its range."""
        if job.snapshot_uri is not None and job.snapshot_offset is not None:
            return job.snapshot_uri, job.snapshot_offset
        place = (full_name("<p>.snapshots", job.pipeline, self._wiring.namespace), 0)
        first, end = self._wiring.bus.offsets(place)
        if self._looked.get(job.run) == end:
            return None
        found = None
        for record in read_range(
            self._wiring.bus, place, max(first, end - RECENT_SNAPSHOTS), end, self._wiring.namespace
        ):
            if isinstance(record.event, SnapshotTaken) and record.event.offset >= job.end_offset:
                run = record.event.runs.get(job.run)
                if run is not None and run.fit:
                    found = run.uri, record.event.offset
        if found is None:
            self._looked[job.run] = end
        else:
            self._looked.pop(job.run, None)
        return found

    def _begin(self, key: Key, job: Job, released: PipelineReleased, snapshot: Snapshot | None) -> None:
        wiring = self._wiring
        if wiring.inline_jobs:
            told = judge(job, released, wiring.bus, wiring.artifacts, wiring.namespace, snapshot, alone=False)
            self._publish(key, job, told)
            return
        started = child.start(_work, job, released, wiring.settings, wiring.key, snapshot)
        self._attempts[key] = self._attempts.get(key, 0) + 1
        self._children[key] = AtWork(job, snapshot, started, time.monotonic() + LIMIT_S[job.stage])

    def _look_after(self, key: Key, one: AtWork) -> int:
        """Publish a child's verdict, or what became of it; 0 while it works."""
        told: ModelValidated | None = None
        if one.child.pipe.poll():
            try:
                told = decode(TYPE_OF[ModelValidated], one.child.pipe.recv_bytes())
            except (EOFError, OSError):
                code = one.child.end()
                del self._children[key]
                if self._attempts[key] < ATTEMPTS:
                    return 1  # still open in the fold: the next tick starts it again
                why = f"its process ended {ATTEMPTS} times without a verdict, the last time with exit code {code}"
                self._publish(key, one.job, failed(one.job, why, one.snapshot))
                return 1
        elif time.monotonic() > one.deadline:
            told = failed(one.job, f"no verdict within {LIMIT_S[one.job.stage]:g} s", one.snapshot)
        if told is None:
            return 0
        one.child.end()
        del self._children[key]
        self._publish(key, one.job, told)
        return 1

    def _publish(self, key: Key, job: Job, told: ModelValidated) -> None:
        headers = headers_of(TYPE_OF[ModelValidated], job.source, job.sequence)
        headers += [("ce_correlationid", job.correlation), ("ce_causationid", job.causation)]
        self._producer.produce(self._topic, 0, job.pipeline.encode(), encode(told), headers, job.known_ms)
        self._producer.flush()
        self._published.add(key)
        self.verdicts += 1


def _work(
    pipe: Connection, job: Job, released: PipelineReleased, settings: Settings, key: bytes, snapshot: Snapshot | None
) -> None:
    """The body of a child: clients of its own, one job, one verdict."""
    bus = _bus(settings)
    told = judge(job, released, bus, Artifacts(settings.artifact_url, key), settings.namespace, snapshot, alone=True)
    pipe.send_bytes(encode(told))


def _bus(settings: Settings) -> Bus:
    return child.bus_of(settings, "evaluator-job")
