"""What is known of the pipelines, read from the log: for `status` and `models`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.cli import alerts
from headrace.errors import Missing
from headrace.schemas.control import (
    OWN_RECIPE,
    ChallengerSuperseded,
    DriftDetected,
    MetricsUpdated,
    ModelUpdated,
    ModelValidated,
    PipelineReleased,
    RequestRefused,
    RunEnded,
    RunStarted,
    SnapshotTaken,
    TrainingCompleted,
    TrainingFailed,
)
from headrace.schemas.record import Record
from headrace.services.orchestrator import core as orchestrator
from headrace.services.orchestrator.training import Training
from headrace.services.registry import core as registry
from headrace.services.registry.models import Models
from headrace.services.registry.releases import UNCHANGED
from headrace.why import alert_words
from headrace.why.sentences import moment

if TYPE_CHECKING:
    from headrace.infra.sdk import Client

TAIL = 50
SCORES_TAIL = 2_000  # of all pipelines: every slice of two arms, told in one minute, is half of it


@dataclass
class Run:
    """One run: where it began, how far it came, why it ended."""

    run: str
    release: int
    request: str
    start_offset: int
    recipe: str = OWN_RECIPE
    state: str = "live"
    labels: int | None = None
    reason: str = ""


@dataclass
class Facts:
    """One pipeline as `control-log` tells it."""

    name: str
    release: int
    models: Models
    runs: dict[str, Run] = field(default_factory=dict)
    verdicts: list[ModelValidated] = field(default_factory=list)
    training: Training | None = None
    refused: RequestRefused | None = None
    alert: Record | None = None
    performance: DriftDetected | None = None

    def recipe_of(self, run: str) -> str:
        """The name of the recipe by which a run learns."""
        known = self.runs.get(run)
        return OWN_RECIPE if known is None else known.recipe


def fold(records: Iterable[Record]) -> dict[str, Facts]:
    """Every pipeline that `control-log` knows, by name: the registry's fold, runs and verdicts beside it."""
    state, world = registry.State(), registry.example_world()
    asked = orchestrator.State()
    runs: dict[str, dict[str, Run]] = {}
    verdicts: dict[str, list[ModelValidated]] = {}
    refused: dict[str, RequestRefused] = {}
    newest: dict[str, Record] = {}
    performance: dict[str, DriftDetected] = {}
    for record in records:
        registry.step(state, record, world)
        orchestrator.step(asked, record, None)
        event = record.event
        match event:
            case RunStarted():
                run = Run(event.run, event.release, event.request, event.start_offset, event.recipe or OWN_RECIPE)
                runs.setdefault(event.pipeline, {}).setdefault(event.run, run)
            case ChallengerSuperseded() if (given_way := runs.get(event.pipeline, {}).get(event.run)) is not None:
                given_way.reason = f"gave way to {event.by_request}: {event.reason}"
            case RunEnded() if (ended := runs.get(event.pipeline, {}).get(event.run)) is not None:
                ended.state, ended.reason = "ended", ended.reason or event.reason
            case TrainingFailed(offset=None):  # with one, the run left out that example and lives
                failed = runs.get(event.pipeline, {}).get(event.run or "")
                if failed is not None:
                    failed.state, failed.reason = "failed", event.reason
            case TrainingCompleted():
                completed = runs.get(event.pipeline, {}).get(event.run)
                if completed is not None:
                    completed.labels = event.n_labels
            case ModelValidated():
                verdicts.setdefault(event.pipeline, []).append(event)
            case DriftDetected():
                newest[event.pipeline] = record
                if event.degraded is not None:
                    performance[event.pipeline] = event
            case RequestRefused() if event.kind != UNCHANGED:
                refused[event.pipeline] = event
            case PipelineReleased() if event.pipeline in refused and refused[event.pipeline].kind == "ReleaseAsked":
                del refused[event.pipeline]  # a later release was taken up
            case _:
                pass
    return {
        name: Facts(
            name,
            found.released.release,
            found,
            runs.get(name, {}),
            verdicts.get(name, []),
            asked.pipelines.get(name),
            refused.get(name),
            newest.get(name),
            performance.get(name),
        )
        for name, found in state.pipelines.items()
    }


def read(client: Client, pipeline: str | None = None, until_ms: int | None = None) -> dict[str, Facts]:
    """The facts of one pipeline or of all; none before the topics exist. Raises Unreachable."""
    return of(decided(client, pipeline, until_ms), pipeline)


def decided(client: Client, pipeline: str | None = None, until_ms: int | None = None) -> Iterator[Record]:
    """`control-log` of one pipeline or of all; nothing before the topics exist. Raises Unreachable."""
    try:
        records = client.subscribe("control-log", pipeline or "", start="earliest", follow=False)
    except Missing:
        return
    yield from records if until_ms is None else as_of(until_ms, records)


def of(records: Iterable[Record], pipeline: str | None = None) -> dict[str, Facts]:
    """The facts of one pipeline or of all."""
    return {name: facts for name, facts in fold(records).items() if pipeline in (None, name)}


def as_of(until_ms: int, records: Iterable[Record]) -> Iterator[Record]:
    """What stood in `control-log` when a known time was reached.

    Times there may go back, a verdict has that of the example at which its run was judged: what the registry knew
    then is the log up to its first record of a later time, not every record of an earlier one.
    """
    return takewhile(lambda record: record.known_ms <= until_ms, records)


def status_of(client: Client, facts: Facts) -> dict[str, Any]:
    """One pipeline's status as data: release, file, model, labels so far, last verdict, newest scores."""
    released = facts.models.released
    policies = released.definition.policies
    champion = facts.models.aliases.get("champion")
    newest = newest_snapshot(client, facts.name)
    run = champion.run if champion else next((r.run for r in facts.runs.values() if r.state == "live"), None)
    learned = newest.runs[run].n_learned if newest and run in newest.runs else None
    verdict = facts.verdicts[-1] if facts.verdicts else None
    newest_scores = scores(r.event for r in client.subscribe("metrics", facts.name, last=SCORES_TAIL, follow=False))
    return {
        "pipeline": facts.name,
        "release": facts.release,
        "retired": facts.models.retired,
        "partitions": released.partitions,
        "by": released.by,
        "file": file_state(facts.name, released.definition.source_digest, facts.release),
        "champion": None
        if champion is None
        else {
            "version": champion.version,
            "run": champion.run,
            "recipe": facts.recipe_of(champion.run),
            "follows": champion.follows,
            "reason": champion.reason,
            "revision": f"{champion.version}@{_revision(champion, newest)}",
        },
        **{alias: _alias(facts, facts.models.aliases.get(alias)) for alias in ("challenger", "previous")},
        "training": _training(facts.training),
        "paused": facts.models.paused,
        "labels": learned,
        "needs_labels": None if champion else policies.triggers.first_model_at,
        "verdict": None if verdict is None else verdict.model_dump(mode="json"),
        "refused": facts.refused.model_dump(mode="json") if facts.refused else None,
        "alert": None if facts.alert is None else alerts.told(facts.alert),
        "degraded": degraded(facts, newest_scores["scores"]),
        "skewed": [] if facts.training is None else [one.says for one in facts.training.skewed.values()],
        **newest_scores,
    }


def _alias(facts: Facts, update: ModelUpdated | None) -> dict[str, Any] | None:
    if update is None:
        return None
    told = {"version": update.version, "run": update.run, "reason": update.reason, "share": update.share}
    return {**told, "recipe": facts.recipe_of(update.run)}


def _training(training: Training | None) -> dict[str, Any] | None:
    """What holds the slot, and what waits for it."""
    if training is None or training.slot is None:
        return None
    slot, waiting = training.slot, training.waiting
    return {
        "run": slot.run,
        "recipe": slot.asked.recipe or OWN_RECIPE,
        "trigger": slot.asked.trigger,
        "cause": slot.asked.cause,
        "start": slot.asked.start,
        "waiting": None if waiting is None else f"{waiting.asked.trigger} ({waiting.asked.cause})",
    }


def degraded(facts: Facts, newest: dict[str, Any] | None) -> list[str]:
    """Why the champion is worse than it was or than it must be; empty where it is not."""
    champion, said = facts.models.aliases.get("champion"), facts.performance
    if champion is None:
        return []
    why = []
    if said is not None and said.degraded and said.run == champion.run:
        why.append(alert_words.found(said) + _tried_again(facts.training))
    success = facts.models.released.definition.policies.success
    value = (newest or {}).get(success.metric) if success else None
    if success is not None and value is not None and not success.is_met(value):
        why.append(f"{success.metric} {value:.4f} over the last {newest['n']:,} rows, asked for {success.asked}")  # type: ignore[index]
    return why


def _tried_again(training: Training | None) -> str:
    """How often a training was tried since, and when the next one may be."""
    known = None if training is None else training.degraded
    if known is None or not known.tries:
        return ""
    times = "once" if known.tries == 1 else f"{known.tries} times"
    return f"; tried again {times}, next not before {moment(known.retry_ms)}"


def newest_snapshot(client: Client, pipeline: str) -> SnapshotTaken | None:
    """The newest SnapshotTaken, None before the first."""
    events = [r.event for r in client.subscribe("snapshots", pipeline, last=TAIL, follow=False)]
    return next((event for event in reversed(events) if isinstance(event, SnapshotTaken)), None)


def newest_runs(client: Client, facts: Facts) -> list[Run]:
    """The runs, live ones with what their newest snapshot learned: TrainingCompleted is told at some labels only."""
    taken = newest_snapshot(client, facts.name) if any(run.state == "live" for run in facts.runs.values()) else None
    now = {} if taken is None else {run: snapshot.n_learned for run, snapshot in taken.runs.items()}
    return [replace(run, labels=now.get(run.run, run.labels)) for run in facts.runs.values()]


def scores(events: Iterable[Any]) -> dict[str, Any]:
    """`scores`: the champion's newest windowed ones, None before the first; `slices`: its run's own, by slice."""
    newest, slices, run = None, dict[str, dict[str, Any]](), ""
    for event in events:
        if not isinstance(event, MetricsUpdated) or event.alias != "champion":
            continue
        if event.run != run:
            slices, run = {}, event.run
        if event.slice is None and event.scope == "windowed":
            newest = {"n": event.n, "coverage": event.coverage, **event.metrics}
        elif event.slice is not None and event.scope == "cumulative":
            slices[event.slice] = {"n": event.n, **event.metrics}
    return {"scores": newest, "slices": dict(sorted(slices.items()))}


def file_state(pipeline: str, digest: str, release: int) -> str:
    """Whether the pipeline's file in this folder is what was released."""
    path = Path("pipelines") / f"{pipeline}.py"
    if not path.is_file():
        return "no file here"
    if hashlib.sha256(path.read_bytes()).hexdigest() == digest:
        return f"{path} is release {release}"
    return f"{path} differs from release {release}"


def _revision(champion: ModelUpdated, newest: SnapshotTaken | None) -> int:
    follows = champion.follows and newest is not None and champion.run in newest.runs
    return newest.offset if follows and newest is not None else champion.snapshot_offset
