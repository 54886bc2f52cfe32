"""What is known of the pipelines, read from the log: for `status` and `models`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.errors import Missing
from headrace.schemas.control import (
    MetricsUpdated,
    ModelUpdated,
    ModelValidated,
    RequestRefused,
    RunEnded,
    RunStarted,
    SnapshotTaken,
    TrainingCompleted,
    TrainingFailed,
)
from headrace.schemas.record import Record
from headrace.schemas.topics import full_name
from headrace.services import FOLDS
from headrace.services.registry import core as registry
from headrace.services.registry.releases import UNCHANGED

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
    state: str = "live"
    labels: int | None = None
    reason: str = ""


@dataclass
class Facts:
    """One pipeline as `control-log` tells it."""

    name: str
    release: int
    models: registry.Models
    runs: dict[str, Run] = field(default_factory=dict)
    verdicts: list[ModelValidated] = field(default_factory=list)
    refused: RequestRefused | None = None


def fold(records: Iterable[Record]) -> dict[str, Facts]:
    """Every pipeline that `control-log` knows, by name: the registry's fold, runs and verdicts beside it."""
    state, world = registry.State(), registry.example_world()
    runs: dict[str, dict[str, Run]] = {}
    verdicts: dict[str, list[ModelValidated]] = {}
    refused: dict[str, RequestRefused] = {}
    for record in records:
        registry.step(state, record, world)
        event = record.event
        match event:
            case RunStarted():
                run = Run(event.run, event.release, event.request, event.start_offset)
                runs.setdefault(event.pipeline, {}).setdefault(event.run, run)
            case RunEnded():
                _end(runs, event.pipeline, event.run, "ended", event.reason)
            case TrainingFailed():
                _end(runs, event.pipeline, event.run or "", "failed", event.reason)
            case TrainingCompleted():
                completed = runs.get(event.pipeline, {}).get(event.run)
                if completed is not None:
                    completed.labels = event.n_labels
            case ModelValidated():
                verdicts.setdefault(event.pipeline, []).append(event)
            case RequestRefused() if event.kind != UNCHANGED:
                refused[event.pipeline] = event
            case _:
                pass
    return {
        name: Facts(name, found.released.release, found, runs.get(name, {}), verdicts.get(name, []), refused.get(name))
        for name, found in state.pipelines.items()
    }


def read(client: Client, pipeline: str | None = None) -> dict[str, Facts]:
    """The facts of one pipeline or of all; none before the topics exist. Raises Unreachable."""
    try:
        records = client.subscribe("control-log", pipeline or "", start="earliest", follow=False)
    except Missing:
        return {}
    found = fold(records)
    return {name: facts for name, facts in found.items() if pipeline in (None, name)}


def status_of(client: Client, facts: Facts) -> dict[str, Any]:
    """One pipeline's status as data: release, file, model, labels so far, last verdict, newest scores."""
    released = facts.models.released
    policies = released.definition.policies
    champion = facts.models.aliases.get("champion")
    newest = newest_snapshot(client, facts.name)
    run = champion.run if champion else next((r.run for r in facts.runs.values() if r.state == "live"), None)
    learned = newest.runs[run].n_learned if newest and run in newest.runs else None
    verdict = facts.verdicts[-1] if facts.verdicts else None
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
            "follows": champion.follows,
            "reason": champion.reason,
            "revision": f"{champion.version}@{_revision(champion, newest)}",
        },
        "labels": learned,
        "needs_labels": None if champion else policies.triggers.first_model_at,
        "verdict": None if verdict is None else verdict.model_dump(mode="json"),
        "refused": facts.refused.model_dump(mode="json") if facts.refused else None,
        **scores(r.event for r in client.subscribe("metrics", facts.name, last=SCORES_TAIL, follow=False)),
    }


def newest_snapshot(client: Client, pipeline: str) -> SnapshotTaken | None:
    """The newest SnapshotTaken, None before the first."""
    events = [r.event for r in client.subscribe("snapshots", pipeline, last=TAIL, follow=False)]
    return next((event for event in reversed(events) if isinstance(event, SnapshotTaken)), None)


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


def lags(client: Client, pipelines: Iterable[str]) -> dict[str, int | None]:
    """How many records each fold's group is behind, over all its inputs; None where it has read nothing yet."""
    from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition

    from headrace.infra.subscription import connect

    namespace, names = client.settings.namespace, list(pipelines)
    groups = {fold.id: f"{namespace}headrace-{fold.id}" for fold in FOLDS}
    admin = connect(KafkaAdminClient, client.settings, client.address)
    consumer = connect(KafkaConsumer, client.settings, client.address, enable_auto_commit=False)
    try:
        committed = {
            group: offsets
            for group, offsets in admin.list_group_offsets(sorted(set(groups.values()))).items()
            if offsets
        }
        found: dict[str, int | None] = {}
        for one in FOLDS:
            topics = [full_name(one.input, name, namespace) for name in (names if "<p>" in one.input else [""])]
            places = [
                TopicPartition(topic, partition)
                for topic in topics
                for partition in consumer.partitions_for_topic(topic) or ()
            ]
            offsets = committed.get(groups[one.id])
            if offsets is None or not places:
                found.setdefault(one.id, None)
                continue
            ends, starts = consumer.end_offsets(places), consumer.beginning_offsets(places)
            behind = sum(
                max(0, ends[place] - (offsets[place].offset if place in offsets else starts[place])) for place in places
            )
            found[one.id] = (found.get(one.id) or 0) + behind
        return found
    finally:
        admin.close()
        consumer.close()


def _end(runs: dict[str, dict[str, Run]], pipeline: str, run: str, state: str, reason: str) -> None:
    found = runs.get(pipeline, {}).get(run)
    if found is not None:
        found.state, found.reason = state, reason


def _revision(champion: ModelUpdated, newest: SnapshotTaken | None) -> int:
    follows = champion.follows and newest is not None and champion.run in newest.runs
    return newest.offset if follows and newest is not None else champion.snapshot_offset
