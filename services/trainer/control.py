"""Decides which runs live: a request starts one, and what no alias and no request needs any more ends.

A run lives from the RunStarted that stands in `control-log` to its RunEnded there: this fold writes both, and acts on
them only when it reads them back, so a crash or a second trainer changes nothing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from headrace.ranges import Ranges, from_on, union
from headrace.schemas import lineage
from headrace.schemas.control import (
    AliasRemoved,
    ChallengerExpired,
    ChallengerSuperseded,
    ControlEvent,
    ModelUpdated,
    ModelValidated,
    PipelineReleased,
    PipelineRetired,
    RangeBarred,
    RequestRefused,
    RevisionPinned,
    RunEnded,
    RunStarted,
    TrainingFailed,
    TrainingRequested,
)
from headrace.schemas.record import Emit, Record

SKIPPED_AT_MOST = 100  # labelled examples that a run without a version may fail to learn
RECENT_REQUESTS = 1_000  # requests are unique; a repeat comes soon or never

World = type(None)


def example_world() -> None:
    """The fold needs no world."""
    return


@dataclass(frozen=True, slots=True)
class Live:
    """A run that learns: how it began, when that was known, and where in `control-log` it stands."""

    started: RunStarted
    known_ms: int
    offset: int


@dataclass(slots=True)
class Trained:
    """One pipeline: the runs that live, newest last; the alias of each run that has one; requests answered.

    `versions` are the snapshots that an alias ever named, a few a week: a rollback may go back to any of them.
    `pinned` are those that a person wants kept, `anchor` is the one that may serve again.
    `passed` is where a run's offline gate passed. `chosen` are runs that passed both gates and wait for the registry's
    word, each with why it ends if that is no: a run that becomes champion meanwhile would serve and learn no more.
    What is `barred` no run that starts later learns, whoever asked for it before he knew.
    """

    releases: set[int] = field(default_factory=set)
    live: dict[str, Live] = field(default_factory=dict)
    ending: set[str] = field(default_factory=set)
    aliases: dict[str, ModelUpdated] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    pinned: set[str] = field(default_factory=set)
    anchor: str = ""
    answered: list[str] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    passed: dict[str, int] = field(default_factory=dict)
    chosen: dict[str, str] = field(default_factory=dict)
    barred: Ranges = ()
    retired: bool = False

    def kept(self) -> set[str]:
        """The snapshots that are never thinned out."""
        return {*self.versions, *self.pinned, self.anchor}


@dataclass(slots=True)
class State:
    """Every pipeline by its name."""

    pipelines: dict[str, Trained] = field(default_factory=dict)


def step(state: State, record: Record, world: None) -> list[Emit]:
    """Fold one decision; what does not concern runs passes without effect."""
    event = record.event
    if not isinstance(event, ControlEvent):
        return []
    trained = state.pipelines.setdefault(event.pipeline, Trained())
    match event:
        case PipelineReleased():
            trained.releases.add(event.release)
        case PipelineRetired():
            trained.retired = True
            trained.chosen.clear()
            return [emit for run in trained.live for emit in _end(trained, run, "the pipeline was retired")]
        case RangeBarred():
            trained.barred = union(trained.barred, event.parts)
        case RevisionPinned():
            (trained.pinned.add if event.pinned else trained.pinned.discard)(event.uri)
        case TrainingRequested():
            return _requested(trained, event)
        case RunStarted():
            return _started(trained, event, record)
        case RunEnded():
            return _ended(trained, event, record)
        case TrainingFailed(run=str(run)) if run in trained.live:
            return _failed(trained, run, event)
        case ChallengerSuperseded() | ChallengerExpired() if not _has_alias(trained, event.run):
            return _end(trained, event.run, event.reason)  # a challenger's alias the registry may have moved by then
        case ModelUpdated():
            return _alias_moved(trained, event)
        case AliasRemoved():
            return _alias_removed(trained, event)
        case ModelValidated(stage="offline" | "infra", verdict="pass") if event.run in trained.live:
            _gate_passed(trained, event)
        case ModelValidated(stage="offline" | "infra", verdict="fail" | "error", against=str()):
            return _rejected(trained, event)
        case RequestRefused(kind="ModelValidated"):
            return _not_chosen(trained, event)
        case _:
            pass
    return []


def _requested(trained: Trained, event: TrainingRequested) -> list[Emit]:
    if event.request in trained.answered:
        return []
    trained.answered = [*trained.answered, event.request][-RECENT_REQUESTS:]
    key = event.pipeline.encode()
    problem = None
    if trained.retired:
        problem = f"{event.pipeline} was retired"
    elif event.release not in trained.releases:
        problem = f"there is no release {event.release} of {event.pipeline}"
    if problem is not None:
        failed = TrainingFailed(pipeline=event.pipeline, request=event.request, run=None, reason=problem)
        return [Emit("training-runs", failed, key, partition=0)]
    started = RunStarted(
        pipeline=event.pipeline,
        run=run_id(event),
        request=event.request,
        release=event.release,
        seed=event.seed,
        start_offset=event.start,
        end_at_labels=event.end_at_labels,
        parent=event.parent,
        excluded=union(event.excluded, from_on(event.start, trained.barred)),
        recipe=event.recipe,
    )
    return [Emit("training-runs", started, key, partition=0)]


def run_id(event: TrainingRequested) -> str:
    """A short name that follows from the request alone."""
    return "r" + hashlib.blake2b(f"{event.pipeline}/{event.request}".encode(), digest_size=4).hexdigest()


def _started(trained: Trained, event: RunStarted, record: Record) -> list[Emit]:
    """The run lives; older ones that no alias names have lost their purpose."""
    if event.run in trained.live:
        return []
    older = [run for run in trained.live if not _has_alias(trained, run)]
    trained.live[event.run] = Live(event, record.known_ms, record.offset)
    if trained.retired:
        return _end(trained, event.run, "the pipeline was retired")
    ends = [emit for run in older for emit in _end(trained, run, f"run {event.run} took its place")]
    return [*ends, _lineage("START", event, record.known_ms)]


def _ended(trained: Trained, event: RunEnded, record: Record) -> list[Emit]:
    live = trained.live.pop(event.run, None)
    trained.ending.discard(event.run)
    trained.skipped.pop(event.run, None)
    trained.passed.pop(event.run, None)
    trained.chosen.pop(event.run, None)
    if live is None:
        return []
    return [_lineage("FAIL" if event.failed else "COMPLETE", live.started, record.known_ms, event.reason)]


def _failed(trained: Trained, run: str, event: TrainingFailed) -> list[Emit]:
    """One example less learned; a run that could not begin, or learns too little to become a version, ends."""
    trained.skipped[run] = trained.skipped.get(run, 0) + 1
    if event.offset is None:
        return _end(trained, run, event.reason, failed=True)
    if trained.skipped[run] < SKIPPED_AT_MOST or _has_alias(trained, run):
        return []
    why = f"{SKIPPED_AT_MOST} labelled examples could not be learned, the last one: {event.reason}"
    return _end(trained, run, why, failed=True)


def _lineage(kind: lineage.State, started: RunStarted, known_ms: int, why: str = "") -> Emit:
    """The start or end of a run: it reads `<p>.labelled-examples` and writes `<p>.snapshots`."""
    pipeline, run = started.pipeline, lineage.run_id(f"{started.pipeline}/{started.run}")
    names = ("run", "request", "release", "recipe", "seed", "start_offset", "parent")
    event = lineage.run_event(
        kind,
        f"{pipeline}.trainer",
        run,
        known_ms,
        pipeline=pipeline,
        inputs=[lineage.topic(f"{pipeline}.labelled-examples")],
        outputs=[lineage.topic(f"{pipeline}.snapshots")],
        facts={name: getattr(started, name) for name in names} | ({"reason": why} if why else {}),
        error=why if kind == "FAIL" else None,
    )
    return Emit("lineage", event, run.encode(), partition=0)


def _alias_moved(trained: Trained, event: ModelUpdated) -> list[Emit]:
    """A run ends where its last alias went to another run, or where it serves frozen; an anchor is a snapshot alone."""
    if event.alias == "anchor":
        trained.anchor = event.uri
        return []
    before = trained.aliases.get(event.alias)
    trained.aliases[event.alias] = event
    trained.chosen.pop(event.run, None)
    trained.versions.setdefault(event.uri, event.version)
    ends = []
    if before is not None and not _has_alias(trained, before.run):
        ends += _end(trained, before.run, f"{event.alias} went to version {event.version} of run {event.run}")
    if not event.follows:
        ends += _end(trained, event.run, f"version {event.version} serves frozen, as snapshot {event.snapshot_offset}")
    return ends


def _alias_removed(trained: Trained, event: AliasRemoved) -> list[Emit]:
    """A run that this leaves without an alias ends; one that never had it, and waits for its gates, goes on."""
    held = trained.aliases.get(event.alias)
    if held is None or held.run != event.run:
        return []
    del trained.aliases[event.alias]
    return [] if _has_alias(trained, event.run) else _end(trained, event.run, event.reason)


def _gate_passed(trained: Trained, event: ModelValidated) -> None:
    """As the registry reads it: the infra gate counts where the offline gate passed last, and what ends is out."""
    if event.stage == "offline":
        trained.passed[event.run] = event.offset
        return
    is_out = event.run in trained.ending or _has_alias(trained, event.run)
    if trained.passed.get(event.run) == event.offset and not is_out:
        trained.chosen.setdefault(event.run, "")


def _not_chosen(trained: Trained, event: RequestRefused) -> list[Emit]:
    run = str(event.numbers.get("run"))
    why = trained.chosen.pop(run, "")
    return _end(trained, run, why) if why else []


def _rejected(trained: Trained, event: ModelValidated) -> list[Emit]:
    """A challenger that fails before it has a version ends.

    A first model, and one of which too little is known, is judged again with more labels.
    """
    if _has_alias(trained, event.run):
        return []
    failed = "; ".join(check.detail or check.name for check in event.checks if check.verdict != "pass")
    return _end(trained, event.run, f"its {event.stage} gate said {event.verdict}: {failed}")


def _end(trained: Trained, run: str, why: str, *, failed: bool = False) -> list[Emit]:
    if run not in trained.live or run in trained.ending:
        return []
    if run in trained.chosen:
        trained.chosen[run] = why
        return []
    trained.ending.add(run)
    ended = RunEnded(pipeline=trained.live[run].started.pipeline, run=run, reason=why, failed=failed)
    return [Emit("training-runs", ended, ended.pipeline.encode(), partition=0)]


def _has_alias(trained: Trained, run: str) -> bool:
    return any(update.run == run for update in trained.aliases.values())
