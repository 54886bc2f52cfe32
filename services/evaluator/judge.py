"""One gate's work, from the log and the artifact store to a verdict. Runs the pipeline's own code: in a child process.

Trouble of the machine (broker, disk, memory) rises, so that the job is tried again; whatever the author's code or
the model's bytes do wrong is a verdict.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import psutil

from headrace import model_bytes
from headrace.infra.artifacts import Artifacts, Manifest
from headrace.infra.bus import Bus, BusError
from headrace.infra.follow import read_range
from headrace.infra.pipeline_files import load_stored
from headrace.pipeline import Pipeline
from headrace.ranges import without
from headrace.recipes import made_up_examples
from headrace.schemas.control import Check, ModelValidated, PipelineReleased, ReleaseDefinition, SnapshotTaken, Verdict
from headrace.schemas.stream import ExampleLabelled, Features
from headrace.schemas.topics import full_name
from headrace.services.evaluator import gates
from headrace.services.evaluator.gates import Row
from headrace.services.evaluator.offline import Job
from headrace.services.evaluator.slices import Slicer
from headrace.verbs import Answer, FeatureMissing, project, signature, verbs

ROWS_AT_MOST = 1_000_000  # about a gigabyte in memory; a first model that failed 12 times will not pass
GOLDEN_REQUESTS = 20
GOLDEN_REACH = 200  # how far back recent inputs are looked for
TRIES = 3  # the best time of a request counts: another process must not fail a model
MB = 1e6

Snapshot = tuple[str, int]  # uri, offset


def judge(
    job: Job,
    released: PipelineReleased,
    bus: Bus,
    artifacts: Artifacts,
    namespace: str,
    snapshot: Snapshot | None,
    *,
    alone: bool,
) -> ModelValidated:
    """The verdict of one job. `alone` in a process of its own: only then time and memory are judged."""
    began = time.perf_counter()
    try:
        if job.stage == "offline":
            checks, snapshot = _offline(job, released, bus, artifacts, namespace)
        else:
            snapshot = _next_anchor(job, bus, artifacts, namespace) if job.stage == "refresh" else snapshot
            checks = _infra(job, released, bus, artifacts, namespace, snapshot, alone)
    except (BusError, OSError, MemoryError):
        raise
    except Exception as error:
        return failed(job, f"{type(error).__name__}: {error}", snapshot)
    return verdict(job, checks, snapshot, seconds=round(time.perf_counter() - began, 3), peak_mb=_peak_mb())


def verdict(job: Job, checks: list[Check], snapshot: Snapshot | None = None, **costs: float) -> ModelValidated:
    """The event that answers a job."""
    uri, offset = snapshot or (None, None)
    return ModelValidated(
        pipeline=job.pipeline,
        run=job.run,
        request=job.request,
        stage=job.stage,
        verdict=_overall(job, checks),
        checks=tuple(checks),
        n_labels=job.n_labels,
        offset=job.end_offset,
        epoch=job.epoch,
        snapshot_uri=uri,
        snapshot_offset=offset,
        against=job.against,
        **costs,
    )


def _overall(job: Job, checks: list[Check]) -> Verdict:
    """A snapshot that cannot be the next anchor does not say that the revisions since got worse."""
    found = gates.overall(checks)
    return "error" if job.stage == "refresh" and found == "fail" else found


def failed(job: Job, why: str, snapshot: Snapshot | None = None) -> ModelValidated:
    """The verdict of a job that came to no end of its own."""
    return verdict(job, [_error(why)], snapshot)


def _error(why: str) -> Check:
    return Check(name="ran", verdict="error", detail=why, source=gates.OWN_RULE)


def _offline(
    job: Job, released: PipelineReleased, bus: Bus, artifacts: Artifacts, namespace: str
) -> tuple[list[Check], Snapshot | None]:
    if job.end_offset - job.start_offset > ROWS_AT_MOST:
        return [_error(f"{job.end_offset - job.start_offset} rows; at most {ROWS_AT_MOST} are replayed")], None
    definition = released.definition
    pipeline = load_stored(artifacts, definition)
    rows = list(_rows(job, definition, bus, namespace))
    half = len(rows) // 2
    snapshot = None
    if definition.policies.learning == "frozen":
        judged, values, snapshot = _freeze(job, definition, pipeline, rows, half, artifacts)
    else:
        model = _beginning(job, pipeline, artifacts)
        answer, learn = verbs(model, definition.contract.label, definition.has_probabilities)
        judged = rows[half:]
        if job.is_rescue:
            judged = _answered_by(_beginning(job, pipeline, artifacts), judged, definition)
        values = gates.replay(rows, answer, learn, half)
    task, success = pipeline.spec.label.task, definition.policies.success
    if job.against is not None:
        slicer = Slicer(definition.policies.slices)
        slices = [slicer.names(row.features) for row in judged]
        return gates.challenger_checks(task, judged, values, success, definition.policies.gates, slices), snapshot
    return gates.first_model_checks(task, judged, values, success), snapshot


def _freeze(
    job: Job, definition: ReleaseDefinition, pipeline: Pipeline, rows: Sequence[Row], half: int, artifacts: Artifacts
) -> tuple[list[Row], list[Any], Snapshot | None]:
    """Train to the holdout's start and score exactly the bytes that would serve, on rows predicted after it."""
    if not rows:
        return [], [], None
    model = _beginning(job, pipeline, artifacts)
    label, has_probabilities = definition.contract.label, definition.has_probabilities
    _, learn = verbs(model, label, has_probabilities)
    for row in rows[:half]:
        learn(row.features, row.label)
    data = model_bytes.dumps(model)
    judged = [row for row, known in zip(rows, gates.learned_before(rows), strict=True) if known >= half]
    answer, _ = verbs(model_bytes.loads(data), label, has_probabilities)
    values = gates.frozen_answers(judged, answer)
    offset = rows[half].offset
    manifest = Manifest(
        kind="model",
        pipeline=job.pipeline,
        release=job.release,
        run=job.run,
        recipe=job.recipe,
        seed=job.seed,
        parent=job.parent,
        learned=without(job.start_offset, offset, job.excluded),
        offset=offset,
        n_learned=half,
        sequences={row.source: row.sequence for row in rows[:half]},
        structural_digest=model_bytes.digest(model),
    )
    return judged, values, (artifacts.put(data, manifest), offset)


def _beginning(job: Job, pipeline: Pipeline, artifacts: Artifacts) -> Any:
    """What the run began with: a fresh model, or its parent."""
    if job.parent is None:
        return pipeline.recipe_named(job.recipe)(job.seed)
    return model_bytes.loads(artifacts.get(job.parent)[0])


def _answered_by(parent: Any, rows: list[Row], definition: ReleaseDefinition) -> list[Row]:
    """A rescue takes the place of its parent, which serves frozen, so it is compared with what that would answer.

    What the champion answered then is another model's: revisions that were taken back, or a version that served since.
    """
    answer, _ = verbs(parent, definition.contract.label, definition.has_probabilities)
    answers = gates.frozen_answers(rows, answer)
    return [row._replace(champion=value) for row, value in zip(rows, answers, strict=True)]


def _infra(
    job: Job,
    released: PipelineReleased,
    bus: Bus,
    artifacts: Artifacts,
    namespace: str,
    snapshot: Snapshot | None,
    alone: bool,
) -> list[Check]:
    assert snapshot is not None  # jobs.py starts the job once there is one
    definition = released.definition
    load_stored(artifacts, definition)  # the classes that the author's file defines
    before = psutil.Process().memory_info().rss
    data, _ = artifacts.get(snapshot[0])
    answer, _ = verbs(model_bytes.loads(data), definition.contract.label, definition.has_probabilities)
    answers, slowest_ms = [], 0.0
    for features in _golden_requests(job, definition, bus, namespace):
        value, best_ms = _timed(features, answer)
        answers.append(value)
        slowest_ms = max(slowest_ms, best_ms)
    memory = max(psutil.Process().memory_info().rss - before, 0) / MB
    return gates.infra_checks(
        definition.contract.label.task,
        definition.policies.gates,
        answers=answers,
        slowest_ms=slowest_ms,
        size_mb=len(data) / MB,
        memory_mb=memory,
        is_taught=job.n_labels > 0,
        judge_resources=alone,
    )


def _next_anchor(job: Job, bus: Bus, artifacts: Artifacts, namespace: str) -> Snapshot:
    """The newest kept snapshot of the run up to the job's. Raises LookupError where none is."""
    assert job.snapshot_offset is not None
    place = (full_name("<p>.snapshots", job.pipeline, namespace), 0)
    taken = [
        (record.event.runs[job.run].uri, record.event.offset)
        for record in read_range(bus, place, *bus.offsets(place), namespace)
        if isinstance(record.event, SnapshotTaken)
        and record.event.offset <= job.snapshot_offset
        and job.run in record.event.runs
        and record.event.runs[job.run].fit
    ]
    kept = next((one for one in reversed(taken) if artifacts.exists(one[0])), None)
    if kept is None:
        raise LookupError(f"no snapshot of run {job.run} up to offset {job.snapshot_offset} is kept")
    return kept


def _golden_requests(job: Job, definition: ReleaseDefinition, bus: Bus, namespace: str) -> list[Features]:
    """Recent inputs; before there are any, made-up ones that meet the contract."""
    recent = [row.features for row in _rows(job, definition, bus, namespace, last=GOLDEN_REACH)][-GOLDEN_REQUESTS:]
    return recent or [features for features, _ in made_up_examples(definition.contract, GOLDEN_REQUESTS)]


def _peak_mb() -> float:
    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):  # Windows
        return float(round(memory.peak_wset / MB, 1))
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / MB, 1)


def _timed(features: Features, answer: Answer) -> tuple[Any, float]:
    best, value = float("inf"), None
    for _ in range(TRIES):
        began = time.perf_counter()
        try:
            value = answer(features)
        except (OSError, MemoryError):
            raise
        except Exception:
            value = float("nan")
        best = min(best, (time.perf_counter() - began) * 1000)
    return value, best


def _rows(job: Job, definition: ReleaseDefinition, bus: Bus, namespace: str, last: int | None = None) -> Iterator[Row]:
    """What the run learned of the job's range (or of its last offsets), on the run's own columns."""
    place = (full_name("<p>.labelled-examples", job.pipeline, namespace), 0)
    start = job.start_offset if last is None else max(job.start_offset, job.end_offset - last)
    columns = signature(definition.contract)
    for record in read_range(bus, place, start, job.end_offset, namespace):
        event = record.event
        if not isinstance(event, ExampleLabelled) or any(a <= record.offset < b for a, b in job.excluded):
            continue
        prediction = event.prediction
        try:
            features = project(prediction.features, columns)
        except FeatureMissing:
            continue  # the run could not learn it either
        arm = prediction.predictions.get("champion")
        champion = arm.value if arm is not None and arm.run == job.against else None
        yield Row(
            features,
            event.label,
            prediction.baselines,
            record.source,
            record.sequence,
            event.known_to,
            record.offset,
            champion,
        )
