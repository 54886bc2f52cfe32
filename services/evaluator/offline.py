"""Keeps the gates' open jobs: a run that reached the end of its range is judged offline, then as a file in a process;
so is the revision that is to be the next anchor, once the refresh test passed.

The fold only remembers what is due; `jobs.py` does the work. A verdict closes its job when it is read back from
the log like everybody else's, so the first one wins and a crash only starts the job again.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from headrace.schemas.codec import ORIGIN, header
from headrace.schemas.control import (
    AliasRemoved,
    Check,
    ControlEvent,
    ModelUpdated,
    ModelValidated,
    PipelineReleased,
    PipelineRetired,
    RunEnded,
    RunStarted,
    Stage,
    TrainingCompleted,
    TrainingFailed,
)
from headrace.schemas.record import Emit, Record

JobStage = Literal["offline", "infra", "refresh"]

World = type(None)


def example_world() -> None:
    """The fold needs no world."""
    return


@dataclass(frozen=True, slots=True)
class Job:
    """One gate to run: what it judges, and the record that asked (its sequence numbers the verdict).

    `against` is the champion's run where there is one: a challenger is compared with it. `parent` is the address of the
    model that the run began with, if any; a rescue is to take the place of it, which serves frozen as the champion.
    `recipe` is as in RunStarted.
    """

    stage: JobStage
    pipeline: str
    run: str
    request: str
    release: int
    seed: int
    excluded: tuple[tuple[int, int], ...]
    n_labels: int
    start_offset: int
    end_offset: int
    epoch: int
    sequence: int
    known_ms: int
    correlation: str
    causation: str
    against: str | None = None
    parent: str | None = None
    is_rescue: bool = False
    recipe: str | None = None
    snapshot_uri: str | None = None
    snapshot_offset: int | None = None
    forced: bool = False

    @property
    def source(self) -> str:
        """The source of the verdict."""
        return f"/evaluator/{self.pipeline}/{self.run}/{self.stage}"


@dataclass(slots=True)
class Gated:
    """One pipeline: releases whose first gate is off, its live runs, its open jobs, the epoch of its aliases.

    `skipped` are the offsets that a run left out because their learn raised. `newest` is the last completion of a run
    whose gates are at work on an earlier one: in a fast stream each would otherwise be overtaken by the next. `named`
    are runs that have a version, so nothing is left to judge offline. `frozen` is the snapshot that the champion serves
    where it follows no newer one.
    """

    ungated: set[int] = field(default_factory=set)
    runs: dict[str, RunStarted] = field(default_factory=dict)
    skipped: dict[str, tuple[int, ...]] = field(default_factory=dict)
    jobs: dict[tuple[str, Stage], Job] = field(default_factory=dict)
    newest: dict[str, Job] = field(default_factory=dict)
    champion: str | None = None
    frozen: str | None = None
    named: set[str] = field(default_factory=set)
    epoch: int = 0


@dataclass(slots=True)
class State:
    """Every pipeline by its name."""

    pipelines: dict[str, Gated] = field(default_factory=dict)

    def open_jobs(self) -> list[Job]:
        """All jobs that wait for work, at most two a run; a forced verdict only waits to be read back."""
        return [job for gated in self.pipelines.values() for job in gated.jobs.values() if not job.forced]


def step(state: State, record: Record, world: None) -> list[Emit]:
    """Open and close jobs; where a release switched the first gate off, its forced verdict is written at once."""
    event = record.event
    if not isinstance(event, ControlEvent):
        return []
    gated = state.pipelines.setdefault(event.pipeline, Gated())
    match event:
        case PipelineReleased():
            if event.definition.policies.gates.first == "off":
                gated.ungated.add(event.release)
        case PipelineRetired():
            gated.runs.clear()
            gated.skipped.clear()
            gated.jobs.clear()
            gated.newest.clear()
        case RunStarted():
            gated.runs.setdefault(event.run, event)
        case TrainingFailed(run=str(run), offset=int(offset)) if run in gated.runs:
            gated.skipped[run] = (*gated.skipped.get(run, ()), offset)
        case RunEnded():
            _forget(gated, event.run)
        case ModelUpdated():
            gated.epoch = event.epoch
            if event.alias == "champion":
                gated.champion, gated.frozen = event.run, None if event.follows else event.uri
            if event.run in gated.runs:
                gated.named.add(event.run)
            gated.newest.pop(event.run, None)
        case AliasRemoved():
            gated.epoch = event.epoch
        case TrainingCompleted() if event.run in gated.runs and event.run not in gated.named:
            return _completed(gated, event, record)
        case ModelValidated(stage="refresh", verdict="pass", snapshot_uri=None) if event.run in gated.runs:
            gated.jobs[event.run, "refresh"] = _next_anchor(gated, event, record)
        case ModelValidated(stage="offline" | "infra" | "refresh"):
            _judged(gated, event)
        case _:
            pass
    return []


def _completed(gated: Gated, event: TrainingCompleted, record: Record) -> list[Emit]:
    job = replace(
        _job("offline", gated, event, event.end_offset, record),
        against=gated.champion,
        forced=event.release in gated.ungated and gated.champion is None,
    )
    if not job.forced and any(run == event.run for run, _ in gated.jobs):
        gated.newest[event.run] = job
        return []
    gated.jobs[event.run, "offline"] = job
    if not job.forced:
        return []
    forced = ModelValidated(
        pipeline=event.pipeline,
        run=event.run,
        request=event.request,
        stage="offline",
        verdict="pass",
        checks=(
            Check(name="forced", verdict="pass", detail="forced: gates.first=off", source="policy Gates(first=…)"),
        ),
        n_labels=event.n_labels,
        offset=event.end_offset,
        epoch=gated.epoch,
    )
    return [Emit("model-validations", forced, event.pipeline.encode(), partition=0)]


def _judged(gated: Gated, event: ModelValidated) -> None:
    """Close the job that the verdict answers: an offline pass opens the infra job, a fail the newest completion's."""
    job = gated.jobs.get((event.run, event.stage))
    if job is None or job.end_offset != event.offset:
        return
    del gated.jobs[event.run, job.stage]
    if job.stage == "offline" and event.verdict == "pass":
        gated.jobs[event.run, "infra"] = replace(
            job,
            stage="infra",
            snapshot_uri=event.snapshot_uri,
            snapshot_offset=event.snapshot_offset,
            forced=False,
        )
    elif event.verdict != "pass" and event.run in gated.newest:
        gated.jobs[event.run, "offline"] = gated.newest.pop(event.run)


def _next_anchor(gated: Gated, event: ModelValidated, record: Record) -> Job:
    """The newest kept revision of a run up to the one with which its refresh test began."""
    job = _job("refresh", gated, event, event.offset, record)
    return replace(job, epoch=event.epoch, against=event.against, snapshot_offset=event.snapshot_offset)


def _job(
    stage: JobStage, gated: Gated, event: TrainingCompleted | ModelValidated, end_offset: int, record: Record
) -> Job:
    """What a record asks for about a run: up to an offset, and caused by that record."""
    started = gated.runs[event.run]
    place = header(record.headers, ORIGIN, 7) or f"{record.topic}/{record.partition}/{record.offset}"
    told = event.skipped if isinstance(event, TrainingCompleted) else ()
    skipped = sorted({*told, *gated.skipped.get(event.run, ())})
    return Job(
        stage=stage,
        pipeline=event.pipeline,
        run=event.run,
        request=event.request,
        release=started.release,
        seed=started.seed,
        excluded=(*started.excluded, *((offset, offset + 1) for offset in skipped)),
        n_labels=event.n_labels,
        start_offset=started.start_offset,
        end_offset=end_offset,
        epoch=gated.epoch,
        sequence=record.sequence,
        known_ms=record.known_ms,
        correlation=header(record.headers, "ce_correlationid", 5) or place,
        causation=place,
        parent=started.parent,
        is_rescue=started.parent is not None and started.parent == gated.frozen,
        recipe=started.recipe,
    )


def _forget(gated: Gated, run: str) -> None:
    gated.runs.pop(run, None)
    gated.named.discard(run)
    gated.skipped.pop(run, None)
    gated.jobs.pop((run, "offline"), None)
    gated.jobs.pop((run, "infra"), None)
    gated.jobs.pop((run, "refresh"), None)
    gated.newest.pop(run, None)
